"""Nebius Object Storage: S3's API, at an address of each region."""

from __future__ import annotations

from collections.abc import Mapping

from moorage.specs.stores import s3api
from moorage.specs.stores.addresses import joined, plain
from moorage.specs.stores.record import Access, Engine, Profile, StoreKind

_USUAL = "eu-north1"


def _endpoint(access: Access) -> str:
    return f"https://storage.{access.region or _USUAL}.nebius.cloud"


def _rclone(access: Access) -> Mapping[str, str]:
    return {"region": _USUAL, **s3api.rclone(access, "Other", _endpoint(access))}


def _obstore(access: Access, bucket: str) -> tuple[Engine, Mapping[str, str]]:
    engine, config = s3api.obstore(access, bucket, _endpoint(access), path_style=True)
    return engine, {"region": _USUAL, **config}


KIND = StoreKind(
    name="nebius",
    title="Nebius Object Storage",
    schemes=("nebius",),
    read=plain,
    write=lambda address: joined("nebius", address.bucket, address.path),
    check_name=s3api.check_name,
    rclone=_rclone,
    obstore=_obstore,
    profile=Profile("nebius"),
)
