"""Amazon S3, and whatever else speaks its API at an endpoint that is declared."""

from __future__ import annotations

from collections.abc import Mapping

from moorage.specs.stores import s3api
from moorage.specs.stores.addresses import joined, plain
from moorage.specs.stores.record import Access, StoreKind


def _rclone(access: Access) -> Mapping[str, str]:
    # rclone knows Amazon's endpoints by region; `Other` assumes nothing of a server.
    return s3api.rclone(access, "Other" if access.endpoint else "AWS")


KIND = StoreKind(
    name="s3",
    title="Amazon S3",
    schemes=("s3",),
    read=plain,
    write=lambda address: joined("s3", address.bucket, address.path),
    check_name=s3api.check_name,
    rclone=_rclone,
    obstore=s3api.obstore,
    aliases=("aws",),
    variables=s3api.VARIABLES,
)
