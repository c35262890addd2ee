"""Whether a host is there at all, without a login: its sshd says who it is to whoever connects.

It costs a few packets, so a host that is away can be asked every few seconds, where ssh would take
a process and some kilobytes each time. Behind others the last one of them is asked to connect:
that is a login on each, and so done less often.
"""

from __future__ import annotations

import asyncio

from moorage.backends.ssh.connection import Connection, reap
from moorage.backends.ssh.interface import Knocked

EVERY, EVERY_BEYOND = 3.0, 15.0
"""Seconds between two looks; the second one for a host behind others."""
_WITHIN = 4.0
"""Seconds for the connection and the greeting: the kernel has asked three times by then."""
_WITHIN_BEYOND = 20.0
"""The same through others, each of which takes a login."""
_GREETING = b"SSH-"


async def answers(connection: Connection) -> Knocked | None:
    """Does its sshd greet? None: the user's ssh has a way to it of its own (ProxyCommand), and it
    cannot be asked like this. HostProblem where ssh cannot be asked for the way."""
    place = await connection.resolved()
    if place is None:
        return None
    host, port, through = place
    if not through:
        return Knocked(await _direct(host, port), EVERY)
    return Knocked(await _beyond(connection, f"[{host}]:{port}", through), EVERY_BEYOND)


async def _direct(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_WITHIN):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                return await _greets(reader)
            finally:
                writer.close()
    except (OSError, EOFError):  # TimeoutError too
        return False


async def _beyond(connection: Connection, place: str, through: str) -> bool:
    process = await connection.forwarded(place, through)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_WITHIN_BEYOND):
            return await _greets(process.stdout)
    except (TimeoutError, EOFError):
        return False
    finally:
        await reap(process)


async def _greets(reader: asyncio.StreamReader) -> bool:
    return await reader.readexactly(len(_GREETING)) == _GREETING
