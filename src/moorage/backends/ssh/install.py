"""The agent's files on a host."""

from __future__ import annotations

from moorage.backends.ssh.check import WANTED
from moorage.backends.ssh.connection import Connection, read_file
from moorage.backends.ssh.interface import Bundle, HostFacts, HostProblem
from moorage.backends.ssh.program import Program

INSTALL = Program("install", ("place",))
DEADLINE = 300.0
"""Seconds: two megabytes through a slow link, and a first import."""


async def install(connection: Connection, facts: HostFacts, bundle: Bundle) -> None:
    """See `Host.install`."""
    refuse(facts, bundle)
    await connection.call(
        INSTALL,
        {"directory": facts.directory, "digest": bundle.digest, "python": facts.python},
        pythons=[facts.python],
        privilege=facts.privilege,
        payload=read_file(bundle.path),
        deadline=DEADLINE,
    )


def refuse(facts: HostFacts, bundle: Bundle) -> None:
    """HostProblem where the bundle's compiled parts would not run there."""
    refusal = facts.refusal()
    if refusal is not None:
        raise refusal
    if facts.arch != bundle.arch:
        raise HostProblem(
            f"the host is {facts.arch}, the server's agent is built for {bundle.arch}",
            "hosts of another architecture need a server of their own for now",
        )
    kind, _, version = facts.libc.partition(" ")
    have = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if kind != "glibc" or have < bundle.glibc:
        wanted = ".".join(map(str, bundle.glibc))
        raise HostProblem(
            f"the agent's Python {WANTED} parts need glibc {wanted}, the host has "
            f"{facts.libc or 'an unknown libc'}",
            "use a newer distribution there",
        )
