"""A worker for each host of each fleet."""

from __future__ import annotations

import asyncio
import logging

from moorage.engine.loop import Engine
from moorage.engine.reconcile.desk import Desk, MakeToken
from moorage.engine.reconcile.worker import Means, Worker

AT_ONCE = 16
"""Hosts that are checked, installed or removed at a time."""

_log = logging.getLogger(__name__)


class Reconciler:
    """Runs on the server that leads, on the loop of its engine."""

    def __init__(self, engine: Engine, means: Means, make_token: MakeToken) -> None:
        self._engine = engine
        self._means = means
        self._make_token = make_token
        self._workers: dict[str, tuple[Worker, asyncio.Future[None]]] = {}

    async def run(self) -> None:
        """Until cancelled; what was begun on hosts is left as it is, and gone on with by the next
        server."""
        stirred = self._engine.stirred
        try:
            while True:
                again = stirred.take()
                for name in self._engine.cluster.hosts_by_node:
                    if name not in self._workers:
                        self._workers[name] = self._begin(name)
                for worker, _ in list(self._workers.values()):
                    worker.wake(again)
                await stirred.wait()
        finally:
            running = [task for _, task in self._workers.values()]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _begin(self, name: str) -> tuple[Worker, asyncio.Future[None]]:
        worker = Worker(Desk(self._engine, name, self._make_token), self._means)
        task = asyncio.ensure_future(worker.run())
        task.add_done_callback(lambda ended: self._over(name, ended))
        return worker, task

    def _over(self, name: str, ended: asyncio.Future[None]) -> None:
        """The host is forgotten; where its name is taken again, another worker begins."""
        self._workers.pop(name, None)
        if ended.cancelled():
            return
        if (error := ended.exception()) is not None:
            _log.error("the work on %s failed", name, exc_info=error)
        elif name in self._engine.cluster.hosts_by_node:
            self._engine.stirred.stir(again=False)
