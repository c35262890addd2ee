"""The engine: the only place where things change.

Calls come in on one asyncio loop; each is decided at once, by a function of `core.reactor`, and
its effects are carried out in order. What a decision writes goes to the store as one batch, and
nothing it wants to say leaves the process before that batch is durable.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TypeVar

from moorage.core import reactor
from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Inquire, Send, Stir, Tidy, Timer, Wake
from moorage.decoding import from_json
from moorage.engine.batches import Batch, call_all, refuse, retrieve
from moorage.engine.feed import Feed
from moorage.engine.inquiries import Inquiries
from moorage.engine.leases import LEASE, Leases
from moorage.engine.links import Link, Links
from moorage.engine.reading import Reading
from moorage.engine.stirred import Stirred
from moorage.engine.timers import Timers
from moorage.engine.wanted import Wanted
from moorage.errors import MoorageError
from moorage.ids import NodeId, RunId
from moorage.protocol import VERSION
from moorage.protocol.agent import Beaten, Hello, Report, Welcome
from moorage.protocol.api import RunRef, RunRequest
from moorage.protocol.health import Health
from moorage.store.base import Store, StoreBroken
from moorage.store.history import History
from moorage.store.writer import Writer

_log = logging.getLogger(__name__)
T = TypeVar("T")
VIEWS = 4
REQUESTS = 2
"""Threads that read for users, and those that look for an earlier answer to a request."""

Check = Callable[[Sequence[RunRequest]], Awaitable[None]]
"""Raises InvalidInput where a request names content that the server does not have."""


class Engine:
    """Decides and carries out. All methods are called on the loop that `run` was started on."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        cluster: Cluster,
        *,
        epoch: int,
        version: str,
        names: Iterator[str],
        clock: Callable[[], float] = time.time,
        lease: float = LEASE,
    ) -> None:
        self.cluster = cluster
        """For reading only."""
        self.history = History(store)
        self.links = Links()
        self.epoch = epoch
        self.version = version
        self.failure: MoorageError | None = None
        """Why the engine stopped; None while it works."""
        self.servers: list[str] = []
        """Addresses of all servers, for agents; empty where there is no other one."""
        self.shared = False
        """Another server may take over while this one does not know it."""
        self.stopped = asyncio.Event()
        """Set when it failed: the process must end, and a new one begin from the store."""
        self.store = store
        """For reading, and for the upkeep of its file."""
        self.writer = writer
        """For what is nobody's decision: old events, content."""
        self.tidying = asyncio.Lock()
        """Held by whoever removes what is old."""
        self._names = names
        self.clock = clock
        self._timers = Timers(clock, self._ring)
        self.leases = Leases(lease, self._quiet, self._lost)
        self._inquiries = Inquiries(self.links, self._answered)
        self._batches: deque[Batch] = deque()
        self._draining = False
        self._awake = False
        self._accepting = 0
        """Submissions of which some runs are in the cluster, and none in the store."""
        self._submitting: dict[tuple[str, str], asyncio.Task[list[RunRef]]] = {}
        self._loop = asyncio.get_running_loop()
        self.view = Reading("views", VIEWS)
        """Calls what reads the store for a user."""
        self._requests = Reading("requests", REQUESTS)
        self.stirred = Stirred()
        """Rung when hosts of fleets may be other than they should be."""
        self.untidy = Stirred()
        """Rung when there may be buckets that should go."""
        self.feed = Feed.of(self.store, self.view)

    # What users ask for

    async def submit(
        self, requests: Sequence[RunRequest], user: str, request_id: str, check: Check
    ) -> list[RunRef]:
        """Accept all or none; returns when that is durable. A repeated `request_id` gets the first
        answer, also while the first is under way, after a restart, and when its runs are deleted.

        InvalidInput or Conflict where it is refused; StoreBroken where nobody can know.
        """
        key = (user, request_id)
        task = self._submitting.get(key)
        if task is None:
            task = self._loop.create_task(self._submit(requests, user, request_id, check))
            self._submitting[key] = task
            task.add_done_callback(partial(self._submitted, key))
        return await asyncio.shield(task)

    def _submitted(self, key: tuple[str, str], task: asyncio.Task[list[RunRef]]) -> None:
        del self._submitting[key]
        if not task.cancelled():
            task.exception()  # seen, also where every client left before its answer

    async def _submit(
        self, requests: Sequence[RunRequest], user: str, request_id: str, check: Check
    ) -> list[RunRef]:
        known = partial(self.store.read, "request", {"user": user, "id": request_id})
        for row in await self._requests(known):
            return from_json(row["runs"], list[RunRef])
        await check(requests)
        parts = reactor.submission(
            self.cluster,
            requests,
            user,
            self.clock(),
            request_id=request_id,
            names=self._names,
        )
        return await self._accept(parts)

    async def _accept(self, parts: Iterator[reactor.Submitted]) -> list[RunRef]:
        """Others are served between two parts, but nothing is scheduled once runs are there that
        were not handed to the store: all parts are one batch."""
        whole = Wanted(self.links.send, self._stir)
        runs, held = list[RunRef](), False
        try:
            while part := self._decide(partial(next, parts, None)):
                runs += part.runs
                whole.add(part.effects, self.clock())
                if part.runs and not held:
                    held = True
                    self._accepting += 1
                await asyncio.sleep(0)
        finally:
            self._accepting -= held
        await self._hand_over(whole)
        return runs

    async def cancel(self, run: RunId, abort: bool) -> None:
        """Stop a live run; returns when the wish is durable. NotFound if it is not live."""
        now = self.clock()
        await self._carry_out(
            self._decide(partial(reactor.on_cancel, self.cluster, run, abort, now))
        )

    async def delete(self, run: RunId) -> None:
        """Forget a run that ended, with its logs. Conflict while it is live."""
        logs: dict[NodeId, list[str]] = {}
        attempts = partial(self.store.read, "attempts_of_run", {"run_id": run})
        # Of a live one there may be more before it is refused; of one that ended, never.
        for row in [] if run in self.cluster.runs else await self.view(attempts):
            key = f"{row['job_id']}.{row['attempt']}.{row['rank']}"
            logs.setdefault(NodeId(row["node_id"]), []).append(key)
        await self._carry_out(self._decide(partial(reactor.on_delete, self.cluster, run, logs)))

    async def expire(self, runs: Sequence[RunId], logs: Mapping[NodeId, Sequence[str]]) -> None:
        """Forget runs that ended long ago; `logs` are the keys of their attempts by node."""
        await self._carry_out(self._decide(partial(reactor.on_expire, self.cluster, runs, logs)))

    async def expire_jobs(
        self, run: RunId, before: int, logs: Mapping[NodeId, Sequence[str]]
    ) -> None:
        """Forget the ended jobs of a schedule that have an index below `before`."""
        decision = partial(reactor.on_expire_jobs, self.cluster, run, before, logs)
        await self._carry_out(self._decide(decision))

    # What agents say

    async def hello(self, hello: Hello, connection: int) -> Link:
        """An agent connected. Its link opens, with `Welcome` and the difference between what it
        holds and what it should hold, once that is durable. `connection`: what `links.accept`
        gave. NotConnected where the agent has greeted on a newer one."""
        self.links.greets(hello.node, connection)
        known = self.cluster.node_names.get(hello.node)
        away = None if known is None else self.leases.away(known)
        decision = partial(reactor.on_hello, self.cluster, hello, self.clock(), away)
        effects = self._decide(decision)
        node = self.cluster.node_names[hello.node]
        self.leases.greeted(node)
        link = Link(node, hello.node)
        self.links.attach(link)
        await self._carry_out(effects, first=partial(self._welcome, link))
        return link

    def _welcome(self, link: Link) -> None:
        self.links.open(link)
        link.send(self._greeting(link.node))

    def _greeting(self, node: NodeId) -> Welcome:
        lease = self.leases.lease
        return Welcome(VERSION, self.version, self.epoch, node, self.servers, lease)

    def name_servers(self, servers: list[str]) -> None:
        """The addresses of all servers: agents try the others when this one is gone. Those that
        are connected are greeted again."""
        self.servers = servers
        for node in self.links.connected():
            self.links.send(node, self._greeting(node))

    def report(self, link: Link, report: Report) -> None:
        """An agent's claims changed. What an older connection says is dropped: the agent repeats
        it on the newer one."""
        if self.links.is_present(link):
            now = self.clock()
            self._carry_out(
                self._decide(partial(reactor.on_report, self.cluster, link.node, report, now))
            )

    def beat(self, link: Link, number: int) -> None:
        """An agent lives. It is answered once a commit has shown that this server leads: one that
        was replaced must not keep alive what its successor gives up."""
        if self.links.is_present(link):
            self.leases.heard(link.node)
            wanted = Wanted(self.links.send, self._stir)
            wanted.add([Send(link.node, Beaten(number))], self.clock())
            self._hand_over(wanted, proven=True)

    def _quiet(self, node: NodeId, silent: float) -> None:
        """Whatever its connection seems to be: nothing comes any more."""
        if (link := self.links.of(node)) is not None:
            _log.info("node %s: no sign of life for %.1f s", link.name, silent)
            self.lost(link, silent)

    def _lost(self, node: NodeId, away: float) -> None:
        if self.failure is None:
            now = self.clock()
            self.perform(partial(reactor.on_node_lost, self.cluster, node, now, away))

    def health(self, link: Link, health: Health) -> None:
        """An agent says how well its node is."""
        if self.links.is_present(link):
            told = partial(reactor.on_health, self.cluster, link.node, health)
            self._carry_out(self._decide(told))

    def dropped(self, link: Link, keys: Sequence[str]) -> None:
        """An agent deleted the output of these attempts."""
        if self.links.is_present(link):
            gone = partial(reactor.on_dropped, self.cluster, link.node, keys)
            self._carry_out(self._decide(gone))

    def lost(self, link: Link, silent: float = 0.0) -> None:
        """An agent's connection is gone, after so many seconds without a word."""
        if self.links.detach(link):
            self.leases.gone(link.node)
            if self.failure is None:
                now = self.clock()
                self.perform(partial(reactor.on_node_down, self.cluster, link.node, now, silent))

    # Its life

    def start(self, effects: Sequence[Effect], earlier_lease: float = 0.0) -> None:
        """Begin, with what the boot asks for, and one pass of the scheduler."""
        nodes = self.cluster.nodes.values()
        self.leases.begin([n.id for n in nodes if not (n.lost or n.gone)], earlier_lease)
        self._carry_out([*effects, Wake()])

    def close(self) -> None:
        """Let go of agents and followers; the caller closes writer and store after this."""
        self._timers.close()
        self._inquiries.close()
        self.leases.close()
        self.feed.close()
        self.links.close("the server is stopping")

    def perform(self, decision: Callable[[], Sequence[Effect]]) -> asyncio.Future[None]:
        """Decide and carry out; done when it is durable."""
        return self._carry_out(self._decide(decision))

    def _ring(self, timer: Timer) -> None:
        if self.failure is None:
            self._carry_out(
                self._decide(partial(reactor.on_timer, self.cluster, timer, self.clock()))
            )

    def _stir(self, effect: Stir | Tidy | Inquire) -> None:
        if isinstance(effect, Inquire):
            self._inquiries.begin(effect)
        else:
            (self.stirred if isinstance(effect, Stir) else self.untidy).stir(effect.again)

    def _answered(self, asked: Inquire, refusing: Collection[NodeId]) -> None:
        if self.failure is None:
            told = partial(reactor.on_answers, self.cluster, asked.run, asked.why, refusing)
            self.perform(lambda: told(self.clock()))

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._loop.call_soon(self._pass)

    def _pass(self) -> None:
        self._awake = False
        if self._accepting:
            return  # the last part wakes the scheduler
        if self.failure is None:
            self._carry_out(self._decide(partial(reactor.schedule, self.cluster, self.clock())))

    def _decide(self, decision: Callable[[], T]) -> T:
        """Decide. An error for the user changed nothing; any other may have left the cluster half
        changed, so the engine stops: the store has the truth."""
        if self.failure is not None:
            raise self.failure
        try:
            return decision()
        except MoorageError:
            raise
        except Exception as error:
            _log.critical("a decision failed", exc_info=True)
            self._fail(StoreBroken(f"internal error: {error!r}"))
            raise

    def _carry_out(
        self, effects: Sequence[Effect], first: Callable[[], None] | None = None
    ) -> asyncio.Future[None]:
        """Hand the writes to the store, and do the rest. The future is done when all is durable
        and what it says was sent, `first` before the rest."""
        wanted = Wanted(self.links.send, self._stir)
        if first is not None:
            wanted.after.append(first)
        wanted.add(effects, self.clock())
        return self._hand_over(wanted)

    def _hand_over(self, wanted: Wanted, proven: bool = False) -> asyncio.Future[None]:
        """`proven`: commit also where nothing is written."""
        for arm in wanted.timers:
            self._timers.arm(arm.timer, arm.at)
        if wanted.wake:
            self._wake()
        told: asyncio.Future[None] = self._loop.create_future()
        told.add_done_callback(retrieve)
        if not (wanted.statements or self._batches or (proven and self.shared)):
            call_all(wanted.after)
            told.set_result(None)
            return told
        written = self.writer.submit(wanted.statements)
        self._batches.append(Batch(written, told, wanted.after, wanted.runs))
        written.add_done_callback(self._on_written)
        return told

    def _on_written(self, _: Future[None]) -> None:
        """On the writer's thread. Many batches are written together: one call serves them all.
        The flag is cleared before the batches are looked at, so none is forgotten."""
        if not self._draining:
            self._draining = True
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._draining = False
        told_of: set[RunId | None] = set()
        while self._batches and self._batches[0].written.done():
            batch = self._batches.popleft()
            error = batch.written.exception()
            if error is not None:
                self._fail(StoreBroken(str(error)))
            if self.failure is not None:
                refuse(batch.told, self.failure)
                continue
            told_of |= batch.told_of
            call_all(batch.after)
            if not batch.told.done():
                batch.told.set_result(None)
        if self.failure is None:
            self.feed.committed(told_of)

    def _fail(self, error: MoorageError) -> None:
        if self.failure is None:
            level = logging.INFO if self.feed.closed else logging.CRITICAL
            _log.log(level, "the engine stops: %s", error)
            self.failure = error
            self.stopped.set()
            self.close()
