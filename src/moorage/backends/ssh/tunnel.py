"""A way from a host to the server where there is none: `ssh -R`, kept up.

The connection is one of its own, with a program at the far end that holds the address for the
agent and ends with its standard input: so nothing stays of it when the server is killed.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable

from moorage.backends.ssh.complaints import NOT_SSH, explain, explain_silence, where
from moorage.backends.ssh.connection import Connection, reap
from moorage.backends.ssh.interface import HostFacts, HostProblem
from moorage.backends.ssh.onhost.hold import STANDS
from moorage.backends.ssh.program import Program, command, new_word

HOLD = Program("hold", ("place",))
OPENING = 40.0
"""Seconds until a tunnel stands."""
PAUSES = (0.2, 30.0)
"""Seconds before it is opened again: after the first failure, and at most."""
LASTED = 30.0
"""Seconds after which a tunnel's end is not taken for a failure to open it."""
_PORT = re.compile(rb"Allocated port (\d+) for remote forward")
_REFUSED = re.compile(rb"remote port forwarding failed|Remote port forwarding failed")
_WORDS = 8192


async def keep(
    connection: Connection,
    facts: HostFacts,
    server: tuple[str, int],
    told: Callable[[str], None],
) -> None:
    """See `Host.tunnel`."""
    loop = asyncio.get_running_loop()
    pause = PAUSES[0]
    while True:
        began = loop.time()
        try:
            await _once(connection, facts, server, told)
        except HostProblem as problem:
            told(str(problem))
        if loop.time() - began > LASTED:
            pause = PAUSES[0]
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
        pause = min(2 * pause, PAUSES[1])


async def _once(
    connection: Connection,
    facts: HostFacts,
    server: tuple[str, int],
    told: Callable[[str], None],
) -> None:
    """Open it, hold it, and say why it ended: always HostProblem."""
    host, port = server
    to = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options = ("-o", "LogLevel=INFO", "-R", f"127.0.0.1:0:{to}")
    process = await connection.apart([command([facts.python], facts.privilege)], options)
    said = bytearray()
    listening: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(OPENING):
            number = await _allocated(connection, process, said)
            listening = asyncio.create_task(_drain(process.stderr, said))
            await _tell(connection, process, facts, number, said)
        told("")
        await _drain(process.stdout, bytearray())
        raise HostProblem(
            f"the tunnel to {where(connection.config)} broke",
            "it is opened again by itself",
            passing=True,
        )
    except TimeoutError:
        raise HostProblem(
            f"no tunnel to {where(connection.config)} within {OPENING:.0f} s",
            "is it overloaded or frozen?",
            passing=True,
        ) from None
    finally:
        if listening is not None:
            listening.cancel()
        await reap(process)


async def _allocated(
    connection: Connection, process: asyncio.subprocess.Process, said: bytearray
) -> int:
    """The port over there, from ssh's words."""
    assert process.stderr is not None
    while line := await process.stderr.readline():
        said += line[:_WORDS]
        if _REFUSED.search(line):
            raise HostProblem(
                f"{where(connection.config)} lets nobody forward ports",
                "set AllowTcpForwarding yes in its sshd_config, or let the host reach the server",
            )
        if found := _PORT.search(line):
            return int(found[1])
    status = await process.wait()
    words = said.decode(errors="replace")
    if status == NOT_SSH:
        raise explain(connection.config, words)
    raise explain_silence(connection.config, status, "", words)


async def _tell(
    connection: Connection,
    process: asyncio.subprocess.Process,
    facts: HostFacts,
    port: int,
    said: bytearray,
) -> None:
    """Pass it to the program over there, until that says that the agent knows it."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(HOLD.request(new_word(), {"directory": facts.directory}))
    process.stdin.write(b"%d\n" % port)
    heard = bytearray()
    while line := await process.stdout.readline():
        if line.strip() == STANDS.encode():
            return
        heard += line[:_WORDS]
    status = await process.wait()
    words = said.decode(errors="replace")
    raise explain_silence(connection.config, status, heard.decode(errors="replace"), words)


async def _drain(stream: asyncio.StreamReader | None, into: bytearray) -> None:
    """Read until its end, keeping a little."""
    assert stream is not None
    while piece := await stream.read(_WORDS):
        into += piece[: max(0, _WORDS - len(into))]
