"""Oracle Cloud's object storage, through its API that is S3's. `oci://bucket@namespace/path` says
the namespace, which is part of the service's address."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moorage.specs.stores import s3api
from moorage.specs.stores.addresses import joined, plain, scheme_of
from moorage.specs.stores.record import Access, Address, Engine, Profile, StoreKind


def check_name(name: str) -> str:
    """Oracle's rules for bucket names, and a first character that no path needs to escape."""
    if not 1 <= len(name) <= 256:
        return "it must have 1 to 256 characters"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        return "use letters, digits, . _ and -, with a letter or digit first"
    return ""


def _read(text: str) -> Address:
    named = re.match(r"\w+://([A-Za-z0-9._-]+)@([a-z0-9]+)(/|$)", text)
    if named is None:
        return plain(text)
    address = plain(f"{scheme_of(text)}://{named[1]}/{text[named.end() :]}")
    return Address(address.bucket, address.path, account=named[2])


def _write(address: Address) -> str:
    bucket = f"{address.bucket}@{address.account}" if address.account else address.bucket
    return joined("oci", bucket, address.path)


def _endpoint(access: Access) -> str:
    if access.endpoint or not (access.account and access.region):
        return s3api.required(access, "oci")
    return f"https://{access.account}.compat.objectstorage.{access.region}.oraclecloud.com"


def _rclone(access: Access) -> Mapping[str, str]:
    return {**s3api.rclone(access, "Other", _endpoint(access)), "force_path_style": "true"}


def _obstore(access: Access, bucket: str) -> tuple[Engine, Mapping[str, str]]:
    return s3api.obstore(access, bucket, _endpoint(access), path_style=True)


KIND = StoreKind(
    name="oci",
    title="Oracle Cloud Object Storage",
    schemes=("oci",),
    read=_read,
    write=_write,
    check_name=check_name,
    rclone=_rclone,
    obstore=_obstore,
    aliases=("oracle",),
    profile=Profile("oci"),
    needs=("account", "region"),
)
