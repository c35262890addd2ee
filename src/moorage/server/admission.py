"""Who may come in: the tokens of the database, so that every server on it knows all of them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from moorage.engine.reading import Reading
from moorage.server import auth, tokens
from moorage.server.tokens import Kind, Principal
from moorage.store.base import Statement, Store

KEPT = 30.0
"""Seconds for which a token is believed without another look: so long may one that was revoked at
another server still be taken here."""
MOST = 4096
"""Tokens remembered, known and unknown ones together."""
MISSES = 50
"""Unknown tokens looked up in a second at most: whoever guesses may not keep the database busy."""
_THREADS = 2


class Admission:
    """Finds the owner of a token; called on one loop."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._clock = clock
        self._read = Reading("admission", _THREADS)
        self._seen: OrderedDict[str, tuple[float, Principal | None]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Principal | None]] = {}
        self._second = 0.0
        self._misses = 0
        """In this second."""
        self._unsure = 0
        """Under way, and not known from before."""

    async def authenticate(self, header: str | None) -> Principal:
        """The owner of `Authorization: Bearer ...`; Unauthorized without one, TooMany
        where too many unknown ones come."""
        digest = tokens.digest(auth.bearer(header))
        until, owner = self._seen.get(digest, (0.0, None))
        if until < self._clock():
            # Many ask at once with one token, as all nodes do after a restart: one look for all.
            asking = self._asking.get(digest) or self._ask(digest, known=owner is not None)
            owner = await asyncio.shield(asking)
        if owner is None:
            raise auth.unknown()
        return owner

    def _ask(self, digest: str, *, known: bool) -> asyncio.Task[Principal | None]:
        if not known:
            self._restrain()
            self._unsure += 1
        asking = asyncio.get_running_loop().create_task(self._look(digest, known))
        self._asking[digest] = asking
        asking.add_done_callback(partial(self._asked, digest, known))
        return asking

    async def _look(self, digest: str, known: bool) -> Principal | None:
        owner = await self._read(partial(self._find, digest))
        self._misses += owner is None and not known
        self._remember(digest, self._clock() + KEPT, owner)
        return owner

    def _asked(self, digest: str, known: bool, asking: asyncio.Task[Principal | None]) -> None:
        del self._asking[digest]
        self._unsure -= not known
        if not asking.cancelled():
            asking.exception()  # seen, also where all who asked have left

    def _find(self, digest: str) -> Principal | None:
        for row in self.store.read("token", {"hash": digest}):
            return Principal(row["kind"], row["subject"])
        return None

    def _restrain(self) -> None:
        """TooMany where there were too many misses; what is under way may be one."""
        now = self._clock()
        if now - self._second >= 1.0:
            self._second, self._misses = now, 0
        if self._misses + self._unsure >= MISSES:
            raise auth.TooMany("too many unknown tokens at once; try again")

    def _remember(self, digest: str, until: float, owner: Principal | None) -> None:
        self._seen[digest] = (until, owner)
        self._seen.move_to_end(digest)
        if len(self._seen) > MOST:
            self._seen.popitem(last=False)


def admitting(
    store: Store, holders: Sequence[tuple[str, Kind, str]], server: str, *, adopt: bool
) -> list[Statement]:
    """What lets the holders (token, kind, subject) of a server in, and nobody with an older token
    of the same server, kind and subject. `adopt`: rows of before servers had names are its."""
    known = store.read("tokens")
    own = (server, "") if adopt else (server,)
    batch = []
    for secret, kind, subject in holders:
        digest = tokens.digest(secret)
        mine = [
            row
            for row in known
            if (row["kind"], row["subject"]) == (kind, subject) and row["server"] in own
        ]
        hashes = {row["hash"] for row in mine}
        batch += [Statement("delete_token", {"hash": old}) for old in hashes - {digest}]
        if digest not in {row["hash"] for row in known}:
            fields = {"kind": kind, "subject": subject, "created_at": time.time()}
            batch.append(Statement("insert_token", {"hash": digest, "server": server, **fields}))
    return batch


def one_authority(
    store: Store, make: Callable[[], str], write: Callable[[list[Statement]], object]
) -> str:
    """The certificate authority that all servers on the database share. Where there is none,
    several may make one at once: what counts is what the database then has."""
    for row in store.read("meta", {"key": "authority"}):
        return str(row["value"])
    write([Statement("found_meta", {"key": "authority", "value": make()})])
    [row] = store.read("meta", {"key": "authority"})
    return str(row["value"])
