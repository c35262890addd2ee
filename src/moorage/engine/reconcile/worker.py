"""One host, from the first contact to the last: at most one worker has it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

from moorage.backends.ssh.interface import (
    Bundle,
    Enrolment,
    Host,
    HostConfig,
    HostFacts,
    HostProblem,
)
from moorage.core.fleet import HostState, LiveHost
from moorage.engine.reconcile.address import inside
from moorage.engine.reconcile.desk import Desk, config_of

FIRST_PAUSE = 2.0
LONGEST_PAUSE = 300.0
"""Seconds between tries of a host that fails, though it is there."""
LOOK_AGAIN = 300.0
"""Seconds after which it is seen whether a host with a tunnel can do without by now."""
CONNECT_WITHIN = 20.0
"""Seconds in which a started agent is connected."""
FORCED_WITHIN = 20.0
"""Seconds after which a host that is to go by force is forgotten as it is."""
RETURN_WITHIN = 5.0
"""Seconds in which an agent that was connected may come back by itself."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Means:
    """What all workers share."""

    reach: Callable[[HostConfig], Host]
    bundle: Callable[[], Awaitable[Bundle]]
    server: tuple[str, int]
    """Where the tunnels lead to."""
    slots: asyncio.Semaphore
    """How many hosts are worked on at once."""
    urls: Callable[[], tuple[str, ...]] = tuple
    """Where hosts that can reach them dial a server instead, with TLS."""
    authority: str = ""
    """Whose certificates those show (PEM); empty: what the hosts' systems trust."""
    options: tuple[str, ...] = ()
    """More arguments of each agent."""


class Worker:
    """`run` until the host is forgotten; `wake` whenever something may have changed."""

    def __init__(self, desk: Desk, means: Means) -> None:
        self._desk = desk
        self._means = means
        self._woken = asyncio.Event()
        self._again = False
        self._pause = FIRST_PAUSE
        self._there: Host | None = None
        self._tunnel: asyncio.Future[None] | None = None
        self._broken = ""
        """Why the tunnel does not stand."""

    def wake(self, again: bool) -> None:
        """Look at the host. `again`: also where it would rest after an error."""
        self._again = self._again or again
        self._woken.set()

    async def run(self) -> None:
        """Never raises for what is wrong with the host."""
        try:
            while (host := self._desk.host) is not None:
                try:
                    await self._attempt(host)
                    self._pause = FIRST_PAUSE
                except HostProblem as problem:
                    await self._hang_up()
                    await self._trouble(problem)
        finally:
            await self._hang_up()

    async def _attempt(self, host: LiveHost) -> None:
        """One step, given up where the host should be something else meanwhile: ssh may wait for
        a minute for a machine that is dead."""

        def wish() -> object:
            now = self._desk.host
            return None if now is None else (now.spec, now.state == "leaving", now.force)

        began = wish()
        step = asyncio.ensure_future(self._step(host))
        step.add_done_callback(lambda _: self._woken.set())
        try:
            await self._until(lambda: step.done() or wish() != began)
        finally:
            step.cancel()
            await asyncio.wait([step])
        if not step.cancelled():
            step.result()

    async def _step(self, host: LiveHost) -> None:
        if host.state == "leaving":
            await self._leave(host)
        else:
            await self._keep(host)

    # A host that stays

    async def _keep(self, host: LiveHost) -> None:
        """Make it a node; come back when it is none any more, or should be another."""
        spec = host.spec
        async with self._means.slots:
            there, facts = await self._look(host)
            bundle = await self._means.bundle()
            if facts.installed != bundle.digest:
                await self._desk.tell("installing", f"{bundle.size >> 20} MB")
                await there.install(facts, bundle)
            dials = await self._way(facts)
            engines = self._engines()
            told = dials == facts.dials and _says(facts.options, engines)
            begun = facts.running != bundle.digest or not told
            digest = await self._start(there, facts, bundle, dials) if begun else ""
            if not dials:
                self._lead(there, facts)
            if not await self._connected() and not begun:
                # It runs, and yet does not come: perhaps its token is of another database.
                digest = await self._start(there, facts, bundle, dials)
                await self._connected()
            if self._desk.is_leaving:
                return
            if not self._desk.is_up:
                raise await self._absent(there, facts)
        if digest:
            await self._desk.end_older_tokens(digest)
        await self._desk.tell("ready")
        self._again, self._pause = False, FIRST_PAUSE
        if dials:
            await there.close()
        await self._watch(spec, engines)

    async def _look(self, host: LiveHost) -> tuple[Host, HostFacts]:
        await self._hang_up()
        self._there = there = self._means.reach(config_of(host))
        await self._desk.tell("checking")
        facts = await there.check(self._means.urls(), self._means.authority)
        refusal = facts.refusal() or self._taken(facts)
        await self._desk.tell("checking", facts=facts)
        if refusal is not None and host.state != "leaving":
            raise refusal
        return there, facts

    def _taken(self, facts: HostFacts) -> HostProblem | None:
        """Why this machine cannot be this node; None where it can."""
        if facts.node not in self._desk.others:
            return None
        return HostProblem(
            f"this machine ({facts.hostname}) is node {facts.node} already",
            "remove one of the two entries: they name the same machine",
        )

    async def _start(
        self, there: Host, facts: HostFacts, bundle: Bundle, dials: tuple[str, ...]
    ) -> str:
        """Start its agent with a token of its own, whose hash is returned."""
        await self._desk.tell("starting")
        secret, digest = await self._desk.new_token()
        options = (*self._means.options, *self._engines())
        if address := inside(there.config, facts.addresses):
            options = (*options, "--address", address)
        enrolment = Enrolment(
            node=self._desk.name,
            token=secret,
            urls=dials,
            authority=self._means.authority,
            others=self._desk.others,
            options=options,
        )
        await there.start(facts, bundle, enrolment)
        return digest

    def _engines(self) -> tuple[str, ...]:
        """What its agent is told of them: another order makes another agent of it, whose keeper
        and jobs stay."""
        docker = "yes" if self._desk.docker else "no"
        return "--engines", ",".join(self._desk.engines), "--docker", docker

    async def _way(self, facts: HostFacts) -> tuple[str, ...]:
        """The addresses that its agent is to dial; empty: it needs a tunnel. One that has an
        address which still does, or has learned of a server that it can reach, is left alone."""
        if not (facts.dials and facts.reaches and facts.running):
            return facts.reaches
        still = set(facts.dials) & set(facts.reaches)
        return facts.dials if still or await self._connected() else facts.reaches

    def _lead(self, there: Host, facts: HostFacts) -> None:
        keeping = there.tunnel(facts, self._means.server, self._told)
        self._tunnel = asyncio.ensure_future(keeping)
        self._tunnel.add_done_callback(self._ended)

    def _told(self, reason: str) -> None:
        self._broken = reason
        self._woken.set()

    def _ended(self, tunnel: asyncio.Future[None]) -> None:
        if not tunnel.cancelled() and (error := tunnel.exception()) is not None:
            self._told(str(error))

    async def _connected(self) -> bool:
        return await self._until(lambda: self._desk.is_up or self._desk.is_leaving, CONNECT_WITHIN)

    async def _absent(self, there: Host, facts: HostFacts) -> HostProblem:
        if self._broken:
            return HostProblem(f"the tunnel does not stand: {self._broken}", passing=True)
        last = ""
        with suppress(HostProblem):
            last = next(iter(reversed(await there.tail(facts))), "")
        said = f": {last}" if last else ""
        return HostProblem(f"its agent does not connect{said}", passing=True)

    async def _watch(self, spec: object, engines: tuple[str, ...]) -> None:
        """Until the host should be another, or its agent stays away."""

        def is_other() -> bool:
            host = self._desk.host
            if host is None or host.state != "ready" or host.spec != spec:
                return True
            return self._engines() != engines

        while not is_other():
            within = LOOK_AGAIN if self._tunnel and self._means.urls() else None
            if not await self._until(lambda: is_other() or not self._desk.is_up, within):
                if await self._reaches():
                    return
                continue
            if is_other() or await self._until(
                lambda: is_other() or self._desk.is_up, RETURN_WITHIN
            ):
                continue
            if self._broken:
                raise HostProblem(self._broken, passing=True)
            return  # to see whether its agent runs at all

    async def _reaches(self) -> bool:
        """Whether the host can do without its tunnel."""
        if self._there is None:
            return False
        with suppress(HostProblem):
            facts = await self._there.check(self._means.urls(), self._means.authority)
            return bool(facts.reaches)
        return False

    # A host that goes

    async def _leave(self, host: LiveHost) -> None:
        try:
            if host.force or self._desk.is_empty:
                async with self._means.slots:
                    await self._remove_within(host, FORCED_WITHIN if host.force else None)
            else:
                await self._drain(host)
        except HostProblem as problem:
            untouched = host.facts == "{}"  # never reached: nothing of ours is there
            if not untouched and not host.force:
                raise
            if not untouched:
                _log.warning("%s is forgotten as it is: %s", host.name, problem)
            await self._desk.forget()

    async def _drain(self, host: LiveHost) -> None:
        """Keep the way to its agent open until its jobs have ended."""
        if self._tunnel is None and not self._desk.is_up:
            there, facts = await self._look(host)
            if not facts.dials:
                self._lead(there, facts)
        jobs = self._desk.jobs
        await self._desk.tell("leaving", f"waits for {jobs} job{'' if jobs == 1 else 's'}")

        def is_over() -> bool:
            return self._desk.is_empty or host.force or not self._desk.is_leaving

        await self._until(lambda: is_over() or self._desk.jobs != jobs or bool(self._broken))
        if self._broken and not is_over():
            raise HostProblem(self._broken, passing=True)

    async def _remove_within(self, host: LiveHost, within: float | None) -> None:
        try:
            async with asyncio.timeout(within):
                await self._remove(host)
        except TimeoutError:
            raise HostProblem("it does not answer", passing=True) from None

    async def _remove(self, host: LiveHost) -> None:
        there, facts = await self._look(host)
        await self._desk.tell("leaving", "removes its agent")
        if self._taken(facts) is None:
            await there.remove(facts)
        await self._desk.forget()

    # Waiting

    async def _trouble(self, problem: HostProblem) -> None:
        """Say what is wrong, and rest."""
        state: HostState = "unreachable" if problem.passing else "failed"
        _log.warning("%s: %s", self._desk.name, problem)
        await self._desk.tell(state, problem.cause, problem.fix)
        was_leaving, self._again = self._desk.is_leaving, False
        resting = asyncio.ensure_future(self._rest(problem))
        resting.add_done_callback(lambda _: self._woken.set())
        try:
            await self._until(
                lambda: resting.done() or self._again or self._desk.is_leaving is not was_leaving
            )
        finally:
            resting.cancel()
            await asyncio.wait([resting])
        self._again = False

    async def _rest(self, problem: HostProblem) -> None:
        """As long as a host is silent, until it answers; else longer and longer."""
        with suppress(HostProblem):
            if problem.passing and await self._returned():
                self._pause = FIRST_PAUSE
                return
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        await asyncio.sleep(pause)

    async def _returned(self) -> bool:
        """Wait until it answers, or for long; False where it does already, or cannot be asked."""
        host = self._desk.host
        if host is None:
            return False
        there = self._means.reach(config_of(host))
        try:
            rested = 0.0
            while rested < LONGEST_PAUSE and (knocked := await there.answers()) is not None:
                if knocked.there:
                    break
                rested += knocked.again
                await asyncio.sleep(knocked.again)
            return rested > 0
        finally:
            await there.close()

    async def _until(self, is_so: Callable[[], bool], within: float | None = None) -> bool:
        """Wait for it, for so many seconds at most; whether it came true."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not is_so():
                    self._woken.clear()
                    await self._woken.wait()
        return is_so()

    async def _hang_up(self) -> None:
        tunnel, self._tunnel, self._broken = self._tunnel, None, ""
        if tunnel is not None:
            tunnel.cancel()
            await asyncio.wait([tunnel])
        there, self._there = self._there, None
        if there is not None:
            await there.close()


def _says(options: Sequence[str], wanted: Sequence[str]) -> bool:
    """Are all options of `wanted`, each with its value, among these?"""
    return set(zip(wanted[::2], wanted[1::2], strict=True)) <= set(pairwise(options))
