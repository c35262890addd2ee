"""The store that comes with a server: SeaweedFS on its own machine, reached through the server."""

from __future__ import annotations

from collections.abc import Mapping

from moorage.specs.stores import s3api
from moorage.specs.stores.addresses import joined, plain
from moorage.specs.stores.record import Access, Engine, StoreKind


def _rclone(access: Access) -> Mapping[str, str]:
    return {**s3api.rclone(access, "SeaweedFS"), "force_path_style": "true"}


def _obstore(access: Access, bucket: str) -> tuple[Engine, Mapping[str, str]]:
    return s3api.obstore(access, bucket, path_style=True)


KIND = StoreKind(
    name="moorage",
    title="moorage's own store",
    schemes=("moorage",),
    read=plain,
    write=lambda address: joined("moorage", address.bucket, address.path),
    check_name=s3api.check_name,
    rclone=_rclone,
    obstore=_obstore,
)
