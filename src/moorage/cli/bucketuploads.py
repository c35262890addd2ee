"""The local sources of bucket mounts: compared with the buckets, and sent straight into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moorage.cli.client import Client
from moorage.cli.places import access_of, interruptible, late, shown_as
from moorage.data.objects.bucket import Bucket as Opened
from moorage.data.objects.bucket import open_bucket
from moorage.data.objects.errors import StoreProblem
from moorage.data.transfer.sources import Sending, compare_sources, send
from moorage.errors import InvalidInput, Problem
from moorage.protocol.stores import DataPlan, StorageRequest, StorageView
from moorage.specs.mounts import Bucket
from moorage.specs.stores.record import Address

if TYPE_CHECKING:
    from moorage.cli.prepare import Prepared
    from moorage.data.transfer.counting import Tell

PATIENCE = 10.0
"""Seconds for which a store that does not answer is asked again before anything is sent."""


@dataclass(frozen=True, slots=True)
class BucketContent:
    """What one mount uploads into its bucket."""

    mount: Bucket
    shown: str
    """Address of the place in the bucket."""
    sending: Sending
    bucket: Opened

    @property
    def source(self) -> str:
        """As it was written."""
        return ", ".join(self.mount.sources)

    @property
    def files(self) -> int:
        """How many there are, sent or not."""
        return self.sending.files + self.sending.unchanged


def gather_buckets(
    client: Client, prepared: Prepared, planned: Sequence[DataPlan] = ()
) -> tuple[list[BucketContent], list[Problem]]:
    """What the buckets lack, and what stands against sending it; changes nothing. `planned`: where
    a plan says they are."""
    stores = {data.target: data.store for data in planned}
    contents: list[BucketContent] = []
    problems: list[Problem] = []
    seen = set()
    for number, mount in enumerate(prepared.spec.mounts):
        if not isinstance(mount, Bucket) or not mount.sources:
            continue
        place = (mount.store, mount.bucket, mount.path, *mount.sources)
        if place in seen:
            continue  # the same files, used at another target as well
        seen.add(place)
        try:
            store = mount.store or stores.get(mount.target, "")
            contents.append(_content(client, prepared, mount, store))
        except StoreProblem as error:
            problems.append(prepared.problem(number, f"{error.place}: {error.said}", error.fix))
            continue
        except InvalidInput as error:
            found = [one._replace(message=f"{one.file}: {one.message}") for one in error.problems]
            problems += [prepared.problem(number, one.message, one.fix) for one in found]
            continue
        problems += [
            prepared.problem(number, f"{one.file}: {one.message}", one.fix)
            for one in contents[-1].sending.problems
        ]
    return contents, problems


def _content(client: Client, prepared: Prepared, mount: Bucket, store: str) -> BucketContent:
    access = access_of(client, store, _address(mount))
    shown = shown_as(store, mount.bucket)
    bucket = open_bucket(access, mount.bucket, patience=PATIENCE, shown=shown, tell=late)
    sending = interruptible(lambda: compare_sources(mount, prepared.base, bucket))
    return BucketContent(mount, bucket.at(mount.path), sending, bucket)


def _address(mount: Bucket) -> Address:
    return Address(mount.bucket, mount.path, mount.region, mount.account)


def send_buckets(
    client: Client, contents: Sequence[BucketContent], tell: Tell | None = None
) -> None:
    """Make the buckets that are not there yet, and send what they lack. MoorageError; what was
    sent until then is not sent again."""
    for content in contents:
        if content.sending.new_bucket:
            mount = content.mount
            body = StorageRequest(mount.bucket, mount.store, persistent=mount.persistent)
            client.transport.call("POST", "/v1/storages", StorageView, body=body, again=True)
    send([content.sending for content in contents], tell)
