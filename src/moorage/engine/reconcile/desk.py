"""What a worker knows and says of its host: the one way from the reconciler to the engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from moorage.backends.ssh.interface import HostConfig, HostFacts, Jump
from moorage.core import reactor
from moorage.core.effects import Effect, Write
from moorage.core.fleet import HostState, LiveHost
from moorage.core.node import Node
from moorage.core.reactor.drain import is_empty
from moorage.engine.loop import Engine
from moorage.specs.fleet import ENGINES

MakeToken = Callable[[], tuple[str, str]]
"""A new secret, and what the database keeps of it."""


class Desk:
    """One host, by the name of its node."""

    def __init__(self, engine: Engine, name: str, make_token: MakeToken) -> None:
        self._engine = engine
        self._make_token = make_token
        self.name = name

    @property
    def host(self) -> LiveHost | None:
        """As it should be and as far as it is; None once it is forgotten."""
        return self._engine.cluster.hosts_by_node.get(self.name)

    @property
    def engines(self) -> tuple[str, ...]:
        """What its fleet wants containers to be run by, the best first."""
        host = self.host
        fleet = self._engine.cluster.fleets.get(host.fleet) if host is not None else None
        return fleet.spec.engines if fleet is not None else ENGINES

    @property
    def docker(self) -> bool:
        """Whether its fleet lets jobs have Docker daemons."""
        host = self.host
        fleet = self._engine.cluster.fleets.get(host.fleet) if host is not None else None
        return fleet is not None and fleet.spec.docker

    @property
    def node(self) -> Node | None:
        """Its node; None before the first time that its agent connected."""
        host = self.host
        if host is None or host.node is None:
            return None
        return self._engine.cluster.nodes[host.node]

    @property
    def others(self) -> tuple[str, ...]:
        """The nodes of all other hosts."""
        return tuple(name for name in self._engine.cluster.hosts_by_node if name != self.name)

    @property
    def is_up(self) -> bool:
        """Is its agent connected?"""
        node = self.node
        return node is not None and node.up

    @property
    def is_leaving(self) -> bool:
        """Shall it go, or is it gone?"""
        host = self.host
        return host is None or host.state == "leaving"

    @property
    def is_empty(self) -> bool:
        """Is there no job that would be lost with it?"""
        node = self.node
        return node is None or is_empty(node)

    @property
    def jobs(self) -> int:
        """How many hold something there."""
        node = self.node
        return 0 if node is None else len(node.claims)

    async def tell(
        self,
        state: HostState,
        message: str = "",
        fix: str = "",
        facts: HostFacts | None = None,
    ) -> None:
        """How far it is; kept from a host that leaves, of which only the message changes."""
        host = self.host
        if host is None:
            return
        known = None if facts is None else msgspec.json.encode(facts).decode()
        shown: HostState = "leaving" if host.state == "leaving" else state
        now = self._engine.clock()
        decide = partial(
            reactor.on_host,
            self._engine.cluster,
            host,
            shown,
            now,
            message=message,
            fix=fix,
            facts=known,
            stuck=shown != state and state in ("failed", "unreachable"),
        )
        await self._engine.perform(decide)

    async def forget(self) -> None:
        """Nothing of it is left."""
        host = self.host
        if host is not None:
            now = self._engine.clock()
            gone = partial(reactor.on_host_gone, self._engine.cluster, host, now)
            await self._engine.perform(gone)

    async def new_token(self) -> tuple[str, str]:
        """A token for its agent, which is valid on return, and its hash."""
        secret, digest = self._make_token()
        params = {
            "hash": digest,
            "kind": "node",
            "subject": self.name,
            "created_at": self._engine.clock(),
            "server": "",
        }
        await self._write("insert_token", params)
        return secret, digest

    async def end_older_tokens(self, digest: str) -> None:
        """The agent has this one now."""
        await self._write("delete_older_node_tokens", {"subject": self.name, "hash": digest})

    async def _write(self, query: str, params: dict[str, object]) -> None:
        effects: list[Effect] = [Write(query, params)]
        await self._engine.perform(lambda: effects)


def config_of(host: LiveHost) -> HostConfig:
    """As the backend reads it."""
    spec = host.spec
    return HostConfig(
        fleet=host.fleet,
        num=host.num,
        hostname=spec.hostname,
        port=spec.port,
        user=spec.user,
        identity_file=spec.identity_file,
        jumps=tuple(Jump(j.hostname, j.port, j.user, j.identity_file) for j in spec.jumps),
        network=spec.network,
        internal_ip=spec.internal_ip,
        host_key=spec.host_key,
    )
