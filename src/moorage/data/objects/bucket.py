"""One bucket: list, head, get, put, delete, copy; every error a `StoreProblem` with its place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from moorage.data.objects.errors import StoreProblem, problem_of
from moorage.data.objects.keys import Keys
from moorage.data.objects.retrying import retries
from moorage.data.objects.sending import Sending
from moorage.data.objects.silence import LONGEST, LONGEST_SENDING, Silence, Tell
from moorage.specs.stores import registry
from moorage.specs.stores.record import Access, Address, Engine

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from moorage.data.objects.unfinished import Uploads

PIECE = 256 * 1024
"""Bytes handed over at once while reading: small enough to stay in the processor's cache."""
PART = 8 * 1024 * 1024
"""Of multipart uploads; grows for objects that would need more parts than a store takes."""
_MOST_PARTS = 10_000
_MEMORY = 128 * 1024 * 1024
"""Bytes that one upload in parts may hold."""
_PARALLEL = 8
"""Parts of one object on the way at once."""
_PAGE = 1000
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SECRETS = ("access_key_id", "secret_access_key", "session_token")


class Found(NamedTuple):
    """An object, as a listing says."""

    key: str
    size: int
    modified: float
    """Unix time, by the store's clock."""
    etag: str = ""
    """As the store says it, mostly in quotes."""


class Bucket:
    """A bucket of a store. Thread-safe. `shown` is its address for people."""

    def __init__(
        self,
        reads: ObjectStore,
        writes: Callable[[], ObjectStore],
        shown: str,
        access: Access,
        name: str,
        lacking: str = "",
        silence: Silence | None = None,
    ) -> None:
        """`writes` makes the one that is written to when it is needed, as each loads the
        machine's certificates. `lacking`: why requests are not signed, where they were meant to
        be."""
        self._reads = reads
        self._make_writes = writes
        self._made: ObjectStore | None = None
        self._making = threading.Lock()
        self.sending = Sending(lambda: self.uploads)
        """What it sends in parts."""
        self.shown = shown
        self.access = access
        self.name = name
        self._lacking = lacking
        self.silence = silence or Silence()
        """Tells where the store does not answer."""

    @property
    def _writes(self) -> ObjectStore:
        if self._made is None:
            with self._making:
                self._made = self._made or self._make_writes()
        return self._made

    def at(self, key: str) -> str:
        """The address of an object, for people."""
        return f"{self.shown.rstrip('/')}/{key}" if key else self.shown

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[list[Found]]:
        """Everything below `prefix`, in pages; the object of that very key is not below it."""
        import obstore

        with self._problems(prefix, whole_bucket=True):
            pages = obstore.list(
                self._reads, prefix or None, offset=after or None, chunk_size=_PAGE
            )
            for page in pages:
                with self.silence.resting():
                    yield [_found(one) for one in page]

    def check(self) -> None:
        """StoreProblem where the bucket is not there or may not be listed."""
        next(self.list(), None)

    def head(self, key: str) -> Found:
        """One object."""
        import obstore

        with self._problems(key):
            return _found(obstore.head(self._reads, key))

    def get(self, key: str) -> bytes:
        """All of an object, for small ones."""
        import obstore

        with self._problems(key):
            return bytes(obstore.get(self._reads, key).bytes())

    def buffer(self, key: str, etag: str = "") -> tuple[memoryview, Found]:
        """A small object without a copy, if it still has that etag."""
        import obstore

        options: Any = {"if_match": etag} if etag else {}
        with self._problems(key):
            answer = obstore.get(self._reads, key, options=options)
            return memoryview(answer.bytes()), _found(answer.meta)

    def pieces(self, key: str, start: int, end: int, etag: str = "") -> Iterator[bytes]:
        """The bytes from `start` up to `end`, piece by piece, if it still has that etag."""
        import obstore

        options: Any = {"range": (start, end)}
        if etag:
            options["if_match"] = etag
        with self._problems(key):
            answer = obstore.get(self._reads, key, options=options)
            for piece in answer.stream(min_chunk_size=PIECE):
                with self.silence.resting():
                    yield piece

    def put(self, key: str, content: bytes | memoryview) -> str:
        """Store bytes in one request; the etag."""
        import obstore

        with self._problems(key, sending=True):
            done = obstore.put(self._writes, key, content, use_multipart=False)
        return done["e_tag"] or ""

    def put_if(self, key: str, content: bytes | memoryview, etag: str | None) -> str:
        """Like `put`, but only where the object still has that etag, or, with None, where there is
        no such object; else a StoreProblem with the reason `changed`. Stores that know no
        conditions say `not-possible`."""
        import obstore

        mode: Any = "create" if etag is None else {"e_tag": etag}
        with self._problems(key, sending=True):
            try:
                return obstore.put(self._writes, key, content, mode=mode)["e_tag"] or ""
            except NotImplementedError:
                said = "the store cannot write conditionally"
                raise StoreProblem("not-possible", self.at(key), said) from None

    def put_file(
        self, key: str, path: str, size: int, arrived: Callable[[int], None] = lambda _: None
    ) -> str:
        """Store the first `size` bytes of a file in parts; the etag. `arrived` is told of bytes
        that the store has, soon after it does. OSError of the file."""
        from moorage.data.objects.sending import pieces

        part = part_size(size)
        with open(path, "rb", 0) as file:
            content = pieces(file, size, part * parts_at_once(part), arrived)
            return self.put_stream(key, content, size)

    def put_stream(self, key: str, content: Iterator[bytes], size: int) -> str:
        """Store the pieces that an iterator gives, in parts; the etag. At most 128 MiB are held
        (or two parts, of objects beyond 600 GB)."""
        import obstore

        part = part_size(size)
        with self.sending.upload(key), self._problems(key, sending=True, parts=True):
            done = obstore.put(
                self._writes,
                key,
                content,
                use_multipart=True,
                chunk_size=part,
                max_concurrency=parts_at_once(part),
            )
        return done["e_tag"] or ""

    @property
    def uploads(self) -> Uploads:
        """Those in parts that nobody finished."""
        from moorage.data.objects.unfinished import Uploads

        return Uploads(self._writes, self.access, self.name, self.shown)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there already are no error."""
        import obstore

        for begin in range(0, len(keys), _PAGE):
            some = list(keys[begin : begin + _PAGE])
            try:
                with self._problems(some[0] if len(some) == 1 else ""):
                    obstore.delete(self._writes, some)
            except StoreProblem as error:
                if error.reason != "no-object" or len(some) == 1:
                    if error.reason == "no-object":
                        continue
                    raise
                for key in some:  # where one that is gone ends the whole request
                    self.delete([key])

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store, without its bytes coming here."""
        import obstore

        with self._problems(source, sending=True, slow=True):
            obstore.copy(self._writes, source, target)

    @contextmanager
    def _problems(self, key: str, *, whole_bucket: bool = False, **asked: bool) -> Iterator[None]:
        """`asked`: see `Silence.asking`."""
        try:
            with self.silence.asking(**asked):
                yield
        except StoreProblem:
            raise
        except GeneratorExit:
            raise
        except _engine_errors() as error:
            problem = problem_of(error, self.at(key), whole_bucket=whole_bucket)
            if self._lacking and problem.reason == "denied":
                problem = StoreProblem("denied", problem.place, f"{problem.said}; {self._lacking}")
            raise problem from None


def part_size(size: int) -> int:
    """Bytes of a part of an object of that size, so that it has at most 10,000."""
    step = 1024 * 1024
    needed = -(-size // _MOST_PARTS)
    return max(PART, -(-needed // step) * step)


def parts_at_once(part: int) -> int:
    """How many parts of that size are on the way."""
    return max(2, min(_PARALLEL, _MEMORY // part))


def open_bucket(
    access: Access,
    name: str,
    *,
    patience: float = 20.0,
    shown: str = "",
    tell: Tell | None = None,
    renew: Callable[[], Access] | None = None,
) -> Bucket:
    """A bucket of the store. `patience`: seconds for which a store that does not answer, or
    answers 5xx, is asked again; `shown`: its address for people, where the store has a name of
    its own; `tell` is told where the store's first answer is late; `renew` gives other keys where
    those of S3 end, on any thread. StoreProblem where this kind cannot be worked with."""
    kind = registry.kind(access.kind)
    if kind is None:
        raise StoreProblem("not-possible", access.kind, "there is no such kind of store")
    shown = shown or _shown(access, name)
    _require_engine(shown)
    declared, lacking = access, ""
    if not (access.secrets or access.anonymous):
        from moorage.data.objects import chains

        access = chains.completed(access)
        lacking = chains.missing(access) if access.anonymous else ""
    try:
        engine, config = kind.obstore(access, name)
    except ValueError as error:
        raise StoreProblem("not-possible", shown, str(error)) from None
    silence = Silence(tell, shown, patience)
    if engine == "http":
        from moorage.data.objects.hub import open_repository

        return open_repository(access, name, config, patience, shown, silence)
    make = partial(_store, engine, config, Keys(declared, access, renew), patience)
    try:
        reads = make(writing=False)
    except _engine_errors() as error:
        raise problem_of(error, shown) from None
    return Bucket(reads, partial(make, writing=True), shown, access, name, lacking, silence)


def _store(
    engine: Engine,
    config: Mapping[str, str],
    keys: Keys,
    patience: float,
    *,
    writing: bool,
) -> ObjectStore:
    from obstore import store as stores

    if engine == "local":
        return stores.LocalStore(config["prefix"])
    settings: Any = dict(config)  # obstore declares one type a store, of which none is a str
    client: Any = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(days=1)}
    client |= (
        {"timeout": timedelta(seconds=LONGEST_SENDING)}
        if writing
        else {"read_timeout": timedelta(seconds=LONGEST)}
    )
    settings.pop("allow_http", None)
    client["allow_http"] = True  # https addresses stay https; who declared http means it
    retry = retries(patience)
    if engine == "s3":
        settings |= _s3_settings(settings)
        signed = [settings.pop(name, None) for name in _SECRETS]
        return stores.S3Store(
            config=settings,
            client_options=client,
            retry_config=retry,
            credential_provider=keys if signed[0] else None,
        )
    if engine == "gcs":
        return stores.GCSStore(config=settings, client_options=client, retry_config=retry)
    return stores.AzureStore(config=settings, client_options=client, retry_config=retry)


def _s3_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Where TLS or the loopback protects the content, its SHA-256 is left out of the signature: an
    upload of 1 GiB then took 0.2 s of user time here, and 0.9 s with it."""
    endpoint = urlsplit(str(settings.get("endpoint", "")))
    private = endpoint.scheme != "http" or endpoint.hostname in _LOOPBACK
    return {"unsigned_payload": "true"} if private else {}


def _shown(access: Access, name: str) -> str:
    kind = registry.kind(access.kind)
    assert kind is not None
    try:
        return kind.write(Address(name, region=access.region, account=access.account))
    except ValueError:
        return f"{access.kind}://{name}"


def _require_engine(shown: str) -> None:
    from importlib.util import find_spec

    if find_spec("obstore") is None:
        raise StoreProblem(
            "not-possible", shown, "the package obstore is not installed",
            "pip install 'moorage[storage]'",
        )  # fmt: skip


def _engine_errors() -> tuple[type[Exception], ...]:
    from obstore import exceptions

    return (exceptions.BaseError, OSError, ValueError)


def _found(meta: Any) -> Found:
    return Found(
        meta["path"], meta["size"], meta["last_modified"].timestamp(), meta["e_tag"] or ""
    )
