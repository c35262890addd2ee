"""VAST Data: S3's API, of a cluster of one's own, so that its endpoint must be declared."""

from __future__ import annotations

from collections.abc import Mapping

from moorage.specs.stores import s3api
from moorage.specs.stores.addresses import joined, plain
from moorage.specs.stores.record import Access, Engine, Profile, StoreKind


def _rclone(access: Access) -> Mapping[str, str]:
    options = s3api.rclone(access, "Other", s3api.required(access, "vastdata"))
    return {**options, "force_path_style": "true"}


def _obstore(access: Access, bucket: str) -> tuple[Engine, Mapping[str, str]]:
    return s3api.obstore(access, bucket, s3api.required(access, "vastdata"), path_style=True)


KIND = StoreKind(
    name="vastdata",
    title="VAST Data",
    schemes=("vastdata",),
    read=plain,
    write=lambda address: joined("vastdata", address.bucket, address.path),
    check_name=s3api.check_name,
    rclone=_rclone,
    obstore=_obstore,
    aliases=("vast",),
    profile=Profile("vastdata", "~/.vastdata/vastdata.credentials", "~/.vastdata/vastdata.config"),
    needs=("endpoint",),
)
