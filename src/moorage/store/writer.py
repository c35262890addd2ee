"""Group commit: one thread that makes batches durable in the order in which they were submitted.

A durable commit costs the same for one statement as for a hundred, so whatever is queued when the
thread is free goes into one transaction. What is promised:

- batches commit in the order of `submit`; a batch is all or nothing;
- a batch's future is resolved only after its commit, and futures resolve in that same order;
- a batch that the database refuses (`StatementRefused`) fails alone: the others of its group are
  committed, in order, each by itself;
- any other error breaks the writer for good. Every batch not yet acknowledged fails, and so does
  each later `submit`: one that may depend on a lost write must not succeed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import chain
from queue import Empty, SimpleQueue
from typing import NamedTuple

from moorage.store.base import Statement, StatementRefused, Store, StoreBroken

_LARGEST_GROUP = 10_000
"""Statements in one transaction: more would make the first of them wait too long. A single batch
is never divided, whatever its size."""

_log = logging.getLogger(__name__)


class _Entry(NamedTuple):
    batch: Sequence[Statement]
    future: Future[None]


class Writer:
    """Owns `store.write`. `submit` may be called from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._broken: StoreBroken | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def broken(self) -> StoreBroken | None:
        """Why nothing can be written any more; None while all is well."""
        return self._broken

    def submit(self, batch: Sequence[Statement]) -> Future[None]:
        """Queue a batch. The future is resolved on the writer's thread (`asyncio.wrap_future`
        brings it to a loop), with StatementRefused or StoreBroken where the batch did not
        happen."""
        entry = _Entry(batch, Future())
        entry.future.set_running_or_notify_cancel()
        with self._gate:
            refusal = self._broken or (
                StoreBroken("the store is closed") if self._closed else None
            )
            if refusal is None:
                self._queue.put(entry)
        if refusal is not None:
            entry.future.set_exception(refusal)
        return entry.future

    def close(self) -> None:
        """Commit what is queued, then end the thread. May be called twice; leaves the store
        open."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            group, last = self._take()
            if group:
                self._commit(group)
            if last:
                return

    def _take(self) -> tuple[list[_Entry], bool]:
        """Wait for one entry, then take what else is there; True at the end of the queue."""
        group: list[_Entry] = []
        statements = 0
        while statements < _LARGEST_GROUP:
            try:
                entry = self._queue.get(block=not group)
            except Empty:
                break
            if entry is None:
                return group, True
            group.append(entry)
            statements += len(entry.batch)
        return group, False

    def _commit(self, group: list[_Entry]) -> None:
        if self._broken is not None:
            self._fail(group, self._broken)
            return
        try:
            self._store.write(list(chain.from_iterable(entry.batch for entry in group)))
        except StatementRefused as error:
            if len(group) == 1:
                group[0].future.set_exception(error)
            else:
                for entry in group:
                    self._commit([entry])
        except Exception as error:
            # Not only StoreBroken: after an error that nobody foresaw it is just as unknown what
            # is on disk.
            self._break(error)
            self._fail(group, self._broken)
        else:
            for entry in group:
                entry.future.set_result(None)

    def _break(self, error: Exception) -> None:
        _log.critical("the store is broken, nothing is written any more: %s", error)
        broken = error
        if not isinstance(broken, StoreBroken):
            broken = StoreBroken(f"the store failed: {error}")
            broken.__cause__ = error
        with self._gate:
            self._broken = broken

    def _fail(self, group: list[_Entry], error: StoreBroken | None) -> None:
        for entry in group:
            entry.future.set_exception(error)
