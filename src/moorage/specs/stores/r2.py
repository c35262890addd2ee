"""Cloudflare R2: S3's API, at an address of the account's own."""

from __future__ import annotations

from collections.abc import Mapping

from moorage.specs.stores import s3api
from moorage.specs.stores.addresses import joined, plain
from moorage.specs.stores.record import Access, Engine, Profile, StoreKind


def _endpoint(access: Access) -> str:
    if access.endpoint or not access.account:
        return s3api.required(access, "r2")
    return f"https://{access.account}.r2.cloudflarestorage.com"


def _rclone(access: Access) -> Mapping[str, str]:
    return {"region": "auto", **s3api.rclone(access, "Cloudflare", _endpoint(access))}


def _obstore(access: Access, bucket: str) -> tuple[Engine, Mapping[str, str]]:
    engine, config = s3api.obstore(access, bucket, _endpoint(access), path_style=True)
    return engine, {"region": "auto", **config}


KIND = StoreKind(
    name="r2",
    title="Cloudflare R2",
    schemes=("r2",),
    read=plain,
    write=lambda address: joined("r2", address.bucket, address.path),
    check_name=s3api.check_name,
    rclone=_rclone,
    obstore=_obstore,
    aliases=("cloudflare",),
    profile=Profile("r2", "~/.cloudflare/r2.credentials", "", account="~/.cloudflare/accountid"),
    needs=("account",),
)
