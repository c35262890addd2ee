"""What an argument of `storage cp` names: a path here, an address of a store, or a storage."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from moorage.cli.client import Client
from moorage.cli.render import printable, say
from moorage.cli.storerelay import reached
from moorage.cli.transport import segment
from moorage.data.objects.bucket import open_bucket
from moorage.data.transfer.places import Local, Place, Remote
from moorage.errors import InvalidInput, NotFound, Problem
from moorage.protocol.stores import StoragePage, StorageView
from moorage.specs.stores import registry
from moorage.specs.stores.addresses import BadAddress, clean
from moorage.specs.stores.record import Access, Address

if TYPE_CHECKING:
    from moorage.cli.progress import Bar
    from moorage.data.objects.bucket import Bucket
    from moorage.data.objects.silence import Tell as SayAway
    from moorage.data.transfer.counting import Tell

T = TypeVar("T")
_STORAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}(/.*)?", re.DOTALL)


def place_of(client: Client, text: str, option: str) -> Place:
    """The place that a text names. InvalidInput, NotFound, StoreProblem."""
    if "://" in text:
        return _address(client, text, option)
    path = os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111  # keeps a link at the end
    if not text:
        raise InvalidInput(Problem("it is empty", "write a path or s3://bucket/path", option))
    if text == "-":
        fix = "write ./- for a file of that name"
        raise InvalidInput(Problem("standard input and output are no place", fix, option))
    if text.startswith((".", "/", "~")) or not _STORAGE.fullmatch(text):
        return Local(path)
    name, _, rest = text.partition("/")
    storage = _storage(client, name)
    if storage is None:
        return Local(path)
    if os.path.lexists(path):
        reason = f"{text} is a file here, and the name of a storage"
        raise InvalidInput(Problem(reason, f"write ./{text} or {storage.uri}", option))
    try:
        return _remote(client, storage.store, Address(storage.bucket, clean(rest)))
    except BadAddress as error:
        raise InvalidInput(Problem(error.reason, error.fix, option)) from None


def _address(client: Client, text: str, option: str) -> Place:
    try:
        store, address = registry.locate(text)
    except BadAddress as error:
        raise InvalidInput(Problem(error.reason, error.fix, option)) from None
    if store == "file":
        return Local(f"/{address.bucket}/{address.path}".rstrip("/"))
    return _remote(client, store, address)


def _remote(client: Client, store: str, address: Address) -> Remote:
    access = access_of(client, store, address)
    shown = shown_as(store, address.bucket)
    return Remote(open_bucket(access, address.bucket, shown=shown, tell=late), address.path)


def late(said: str, _away: bool) -> None:
    """A store does not answer, or does again."""
    if said:
        say(printable(said))


def interruptible(work: Callable[[], T]) -> T:
    """Ask stores on a thread: obstore sees no Ctrl-C before it has an answer or gives up."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="asking", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def shown_as(store: str, bucket: str) -> str:
    """The address of a bucket in a declared store; empty: as its kind writes it."""
    return f"{store}://{bucket}" if store and registry.kind(store) is None else ""


def access_of(client: Client, store: str, address: Address) -> Access:
    """How to reach a bucket: as the server says, with what its address says."""
    path = f"/v1/stores/{segment(store or 'default')}/access"
    query = {"bucket": address.bucket}
    found = reached(client, client.transport.call("GET", path, Access, query=query))
    if address.region or address.account:
        from msgspec.structs import replace

        found = replace(
            found,
            region=address.region or found.region,
            account=address.account or found.account,
        )
    return found


def name_hint(client: Client, text: str) -> str:
    """What to say of a text that may be meant as the name of a storage, and is none; empty where
    it is certainly a path."""
    from moorage.errors import those_known

    if "://" in text or text.startswith((".", "/", "~")) or not _STORAGE.fullmatch(text):
        return ""
    name = text.partition("/")[0]
    known = client.transport.call("GET", "/v1/storages", StoragePage).storages
    told = those_known(name, [one.name for one in known], "storage ls")
    return f"there is no storage {name}; {told}"


def _storage(client: Client, name: str) -> StorageView | None:
    try:
        return client.transport.call("GET", f"/v1/storages/{segment(name)}", StorageView)
    except (NotFound, InvalidInput):
        return None


@contextmanager
def shown_progress(verb: str, buckets: Sequence[Bucket]) -> Iterator[Tell]:
    """Draws how far a transfer is, and that one of the buckets does not answer."""
    from moorage.cli.progress import Bar
    from moorage.data.transfer.places import Progress

    with Bar(verb) as bar:
        before = [bucket.silence.tell for bucket in buckets]
        for bucket in buckets if bar.drawn else ():
            bucket.silence.tell = _noted(bar)

        def tell(now: Progress) -> None:
            bar.verb = f"{verb} {now.files} of {now.files_total} files,"
            bar.show(now.bytes, now.bytes_total)

        try:
            yield tell
        finally:
            for bucket, one in zip(buckets, before, strict=True):
                bucket.silence.tell = one


def _noted(bar: Bar) -> SayAway:
    def note(said: str, away: bool) -> None:
        bar.note(said if away else "")

    return note
