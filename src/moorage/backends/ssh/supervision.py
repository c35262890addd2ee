"""Keeping an agent running on a host, replacing it, and taking it away."""

from __future__ import annotations

from typing import Any

import msgspec

from moorage.backends.ssh.connection import Connection
from moorage.backends.ssh.interface import Bundle, Enrolment, HostFacts
from moorage.backends.ssh.program import Program
from moorage.decoding import converted

SUPERVISE = Program("supervise", ("place", "install", "leftovers", "unit"))
DEADLINE = 90.0
"""Seconds: an agent and its supervisor may take 5 each to end, systemd more."""


class Plan(msgspec.Struct, frozen=True):
    """`plan.json` on the host: all that an agent is started with but its token."""

    node: str
    digest: str
    python: str
    urls: tuple[str, ...]
    options: tuple[str, ...]


async def start(
    connection: Connection, facts: HostFacts, bundle: Bundle, enrolment: Enrolment
) -> None:
    """See `Host.start`."""
    plan = Plan(enrolment.node, bundle.digest, facts.python, enrolment.urls, enrolment.options)
    await _call(
        connection,
        facts,
        "start",
        plan=msgspec.to_builtins(plan),
        token=enrolment.token,
        authority=enrolment.authority,
        others=enrolment.others,
    )


async def stop(connection: Connection, facts: HostFacts) -> None:
    """See `Host.stop`."""
    await _call(connection, facts, "stop")


async def remove(connection: Connection, facts: HostFacts) -> None:
    """See `Host.remove`."""
    await _call(connection, facts, "remove")


async def tail(connection: Connection, facts: HostFacts) -> list[str]:
    """See `Host.tail`."""
    answer = await _call(connection, facts, "tail")
    return converted(answer["lines"], list[str])


async def _call(
    connection: Connection, facts: HostFacts, action: str, **more: Any
) -> dict[str, Any]:
    answer: dict[str, Any] = await connection.call(
        SUPERVISE,
        {"action": action, "directory": facts.directory, "init": facts.init, **more},
        pythons=[facts.python or "python3"],
        privilege=facts.privilege,
        deadline=DEADLINE,
    )
    return answer
