"""CoreWeave AI Object Storage: S3's API, with the bucket in the host name only."""

from __future__ import annotations

from collections.abc import Mapping

from moorage.specs.stores import s3api
from moorage.specs.stores.addresses import joined, plain
from moorage.specs.stores.record import Access, Engine, Profile, StoreKind

_ENDPOINT = "https://cwobject.com"
"""From outside; inside CoreWeave a store with their own endpoint is quicker."""


def _rclone(access: Access) -> Mapping[str, str]:
    return {**s3api.rclone(access, "Other", _ENDPOINT), "force_path_style": "false"}


def _obstore(access: Access, bucket: str) -> tuple[Engine, Mapping[str, str]]:
    return s3api.obstore(access, bucket, _ENDPOINT)


def check_name(name: str) -> str:
    """Amazon's rules; and no dots, which no certificate covers in a host name."""
    return s3api.check_name(name) or ("it may not have dots" if "." in name else "")


KIND = StoreKind(
    name="coreweave",
    title="CoreWeave AI Object Storage",
    schemes=("cw",),
    read=plain,
    write=lambda address: joined("cw", address.bucket, address.path),
    check_name=check_name,
    rclone=_rclone,
    obstore=_obstore,
    aliases=("cw",),
    profile=Profile("cw", "~/.coreweave/cw.credentials", "~/.coreweave/cw.config"),
)
