"""Leadership by an advisory lock of PostgreSQL, held by the session that writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from moorage.store.base import Statement
from moorage.store.leader import LEASE, Identity, Server

if TYPE_CHECKING:
    from moorage.store.postgres_store import PostgresStore

_FORGET_AFTER = 7 * 86_400.0
_log = logging.getLogger(__name__)


class _Pulse(NamedTuple):
    """What changes while a leader lives."""

    pid: int
    epoch: int
    beat: int
    lease: float


class PostgresLeadership:
    """Implements `store.leader.Leadership`; made by `PostgresStore.leadership`."""

    def __init__(
        self,
        store: PostgresStore,
        identity: Identity,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._identity = identity
        self._clock = clock
        self._gate = Lock()
        self._seen: _Pulse | None = None
        self._since = 0.0

    def acquire(self) -> None:
        """See `Leadership.acquire`."""
        self._store.lead()

    def interrupt(self) -> None:
        """See `Leadership.interrupt`."""
        self._store.interrupt()

    def announce(self) -> None:
        """See `Leadership.announce`. Also forgets servers that were silent for a week."""
        self._store.write_aside(
            [
                Statement("announce_server", self._identity._asdict()),
                Statement("forget_servers", {"age": _FORGET_AFTER}),
            ]
        )

    def withdraw(self) -> None:
        """See `Leadership.withdraw`."""
        self._store.write_aside([Statement("withdraw_server", {"id": self._identity.id})])

    def begin(self, epoch: int) -> Statement:
        """See `Leadership.begin`."""
        return Statement("lead_server", {**self._identity._asdict(), "epoch": epoch})

    def beat(self) -> Statement:
        """See `Leadership.beat`."""
        return Statement("beat_server", {"id": self._identity.id})

    def servers(self) -> list[Server]:
        """See `Leadership.servers`."""
        return [Server(**row) for row in self._store.read("servers")]

    def evict_if_stale(self, lease: float = LEASE) -> bool:
        """See `Leadership.evict_if_stale`."""
        with self._gate:
            found = self._store.read("pulse", self._store.lock)
            pulse = _Pulse(**found[0]) if found else None
            now = self._clock()
            if pulse is None or pulse != self._seen:
                self._seen, self._since = pulse, now
                return False
            lease = pulse.lease or lease
            if now - self._since < lease:
                return False
            self._since = now
            _log.warning(
                "the leader of epoch %d gave no sign of life for %.0f s: its session %d is ended",
                pulse.epoch,
                lease,
                pulse.pid,
            )
            ended = self._store.read("evict_session", {**self._store.lock, **pulse._asdict()})
            return any(row["done"] for row in ended)
