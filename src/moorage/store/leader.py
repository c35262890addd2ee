"""Who of several servers on one database leads: the interface, whatever database keeps the lock.

One store is one try to lead. Its writer's session holds the lock, so whoever loses the one has
lost the other, and a store that lost its session never writes again: close it, open another and
queue anew. Nothing of an old term can thus reach the database in a later one.

    store = open_postgres(url)
    leadership = store.leadership(Identity(server_id, "http://10.0.0.1:7321", version))
    leadership.announce()                   # every few seconds, leader or not
    leadership.acquire()                    # in a thread; meanwhile evict_if_stale() in another
    writer.submit([*of_the_epoch, leadership.begin(epoch)])
    writer.submit([leadership.beat()])      # once a second, from the moment of `acquire`
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from moorage.errors import Unavailable
from moorage.store.base import Statement

LEASE = 10.0
"""Seconds without a beat after which the others take a leader for frozen."""
SILENT = 15.0
"""Seconds after which a server that announced nothing does not count as there."""


class Interrupted(Unavailable):
    """`interrupt` ended the wait for the lock; the store is to be closed."""


class Identity(NamedTuple):
    """What a server says of itself."""

    id: str
    """Random, kept in its home: the same after a restart."""
    url: str
    version: str
    lease: float = 0.0
    """Seconds without a beat after which it may be evicted when it leads; 0: as the others
    think."""


class Server(NamedTuple):
    """A row of `servers`."""

    id: str
    url: str
    version: str
    epoch: int
    """Of its latest term; 0 before its first. The highest of all is the leader's."""
    age: float
    """Seconds since it announced itself or beat, by the database's own clock."""

    @property
    def there(self) -> bool:
        """Whether it was heard of lately."""
        return self.age < SILENT


class Leadership(Protocol):
    """One server's part in the choice of a leader.

    `acquire` blocks its thread; every other method is short and may be called from any thread at
    any time, also while `acquire` waits. All raise StoreBroken where the database is gone.
    """

    def acquire(self) -> None:
        """Wait until this server leads; on return `Store.write` works, until the session is lost.

        Interrupted after `interrupt`, also one that came before. StoreBroken when the session is
        lost while it waits. Call it once.
        """

    def interrupt(self) -> None:
        """End the wait of `acquire` at once. Does nothing to a server that leads already."""

    def announce(self) -> None:
        """Write or refresh this server's row in `servers`: its address, and that it lives."""

    def withdraw(self) -> None:
        """Delete this server's row, at its orderly end."""

    def begin(self, epoch: int) -> Statement:
        """Makes this server's row the leader's. Goes into the batch that raises `meta.epoch`."""

    def beat(self) -> Statement:
        """A sign of life. It goes through the leader's own writer, so that a leader which cannot
        commit does not look alive."""

    def servers(self) -> list[Server]:
        """Every server of `servers`, the latest leader first."""

    def evict_if_stale(self, lease: float = LEASE) -> bool:
        """For those who wait, every `lease / 4` seconds or so: end the session of a leader whose
        beat has not changed for `lease` seconds (its own, where it told) of this process's
        monotonic clock; whether that was done. The frozen one cannot commit any more, and the
        lock goes to the next in line."""
