"""The way of one attempt through its phases, and back out of them.

    claim → fetch → mount → prolog → run → flush → unmount → clean

Forward until the process ends or something fails; then always through the last ones, which undo
what was done. Every phase may be repeated, so an agent that is killed in one leaves nothing that
the next agent cannot finish or undo.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from moorage.agent import peers, process, removal, verdict
from moorage.agent.attending import Attending
from moorage.agent.claims import Claim
from moorage.agent.containers.runtime import HELD, Containers
from moorage.agent.flushing import PATIENCE, Flushing, buckets
from moorage.agent.gpus.devices import Devices
from moorage.agent.images.store import Image
from moorage.agent.keeper.job import SPAWNED
from moorage.agent.keeping import Cause, ExitRecord, SpawnError, SpawnRequest, read_exit
from moorage.agent.output.logs import Logs
from moorage.agent.progress import Progress, Stopped, reason
from moorage.agent.sandbox import mountpoints
from moorage.agent.supply import Supply, home_of
from moorage.agent.upkeep import Processes
from moorage.data import stopping, telling
from moorage.data.base import Bind, NotHere, Place, SourceError, of_the_node
from moorage.data.sources import MOUNTS
from moorage.protocol.agent import Isolation, Launch, Outcome, PhaseName

log = logging.getLogger("moorage.agent")

NEVER_STARTED = "the agent was restarted before the process was started"
DATA: tuple[str, ...] = ("work", "scratch", "tmp", "vartmp", "script", "bin", "files")
"""What `clean` removes from an attempt's directory; the records stay until `Forget`."""


@dataclass(frozen=True, slots=True)
class Node:
    """What attempts use of the node they run on."""

    processes: Processes
    logs: Logs
    supply: Supply
    isolation: Isolation
    changed: Callable[[str, bool], None]
    """Called with a key, and whether somebody waits for this news."""
    containers: Containers | None = None
    """None: this node runs processes only."""
    devices: Callable[[], Devices] = Devices
    flush_timeout: float = PATIENCE


@dataclass(slots=True)
class _Wish:
    """A `Stop` that came."""

    grace: float | None
    cause: Cause
    task: asyncio.Task[None] | None = None


class Attempt:
    """One claim on its way. `walk` and `resume` never raise but for cancellation, which leaves
    everything to the next agent. `ended` is called when nothing of it is left. What is `fenced`
    ends with the node's lease."""

    def __init__(self, claim: Claim, node: Node, ended: Callable[[Claim], None]) -> None:
        self._claim = claim
        self.fenced = self._asked
        self._node = node
        self._ended = ended
        self._phase: PhaseName = "claim"
        launch = claim.launch
        self._slow = launch is None or bool(launch.mounts) or launch.container is not None
        """Its phases take time, so that each is recorded and told by itself. Without data only
        the start of the process must be on disk before it happens."""
        self._wish: _Wish | None = None
        self._stopper = stopping.Stopper()
        self._image: Image | None = None
        self._buckets = [] if launch is None else buckets(launch.mounts)
        self._flushing: Flushing | None = None
        self._attending: Attending | None = None
        self._flushed = ""

    def let_go(self) -> None:
        """End what is being fetched, after the walk was cancelled; the next agent undoes it."""
        self._stopper.stop()
        if self._flushing is not None:
            self._flushing.let_go()

    def stop(self, grace: float | None, abort: bool) -> None:
        """End it; where it has no process yet, at the next step. A later call may be sterner."""
        self._want(_Wish(grace, "aborted" if abort else "stopped"))

    def _want(self, wish: _Wish) -> None:
        self._wish = wish
        if self._claim.state == "running":
            self._carry(wish)
        else:
            self._stopper.stop()

    def fall(self) -> None:
        """The lease is over. The keeper sees that too, and may have been faster."""
        if self.fenced and self._claim.outcome is None:
            self._want(_Wish(0, "fenced"))

    def settle(self) -> bool:
        """The server knows that it has begun; True where that ends its being fenced."""
        fenced, self.fenced = self.fenced, self._asked
        return fenced and not self.fenced

    async def walk(self) -> None:
        """From the claim to the end."""
        await self._end(self._forward)

    async def resume(self, running: bool) -> None:
        """Finish or undo what an earlier agent left. `running`: the keeper has its process."""
        await self._end(lambda: self._settle(running))

    async def _end(self, way: Callable[[], Awaitable[Outcome]]) -> None:
        claim = self._claim
        if claim.outcome is None:
            outcome = await self._explained(way)
            claim.outcome = claim.outcome or outcome
        claim.state = "finishing"
        self._node.logs.end(claim.key)
        self._node.changed(claim.key, False)
        await self._backward()
        claim.finish(claim.outcome)
        self._node.changed(claim.key, True)
        self._ended(claim)
        if claim.ended("run"):
            self._node.processes.forget(claim.key)

    async def _explained(self, way: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """The outcome of the way forward; one that no exit record will repeat is written down."""
        try:
            return await way()
        except Stopped:
            outcome = verdict.without_process(self._wish.cause if self._wish else "stopped")
        except SpawnError as error:
            outcome = verdict.not_spawned(error, self._launch.container is not None)
        except (SourceError, process.ProcessError, OSError) as error:
            here, text = of_the_node(error), reason(error)
            outcome = Outcome("phase-failed", phase=self._phase, message=text, here=here)
        except Exception as error:
            # Ours to repair. The job gets an end nevertheless, and the others go on.
            log.exception("%s: phase %s broke", self._claim.key, self._phase)
            text = f"internal error: {type(error).__name__}; see the agent's log"
            outcome = Outcome("phase-failed", phase=self._phase, message=text)
        self._claim.decide(outcome)
        return outcome

    async def _forward(self) -> Outcome:
        claim = self._claim
        with self._in("claim"):
            output = self._node.logs.open(claim.key)
            if self._slow:  # data is put there before the process is prepared
                self._place.work.mkdir(mode=0o700, exist_ok=True)
        self._unless_stopped()
        with self._in("fetch") as progress:
            binds = await self._fetch(progress)
        self._unless_stopped()
        request = self._request(binds, output)
        with self._in("run") as progress:
            self._unless_stopped()
            if self.fenced:
                request = msgspec.structs.replace(request, fenced=True)
            await self._node.processes.spawn(request)
            return await self._run(progress)

    async def _fetch(self, progress: Progress) -> list[Bind]:
        launch = self._launch
        if not launch.mounts and launch.container is None:
            return []
        stopping.current.set(self._stopper)
        loop = asyncio.get_running_loop()

        def tell(text: str) -> None:
            loop.call_soon_threadsafe(self._say, text)

        telling.current.set(tell)
        try:
            if launch.container is not None:
                await self._pull(launch, progress)
            binds, detail = await self._node.supply.prepare(
                launch.mounts, self._place, lambda: self._wish is None
            )
            progress.detail = "; ".join(filter(None, (progress.detail, detail)))
        except (SourceError, OSError):
            self._unless_stopped()  # what was broken off for the wish is no failure
            raise
        return binds

    async def _pull(self, launch: Launch, progress: Progress) -> None:
        containers, directory = self._node.containers, self._claim.directory
        if containers is None:
            raise NotHere("this node runs no containers")
        self._image = await asyncio.to_thread(containers.image, launch, directory, telling.tell)
        progress.detail = self._image.detail

    def _say(self, text: str) -> None:
        """How far the present phase is, for whoever looks now."""
        mounts = [] if self._attending is None else self._attending.health
        self._claim.say(self._phase, text, mounts)
        self._node.changed(self._claim.key, False)

    def _request(self, binds: list[Bind], output: Path) -> SpawnRequest:
        claim, isolation = self._claim, self._node.isolation
        devices = self._node.devices()
        with self._in("mount"):
            # The mounts themselves are made by the keeper, in the namespace of the process.
            own = claim.directory / MOUNTS  # just mounted, and a look at it may hang with it
            for bind in binds:
                if not bind.source.is_relative_to(own) and not bind.source.exists():
                    raise NotHere(f"{bind.source} has vanished from the node")
        with self._in("prolog"):
            if self._image is not None and self._node.containers is not None:
                return self._node.containers.request(
                    self._launch, self._image, claim.directory, binds, output, devices
                )
            request = process.prepare(
                self._launch, claim.directory, binds, output, isolation, devices
            )
            if self._launch.docker and self._node.containers is not None:
                return self._node.containers.with_daemon(request)
            return request

    async def _run(self, progress: Progress) -> Outcome:
        """From a process that was started to its outcome."""
        claim = self._claim
        claim.state = "running"
        self._node.changed(claim.key, True)
        if self._wish is not None:
            self._carry(self._wish)
        self._attend()
        record = await self._node.processes.wait(claim.key)
        progress.at = record.ended
        progress.detail = "" if self._attending is None else self._attending.detail
        return self._outcome(record)

    def _attend(self) -> None:
        """Have what breaks of its buckets mended, and told."""
        if self._buckets and self._attending is None:
            source = self._node.supply.buckets
            self._attending = Attending(source, self._place, self._tell_health)
            self._attending.begin(self._buckets)

    def _tell_health(self) -> None:
        if self._phase == "run" and self._attending is not None:
            self._say(self._attending.detail)
        elif self._phase == "flush":
            self._say_flush(self._flushed)

    def _say_flush(self, text: str) -> None:
        self._flushed = text
        trouble = "" if self._attending is None else self._attending.trouble
        self._say("; ".join(filter(None, (text, trouble))))

    async def _settle(self, running: bool) -> Outcome:
        """What became of an attempt that an earlier agent began."""
        claim = self._claim
        record = read_exit(claim.directory)
        began = any(phase.name == "run" for phase in claim.phases)
        # On a full disk the keeper's record may be there and the journal's line not.
        began = began or (claim.directory / SPAWNED).exists()
        if record is None and not running and not began:
            unstarted = Outcome("unstarted", message=NEVER_STARTED)
            claim.decide(unstarted)
            return unstarted
        self._phase = "run"
        if claim.launch is None:
            return await self._abandon(running)
        if record is None and running:
            self._node.logs.open(claim.key)
            progress = self._in("run")
            try:
                return await self._run(progress)
            finally:
                claim.end("run", progress.detail, progress.at)
        if record is None:
            self._attend()  # what is left of it may wait for its mounts
            record = await self._node.processes.bury(claim.key)
        claim.end("run", at=record.ended)
        return self._outcome(record)

    async def _abandon(self, running: bool) -> Outcome:
        """End an attempt whose launch cannot be read: nothing can be said about its process."""
        processes, key = self._node.processes, self._claim.key
        if running:
            await processes.stop(key, 0, "aborted")
            await processes.wait(key)
        else:
            await processes.bury(key)
        self._claim.decide(verdict.UNREADABLE)
        return verdict.UNREADABLE

    async def _backward(self) -> None:
        if self._claim.ended("run"):
            with self._in("flush") as progress:
                if self._buckets and not progress.known:
                    await self._flush(progress)
        await self._undo("unmount", self._unmount)
        await self._undo("clean", self._clean)

    async def _flush(self, progress: Progress) -> None:
        """What the job wrote must be in its buckets, however it ended."""
        claim = self._claim
        self._attend()
        source, patience = self._node.supply.buckets, self._node.flush_timeout
        self._flushing = Flushing(source, self._place, self._say_flush, patience)
        wrong = await self._flushing.run(self._buckets)
        progress.detail = self._flushing.detail
        if wrong is not None and claim.outcome is not None:
            progress.detail = wrong.message
            claim.decide(verdict.not_flushed(claim.outcome, wrong))

    async def _undo(self, phase: PhaseName, step: Callable[[], Awaitable[list[str]]]) -> None:
        """One phase back. Whatever goes wrong in it, the attempt must come to its end."""
        left: list[str] = []
        try:
            with self._in(phase) as progress:
                left = await step()
                progress.detail = "; ".join(left)
        except Exception:
            log.exception("%s: phase %s broke", self._claim.key, phase)
        for text in left:
            log.warning("%s: %s", self._claim.key, text)

    async def _unmount(self) -> list[str]:
        # The mounts went with the namespace; the places that had to be made for them did not.
        directory = str(self._claim.directory)
        if os.path.exists(f"{directory}/{mountpoints.NAME}"):  # noqa: PTH110 (asked of each job)
            await asyncio.to_thread(mountpoints.remove_made, directory)
        containers = self._node.containers if self._slow else None
        return await containers.leave(self._claim.directory) if containers else []

    async def _clean(self) -> list[str]:
        """Remove the data; what could not be removed."""
        claim = self._claim
        left = []
        launch, names = claim.launch, DATA
        if launch is not None and launch.mounts:
            mounts = launch.mounts
            left += await asyncio.to_thread(self._node.supply.release, mounts, self._place)
        elif launch is not None and launch.python is None:
            names = DATA[:-2]  # there is nothing that would be in the others
        if launch is None or launch.container is not None:
            names = (*names, HELD)
        names += peers.OWNED if launch is None or launch.peers is not None else ()
        if launch is None or self._buckets:
            left += await asyncio.to_thread(self._node.supply.put_away, claim.directory)
            names = (*names, MOUNTS)
        directory = str(claim.directory)
        return left + await removal.remove([f"{directory}/{name}" for name in names])

    def _in(self, phase: PhaseName) -> Progress:
        """Record a phase."""
        self._phase = phase
        return Progress(self._claim, self._node.changed, phase, self._slow)

    @property
    def _asked(self) -> bool:
        return self._claim.launch is not None and self._claim.launch.fence

    @property
    def _launch(self) -> Launch:
        assert self._claim.launch is not None
        return self._claim.launch

    @property
    def _place(self) -> Place:
        directory = self._claim.directory
        workdir = process.workdir(directory, self._node.isolation)
        return Place(directory, directory / "work", home_of(self._launch), workdir)

    def _outcome(self, record: ExitRecord) -> Outcome:
        self._claim.usage = process.usage(record)
        return process.outcome(self._launch, record)

    def _unless_stopped(self) -> None:
        if self._wish is not None:
            raise Stopped

    def _carry(self, wish: _Wish) -> None:
        wish.task = asyncio.create_task(
            self._node.processes.stop(self._claim.key, wish.grace, wish.cause)
        )
