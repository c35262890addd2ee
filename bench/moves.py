"""A copy by what moves objects in moorage, without its command: `moves.py SOURCE TARGET`. A file
of its own, so that no import of another benchmark is counted."""

from __future__ import annotations

import os
import sys

from moorage.data.objects.bucket import open_bucket
from moorage.data.transfer.engine import transfer
from moorage.data.transfer.places import Local, Place, Remote
from moorage.specs.stores.record import Access


def main(source: str, target: str) -> None:
    """Each is `s3://BUCKET/PATH` or a path; the store is that of the environment."""
    names = {"access_key_id": "AWS_ACCESS_KEY_ID", "secret_access_key": "AWS_SECRET_ACCESS_KEY"}
    access = Access(
        "s3",
        os.environ["S3_ENDPOINT_URL"],
        os.environ["AWS_REGION"],
        path_style=True,
        secrets={key: os.environ[name] for key, name in names.items()},
    )

    def place(text: str) -> Place:
        if not text.startswith("s3://"):
            return Local(text)
        bucket, _, path = text.removeprefix("s3://").partition("/")
        return Remote(open_bucket(access, bucket), path)

    transfer(place(source), place(target)).require_all()


if __name__ == "__main__":
    main(*sys.argv[1:])
