"""The parts of an agent put together, and what it does with each message of the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec

from moorage import protocol
from moorage.agent.attempts import Attempts
from moorage.agent.claims import Claims
from moorage.agent.containers.engines import NAMES
from moorage.agent.containers.runtime import Containers
from moorage.agent.flushing import PATIENCE, Leftovers
from moorage.agent.gpus.devices import NONE
from moorage.agent.gpus.discovery import discover
from moorage.agent.node import inventory, isolation, probe
from moorage.agent.node.health import Caretaker
from moorage.agent.output.logs import Logs
from moorage.agent.stage import Node
from moorage.agent.supply import Supply
from moorage.agent.upkeep import Processes
from moorage.agent.uplink.addresses import Addresses
from moorage.agent.uplink.dialling import dial_stream
from moorage.agent.uplink.download import Download
from moorage.agent.uplink.lease import Lease
from moorage.agent.uplink.link import Link
from moorage.agent.uplink.parts import PartsDesk
from moorage.agent.uplink.relays import Relays
from moorage.agent.uplink.stores import StoreDesk
from moorage.agent.uplink.streams import Visits
from moorage.data.parts import Parts
from moorage.data.sources import Sources
from moorage.protocol.agent import (
    CancelRead,
    DropLogs,
    Dropped,
    Forget,
    Hello,
    OpenStream,
    Probe,
    ProbeResult,
    ReadLog,
    Retract,
    Start,
    Stop,
    Sweep,
    ToAgent,
)
from moorage.protocol.flush import Flush
from moorage.protocol.health import CheckHealth
from moorage.specs.stores.record import Access

log = logging.getLogger("moorage.agent")


class Agent:
    """One node. `home` is `$MOORAGE_HOME/agent`; `log_limit` in bytes, 0 for none.
    `addresses` are where servers are; `address` is where other nodes reach
    this one, empty where they are all on this machine."""

    def __init__(
        self,
        addresses: Addresses,
        home: Path,
        name: str,
        log_limit: int,
        address: str = "",
        engines: Sequence[str] = NAMES,
        docker: bool = False,
        flush_timeout: float = PATIENCE,
    ) -> None:
        self._home = home
        self._name = name
        self._address = address
        # Tried in a child process, so before there are threads.
        self._isolation = isolation.probe(home)
        self._claims = Claims(home / "attempts")
        self._processes = Processes(home)
        self._logs = Logs(home / "logs", asyncio.get_running_loop(), log_limit)
        self._stores = StoreDesk(addresses, home / "token")
        self._parts = Parts(home, PartsDesk(addresses, home / "token"))
        self._relays = Relays(home, addresses)
        self._sources = Sources(
            home,
            Download(addresses, home / "token"),
            access=self._reach,
        )
        self._supply = Supply(self._sources)
        self._lease = Lease(self._processes.renew, lambda: self._attempts.fall())
        self._link = Link(
            addresses,
            home / "token",
            home / "epoch",
            hello=self._hello,
            held=lambda key: self._attempts.held(key),
            handle=self._take,
            down=self._logs.hang_up,
            lease=self._lease,
            known=lambda keys: self._attempts.settle(keys),
        )
        self._containers = Containers(home, self._isolation, engines, docker)
        self._isolation = self._containers.noted(self._isolation)
        node = Node(
            self._processes,
            self._logs,
            self._supply,
            self._isolation,
            self._link.changed,
            self._containers,
            lambda: self._devices,
            flush_timeout,
        )
        self._attempts = Attempts(
            self._claims, node, self._link.tell, self._link.hurry, self._lease.valid
        )
        self._devices = NONE
        self._caretaker = Caretaker(lambda health: self._link.answer(lambda: health))
        self._visits = Visits(
            home,
            self._claims,
            self._processes,
            partial(dial_stream, addresses, home / "token"),
        )
        self._leftovers = Leftovers(
            self._supply.buckets, lambda told: self._link.answer(lambda: told), flush_timeout
        )
        self._greeting: Hello | None = None
        self._probing: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """Find out what this node has, find the keeper, pick up what earlier agents left.
        Unavailable where no keeper can be had."""
        running = await self._processes.connect()
        left = self._claims.read()
        self._visits.tidy()
        await asyncio.to_thread(self._containers.tidy)
        await asyncio.to_thread(self._sources.tidy, {claim.key for claim in left})
        await asyncio.to_thread(self._relays.resume)
        self._devices = await asyncio.to_thread(discover, self._home)
        for note in self._devices.notes:
            log.warning("%s", note)
        self._caretaker.watch(self._devices)
        self._greeting = Hello(
            protocol.VERSION,
            version("moorage"),
            self._name,
            inventory.boot_id(),
            await asyncio.to_thread(inventory.resources, self._home, self._devices),
            self._isolation,
            inventory.find_pythons(),
            [],
            self._address,
        )
        has = self._isolation
        for what, why in (
            ("mounts", has.mounts),
            ("cgroup", has.cgroup),
            ("containers", has.containers),
        ):
            if why is not None:
                log.info("isolation (%s): %s", what, why)
        self._attempts.recover(left, running)

    async def serve(self) -> None:
        """Do what the server says until cancelled. ProtocolMismatch."""
        await self._link.run()

    def retry(self) -> None:
        """The way to the server is new: connect now."""
        self._link.retry.set()

    async def leave(self) -> None:
        """Let go of everything; jobs go on."""
        self._lease.close()
        for task in self._probing:
            task.cancel()
        await self._caretaker.leave()
        await self._attempts.leave()
        self._logs.close()
        await self._processes.close()

    def _reach(self, store: str, key: str) -> Access:
        """How a store is reached from here, with all that it takes. Blocks. SourceError."""
        self._parts.ready()
        return self._relays.reached(self._stores(store, key))

    def _hello(self) -> Hello:
        assert self._greeting is not None
        return msgspec.structs.replace(self._greeting, held=self._attempts.all_held())

    def _take(self, message: ToAgent) -> None:
        match message:
            case Start(launch=launch, wait=wait):
                self._attempts.start(launch, wait)
            case Stop(key=key, grace=grace, abort=abort):
                self._attempts.stop(key, grace, abort)
            case Retract(keys=keys):
                self._attempts.retract(keys)
            case Forget(keys=keys):
                self._attempts.forget(keys)
            case ReadLog():
                self._logs.read(message, self._link.answer)
            case CancelRead(request=request):
                self._logs.cancel(request)
            case DropLogs(keys=keys):
                gone = Dropped(self._logs.drop(keys))
                self._link.answer(lambda: gone)
            case OpenStream():
                self._aside(self._visits.serve(message))
            case CheckHealth():
                self._caretaker.check(message)
            case Flush():
                self._aside(self._leftovers.flush(message))
            case Sweep():
                self._aside(self._sweep(message))
            case Probe():
                self._aside(self._probe(message))
            case _:
                log.warning("unexpected message: %s", type(message).__name__)

    def _aside(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._probing.add(task)
        task.add_done_callback(self._probing.discard)

    async def _sweep(self, message: Sweep) -> None:
        result = await self._logs.sweep(message, lambda key: self._claims.get(key) is not None)
        self._link.answer(lambda: result)

    async def _probe(self, message: Probe) -> None:
        try:
            problems, notes = await asyncio.to_thread(
                probe.probe,
                message.launch,
                self._home / "attempts",
                self._supply,
                self._isolation,
                self._containers,
            )
        except Exception as error:
            log.exception("a probe broke")
            problems, notes = [f"this node cannot tell: {type(error).__name__}"], []
        result = ProbeResult(message.request, problems, notes)
        self._link.answer(lambda: result)
