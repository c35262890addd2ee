"""Whether a host is there at all, without a login: its sshd says who it is to whoever connects.

It costs a few packets, so a host that is away can be asked every few seconds, where ssh would take
a process and some kilobytes each time.
"""

from __future__ import annotations

import asyncio

from moorage.backends.ssh.connection import Connection

_WITHIN = 4.0
"""Seconds for the connection and the greeting: the kernel has asked three times by then."""
_GREETING = b"SSH-"


async def answers(connection: Connection) -> bool | None:
    """Does its sshd greet? None: it is reached through others, and cannot be asked like this."""
    place = await connection.resolved()
    if place is None:
        return None
    try:
        async with asyncio.timeout(_WITHIN):
            reader, writer = await asyncio.open_connection(*place)
            try:
                return await reader.readexactly(len(_GREETING)) == _GREETING
            finally:
                writer.close()
    except (OSError, EOFError):  # TimeoutError too
        return False
