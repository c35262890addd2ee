"""Who may come in: the tokens of the database, so that every server on it knows all of them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from moorage.errors import Unavailable
from moorage.server import auth, tokens
from moorage.server.tokens import Kind, Principal
from moorage.store.base import Statement, Store

KEPT = 30.0
"""Seconds for which a token is believed without another look: so long may one that was revoked at
another server still be taken here."""
MOST = 4096
"""Tokens remembered, known and unknown ones together."""
LOOKUPS = 50
"""Tokens looked up in a second at most: whoever guesses may not keep the database busy."""


class Admission:
    """Finds the owner of a token; called on one loop."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, Principal | None]] = OrderedDict()
        self._second = 0.0
        self._lookups = 0

    async def authenticate(self, header: str | None) -> Principal:
        """The owner of `Authorization: Bearer ...`; Unauthorized without one, Unavailable where
        too many unknown ones come."""
        digest = tokens.digest(auth.bearer(header))
        now = self._clock()
        until, owner = self._seen.get(digest, (0.0, None))
        if until < now:
            self._count(now)
            owner = await asyncio.to_thread(self._find, digest)
            self._remember(digest, now + KEPT, owner)
        if owner is None:
            raise auth.unknown()
        return owner

    def _find(self, digest: str) -> Principal | None:
        for row in self.store.read("token", {"hash": digest}):
            return Principal(row["kind"], row["subject"])
        return None

    def _count(self, now: float) -> None:
        if now - self._second >= 1.0:
            self._second, self._lookups = now, 0
        self._lookups += 1
        if self._lookups > LOOKUPS:
            raise Unavailable("too many unknown tokens at once; try again")

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
