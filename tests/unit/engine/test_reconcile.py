"""The way of hosts from the first contact to the last, with hosts that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moorage.backends.ssh.interface import (
    Bundle,
    Cannot,
    Enrolment,
    HostConfig,
    HostFacts,
    HostProblem,
    Knocked,
)
from moorage.core import reactor
from moorage.engine import boot
from moorage.engine.loop import Engine
from moorage.engine.reconcile import worker as worker_module
from moorage.engine.reconcile.hosts import Reconciler
from moorage.engine.reconcile.worker import Means
from moorage.engine.testing import FakeAgent
from moorage.specs.fleet import ENGINES, Fleet, Host
from moorage.store.sqlite import SqliteStore, open_sqlite
from moorage.store.writer import Writer

TOLD = ("--engines", ",".join(ENGINES), "--docker", "no")
BUNDLE = Bundle("new", Path("/x"), 1 << 20, (3, 11), "x86_64", (2, 17))


@dataclass
class Machine:
    """What is on one host, and what is wrong with it."""

    installed: str = ""
    running: str = ""
    token: str = ""
    options: tuple[str, ...] = ()
    tunnels: int = 0
    trouble: HostProblem | None = None
    lack: str = ""
    silent: bool = False
    hangs: bool = False
    """Every call to it lasts for ever."""
    there: bool = True
    """Whether its sshd greets."""
    knocks: asyncio.Queue[bool] = field(default_factory=asyncio.Queue)
    calls: list[str] = field(default_factory=list)
    agent: FakeAgent | None = None
    called: asyncio.Event = field(default_factory=asyncio.Event)
    connected: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Site:
    """All machines by host name; made when they are first asked for."""

    engine: Engine
    machines: dict[str, Machine] = field(default_factory=dict)

    def reach(self, config: HostConfig) -> Reached:
        machine = self.machines.setdefault(config.hostname, Machine())
        return Reached(self, config, machine)


@dataclass
class Reached:
    """Implements `Host`."""

    site: Site
    config: HostConfig
    machine: Machine

    def _call(self, name: str) -> None:
        self.machine.calls.append(name)
        self.machine.called.set()
        if self.machine.trouble is not None:
            raise self.machine.trouble

    async def check(self, urls: object = (), authority: str = "") -> HostFacts:
        self._call("check")
        if self.machine.hangs:
            await asyncio.Event().wait()
        lack = self.machine.lack
        return HostFacts(
            hostname=self.config.hostname, user="u", privilege="root", os="", kernel="",
            arch="x86_64", libc="glibc 2.36", pythons=(), python="/usr/bin/python3",
            directory="/d", disk_free=1, memory=1, cpus=1, addresses=(), clock_offset=0.0,
            clock_error=0.0, cgroups="v2", cgroups_writable=True, mount_namespaces=True, init="",
            engines={}, gpu_tools=(), reaches=(), installed=self.machine.installed,
            running=self.machine.running, options=self.machine.options,
            cannot=(Cannot("agent", lack, "fix it"),) if lack else (),
        )  # fmt: skip

    async def install(self, facts: HostFacts, bundle: Bundle) -> None:
        self._call("install")
        self.machine.installed = bundle.digest

    async def start(self, facts: HostFacts, bundle: Bundle, enrolment: Enrolment) -> None:
        self._call("start")
        self.machine.running, self.machine.token = bundle.digest, enrolment.token
        self.machine.options = enrolment.options

    async def stop(self, facts: HostFacts) -> None:
        self._call("stop")

    async def remove(self, facts: HostFacts) -> None:
        self._call("remove")
        self.machine.installed = self.machine.running = ""

    async def tail(self, facts: HostFacts) -> list[str]:
        return ["its last word"]

    async def tunnel(self, facts: HostFacts, server: object, told: Callable[[str], None]) -> None:
        self.machine.tunnels += 1
        told("")
        agent = FakeAgent(self.site.engine, self.config.node)
        try:
            if self.machine.running and not self.machine.silent:
                self.machine.agent = agent
                await agent.connect()
                self.machine.connected.set()
            await asyncio.Event().wait()
        finally:
            self.machine.tunnels -= 1
            if agent.link is not None:
                self.site.engine.lost(agent.link)

    async def answers(self) -> Knocked | None:
        self.machine.knocks.put_nowait(self.machine.there)
        return Knocked(self.machine.there, 0.02)

    async def close(self) -> None:
        return


Story = Callable[[Engine, Site], Awaitable[None]]


def tell(path: Path, story: Story) -> None:
    """One life of a server over the database at `path`."""

    async def life() -> None:
        engine = boot.start(store, writer, "test")
        site = Site(engine)
        tokens = iter(range(1000))

        async def pack() -> Bundle:
            return BUNDLE

        means = Means(site.reach, pack, ("127.0.0.1", 1), asyncio.Semaphore(2))

        def make_token() -> tuple[str, str]:
            number = next(tokens)
            return f"secret{engine.epoch}.{number}", f"hash{engine.epoch}.{number}"

        working = asyncio.ensure_future(Reconciler(engine, means, make_token).run())
        try:
            async with asyncio.timeout(60):
                await story(engine, site)
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
            engine.close()
        assert all(machine.tunnels == 0 for machine in site.machines.values())

    store: SqliteStore = open_sqlite(path / "test.db")
    writer = Writer(store)
    try:
        asyncio.run(life())
    finally:
        writer.close()
        store.close()


async def apply(engine: Engine, *hosts: str, user: str = "", **fields: Any) -> None:
    there = tuple(Host(hostname=host, user=user) for host in hosts)
    spec = Fleet(name="lab", hosts=there, **fields)
    await engine.perform(partial(reactor.on_apply_fleet, engine.cluster, spec, engine.clock()))


async def delete(engine: Engine, *, force: bool = False) -> None:
    now = engine.clock()
    await engine.perform(partial(reactor.on_delete_fleet, engine.cluster, "lab", force, now))


async def until(engine: Engine, is_so: Callable[[], bool]) -> None:
    """Wait for it; everything there is told by events."""
    with await engine.feed.follow(None) as follower:
        while not is_so():
            await follower.next()


def states(engine: Engine) -> dict[str, str]:
    return {name: host.state for name, host in engine.cluster.hosts_by_node.items()}


def is_ready(engine: Engine) -> bool:
    return states(engine) == {"lab-0": "ready"}


def tokens_of(engine: Engine, name: str) -> list[str]:
    return [row["hash"] for row in engine.store.read("tokens") if row["subject"] == name]


def test_hosts_become_nodes_and_go_again(tmp_path: Path) -> None:
    async def story(engine: Engine, site: Site) -> None:
        await apply(engine, "a", "b")
        await until(engine, lambda: states(engine) == {"lab-0": "ready", "lab-1": "ready"})
        assert site.machines["a"].calls == ["check", "install", "start"]
        assert len(tokens_of(engine, "lab-0")) == 1
        await apply(engine, "a")
        await until(engine, lambda: states(engine) == {"lab-0": "ready"})
        assert site.machines["b"].calls[-1] == "remove"
        await until(engine, lambda: tokens_of(engine, "lab-1") == [])
        await delete(engine)
        await until(engine, lambda: not engine.cluster.fleets)
        assert site.machines["a"].installed == ""

    tell(tmp_path, story)


def test_a_server_that_takes_over_goes_on_with_the_agents_that_run(tmp_path: Path) -> None:
    async def first(engine: Engine, site: Site) -> None:
        await apply(engine, "a")
        await until(engine, lambda: states(engine) == {"lab-0": "ready"})

    async def second(engine: Engine, site: Site) -> None:
        site.machines["a"] = Machine("new", "new", options=TOLD)
        await until(engine, lambda: "a" in site.machines and engine.cluster.nodes[1].up)
        assert site.machines["a"].calls == ["check"]

    tell(tmp_path, first)
    tell(tmp_path, second)


def test_other_engines_are_told_to_an_agent_that_runs(tmp_path: Path) -> None:
    async def story(engine: Engine, site: Site) -> None:
        await apply(engine, "a")
        await until(engine, lambda: states(engine) == {"lab-0": "ready"})
        machine = site.machines["a"]
        assert machine.calls == ["check", "install", "start"]
        await apply(engine, "a", engines=("docker",))
        again = ["check", "install", "start", "check", "start"]
        await until(engine, lambda: machine.calls == again and is_ready(engine))
        assert machine.options[-4:] == ("--engines", "docker", "--docker", "no")

    tell(tmp_path, story)


def test_what_is_wrong_is_told_and_tried_again_when_the_file_is_applied(tmp_path: Path) -> None:
    async def story(engine: Engine, site: Site) -> None:
        site.machines["a"] = bad = Machine(trouble=HostProblem("no key", "make one"))
        site.machines["b"] = away = Machine(trouble=HostProblem("no route", passing=True))
        site.machines["c"] = lacking = Machine(lack="no python")
        await apply(engine, "a", "b", "c")
        wanted = {"lab-0": "failed", "lab-1": "unreachable", "lab-2": "failed"}
        await until(engine, lambda: states(engine) == wanted)
        host = engine.cluster.hosts_by_node["lab-0"]
        assert (host.message, host.fix) == ("no key", "make one")
        bad.trouble = away.trouble = None
        lacking.lack = ""
        await apply(engine, "a", "b", "c")
        await until(engine, lambda: set(states(engine).values()) == {"ready"})

    tell(tmp_path, story)


def test_an_agent_that_stays_away_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "CONNECT_WITHIN", 0.05)
    monkeypatch.setattr(worker_module, "RETURN_WITHIN", 0.05)
    monkeypatch.setattr(worker_module, "FIRST_PAUSE", 0.05)

    async def story(engine: Engine, site: Site) -> None:
        site.machines["a"] = machine = Machine(silent=True)
        await apply(engine, "a")
        await until(engine, lambda: states(engine) == {"lab-0": "unreachable"})
        said = engine.cluster.hosts_by_node["lab-0"].message
        assert said == "its agent does not connect: its last word"
        monkeypatch.setattr(worker_module, "CONNECT_WITHIN", 30.0)
        machine.silent = False
        await until(engine, lambda: states(engine) == {"lab-0": "ready"})
        await machine.connected.wait()
        assert machine.agent is not None
        assert machine.agent.link is not None
        machine.calls.clear()
        machine.connected.clear()
        engine.lost(machine.agent.link)
        await machine.connected.wait()
        await until(engine, lambda: states(engine) == {"lab-0": "ready"})
        assert machine.calls == ["check"]

    tell(tmp_path, story)


def test_a_host_that_was_silent_is_back_as_soon_as_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the pauses of one that fails had grown; and it is not logged in to before."""
    monkeypatch.setattr(worker_module, "FIRST_PAUSE", 3600.0)

    async def story(engine: Engine, site: Site) -> None:
        away = HostProblem("no answer", passing=True)
        site.machines["a"] = machine = Machine(trouble=away, there=False)
        await apply(engine, "a")
        await until(engine, lambda: states(engine) == {"lab-0": "unreachable"})
        for _ in range(5):
            assert await machine.knocks.get() is False
        assert machine.calls == ["check"]
        machine.trouble, machine.there = None, True
        await until(engine, lambda: states(engine) == {"lab-0": "ready"})

    tell(tmp_path, story)


def test_a_host_that_cannot_be_reached_stays_until_it_is_forgotten_by_force(
    tmp_path: Path,
) -> None:
    async def story(engine: Engine, site: Site) -> None:
        await apply(engine, "a")
        await until(engine, lambda: states(engine) == {"lab-0": "ready"})
        site.machines["a"].trouble = HostProblem("no route", passing=True)
        await delete(engine)
        host = engine.cluster.hosts_by_node["lab-0"]
        await until(engine, lambda: host.stuck)
        assert (host.state, host.message) == ("leaving", "no route")
        await delete(engine, force=True)
        await until(engine, lambda: not engine.cluster.fleets)

    tell(tmp_path, story)


def test_a_host_that_hangs_is_left_when_another_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "FORCED_WITHIN", 0.05)

    async def story(engine: Engine, site: Site) -> None:
        site.machines["a"] = machine = Machine(hangs=True)
        await apply(engine, "a")
        await machine.called.wait()
        machine.hangs = False
        await apply(engine, "a", user="other")
        await until(engine, lambda: states(engine) == {"lab-0": "ready"})
        machine.hangs = True
        await delete(engine)
        await delete(engine, force=True)
        await until(engine, lambda: not engine.cluster.fleets)

    tell(tmp_path, story)


def test_a_host_that_was_never_reached_goes_at_once(tmp_path: Path) -> None:
    async def story(engine: Engine, site: Site) -> None:
        site.machines["a"] = Machine(trouble=HostProblem("no such name"))
        await apply(engine, "a")
        await until(engine, lambda: states(engine) == {"lab-0": "failed"})
        await delete(engine)
        await until(engine, lambda: not engine.cluster.fleets)

    tell(tmp_path, story)
