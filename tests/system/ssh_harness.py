"""Hosts of a test bed as `SshHost`s, and what is left on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage.backends.ssh.host import SshHost
from moorage.backends.ssh.interface import HostConfig, HostFacts, HostProblem
from system.servers import Server
from testbed.bed import Bed
from testbed.host import Host

SERVER = "s1"
PATIENCE = 60.0


def config(bed: Bed, host: Host, **other: Any) -> HostConfig:
    """How a host is reached; its key is accepted unless another rule is among `other`."""
    options: dict[str, Any] = {
        "fleet": "lab",
        "num": 0,
        "hostname": host.address,
        "user": host.user,
        "identity_file": str(bed.key),
        "host_key": "accept-new",
    }
    return HostConfig(**{**options, **other})


@asynccontextmanager
async def reaching(way: HostConfig, directory: Path) -> AsyncIterator[SshHost]:
    """A host for the length of a block."""
    host = SshHost(way, SERVER, directory)
    try:
        yield host
    finally:
        await host.close()


@asynccontextmanager
async def tunnelled(host: SshHost, facts: HostFacts, server: Server) -> AsyncIterator[Told]:
    """A tunnel to a server for the length of a block, which begins when it stands."""
    told = Told(asyncio.Queue())
    place = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    task = asyncio.create_task(host.tunnel(facts, place, told.words.put_nowait))
    try:
        await told.stands()
        yield told
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@dataclass
class Told:
    """What a tunnel said of itself."""

    words: asyncio.Queue[str]

    async def stands(self) -> None:
        """Wait until it does."""
        async with asyncio.timeout(PATIENCE):
            while await self.words.get():
                pass

    async def broke(self) -> str:
        """Wait until it does not; the reason."""
        async with asyncio.timeout(PATIENCE):
            while not (reason := await self.words.get()):
                pass
        return reason


def problem(way: HostConfig, directory: Path) -> HostProblem:
    """What a check of a host ends with."""

    async def check() -> HostProblem:
        async with reaching(way, directory) as host:
            try:
                facts = await host.check()
            except HostProblem as error:
                return error
        raise AssertionError(f"nothing is wrong: {facts}")

    return asyncio.run(check())


def processes(host: Host) -> list[str]:
    """Those of ours that run on a host."""
    lines = host.inside("ps", "-eww", "-o", "args").stdout.splitlines()
    return [line for line in lines if "moorage" in line]


def leftovers(host: Host) -> list[str]:
    """Whatever is there of an agent: processes, files, control groups, mounts."""
    find = "ls -d /var/lib/moorage/* /home/*/.moorage /root/.moorage 2>/dev/null; true"
    files = host.inside("sh", "-c", find).stdout.split()
    # Groups of others may go while it looks, which it then complains of.
    find_groups = ("find", "/sys/fs/cgroup", "-path", "*/moorage*", "-type", "d")
    groups = host.inside(*find_groups, check=False).stdout
    table = host.inside("cat", "/proc/1/mountinfo").stdout.splitlines()
    mounts = [point for line in table if "moorage" in (point := line.split()[4])]
    return [*processes(host), *files, *groups.split(), *mounts]


def behind(way: HostConfig, **other: Any) -> HostConfig:
    """The same with something else."""
    fields = {name: getattr(way, name) for name in way.__struct_fields__}
    return HostConfig(**{**fields, **other})
