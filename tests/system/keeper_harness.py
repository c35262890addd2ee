"""A keeper with a home of its own, and what tests ask of it. Whoever leaves the house leaves
nothing behind: no process, mount or control group."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from moorage.agent.gpus.devices import NONE
from moorage.agent.keeper.main import group_name
from moorage.agent.keeping import ExitRecord, Keeper, SpawnRequest
from moorage.agent.node import isolation as isolations
from moorage.agent.process import prepare
from moorage.agent.sandbox.roots import USUAL
from moorage.data.base import Bind
from moorage.protocol.agent import Isolation, Launch

PATIENCE = 30.0


class House:
    """One agent's directory and a client of its keeper."""

    devices = NONE

    def __init__(self, home: Path, isolation: Isolation) -> None:
        self.home, self.isolation = home, isolation
        self.records: dict[str, ExitRecord] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self.lost = asyncio.Event()
        self.keeper = Keeper(home, self._on_exit, self.lost.set)

    def _on_exit(self, key: str, record: ExitRecord) -> None:
        self.records[key] = record
        self._ended.setdefault(key, asyncio.Event()).set()

    def launch(self, number: int, *commands: str, **fields: Any) -> Launch:
        return Launch(
            run=1,
            run_name="r",
            user="u",
            job=number,
            index=0,
            attempt=1,
            commands=list(commands),
            **fields,
        )

    def directory(self, number: int) -> Path:
        path = self.home / "attempts" / f"{number}.1.0"
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def output(self, number: int) -> Path:
        return self.home / "logs" / f"{number}.1.0" / "output.log"

    def request(self, launch: Launch, binds: list[Bind] | None = None) -> SpawnRequest:
        directory = self.directory(launch.job)
        output = self.output(launch.job)
        return prepare(launch, directory, binds or [], output, self.isolation, self.devices)

    async def spawn(
        self, number: int, *commands: str, binds: list[Bind] | None = None, **fields: Any
    ) -> int:
        launch = self.launch(number, *commands, **fields)
        return await self.keeper.spawn(self.request(launch, binds))

    async def end(self, number: int) -> ExitRecord:
        key = f"{number}.1.0"
        event = self._ended.setdefault(key, asyncio.Event())
        await asyncio.wait_for(event.wait(), PATIENCE)
        return self.records[key]

    async def run(self, number: int, *commands: str, **fields: Any) -> tuple[ExitRecord, str]:
        await self.spawn(number, *commands, **fields)
        record = await self.end(number)
        return record, self.output(number).read_text()

    async def line(self, number: int, text: str) -> None:
        """Wait until the job has printed that line."""
        await grows(self.output(number), lambda content: text in content.splitlines())


async def grows(path: Path, enough: Callable[[str], bool]) -> None:
    """Wait until the file's content is enough."""
    from moorage.agent.output.watch import Watch

    loop = asyncio.get_running_loop()
    watch = Watch(loop)
    try:
        while True:
            changed = asyncio.Event()
            watch.once(path, changed.set)
            if enough(path.read_text()):
                return
            await asyncio.wait_for(changed.wait(), PATIENCE)
    finally:
        watch.close()


def gone(pid: int) -> bool:
    """Wait until that process is no more; whether it came to that."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # EINVAL while the last of it is being forgotten
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE)[0])
    finally:
        os.close(descriptor)


def _mounts(home: Path) -> list[str]:
    """Those of this process where a job could have left one; others come and go with whatever
    else runs on this machine."""
    lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    places = {"/", *USUAL}
    return [line for line in lines if line.split()[4] in places or str(home) in line]


def play(
    home: Path,
    isolation: Isolation,
    scenario: Callable[[House], Awaitable[None]],
    build: Callable[[Path, Isolation], House] = House,
) -> None:
    """Run the scenario in a new house, then look whether anything is left."""
    home.mkdir(parents=True, exist_ok=True)
    mounts = _mounts(home)
    asyncio.run(_play(build(home, isolation), scenario))
    assert _mounts(home) == mounts
    assert not groups(home)
    assert not processes(home)


async def _play(house: House, scenario: Callable[[House], Awaitable[None]]) -> None:
    home = house.home
    await house.keeper.connect()
    try:
        await scenario(house)
        pid = keeper_pid(home)
        assert await house.keeper.dismiss()
        assert await asyncio.to_thread(gone, pid)
    finally:
        await house.keeper.close()
        end_all(home)
    assert "Traceback" not in (home / "keeper.log").read_text()


def keeper_pid(home: Path) -> int:
    return int((home / "keeper.pid").read_text())


def end_all(home: Path) -> None:
    """Whatever a failed test has left running."""
    for pid in processes(home):
        os.kill(pid, signal.SIGKILL)
        gone(pid)


def processes(home: Path) -> list[int]:
    """Processes that name this home in their arguments or environment."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (
                Path(entry.path, "cmdline").read_bytes() + Path(entry.path, "environ").read_bytes()
            )
        except OSError:
            continue
        if os.fsencode(home) in text:
            found.append(int(entry.name))
    return found


def groups(home: Path) -> list[str]:
    """Control groups of this agent, its parent group left aside when it is all there is."""
    name = group_name(str(home))
    return [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/moorage/{name}/*/")]


def modes(home: Path) -> dict[str, Isolation]:
    """What this user gets on this node, and the least that a node may offer."""
    home.mkdir(parents=True, exist_ok=True)
    probed = isolations.probe(home)
    return {
        "probed": probed,
        "plain": msgspec.structs.replace(probed, cgroup="not tried", mounts="not tried"),
    }
