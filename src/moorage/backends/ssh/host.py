"""One host, as the rest of the server uses it: `Host` over the system's ssh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from moorage.backends.ssh import install, knock, supervision, tunnel
from moorage.backends.ssh.check import check
from moorage.backends.ssh.connection import Connection
from moorage.backends.ssh.interface import Bundle, Enrolment, HostConfig, HostFacts, Knocked


class SshHost:
    """Implements `Host`. Opens nothing until it is called."""

    def __init__(self, config: HostConfig, server: str, directory: Path) -> None:
        """`server`: the id of this server, a plain word, which keeps its agents apart from
        others' on the same host. `directory`: below the server's home; keeps the host keys that
        were accepted as new."""
        self.config = config
        self._server = server
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._connection = Connection(config, directory / "known_hosts")

    async def check(self, urls: Sequence[str] = (), authority: str = "") -> HostFacts:
        """See `Host.check`."""
        return await check(self._connection, self._server, urls, authority)

    async def install(self, facts: HostFacts, bundle: Bundle) -> None:
        """See `Host.install`."""
        await install.install(self._connection, facts, bundle)

    async def start(self, facts: HostFacts, bundle: Bundle, enrolment: Enrolment) -> None:
        """See `Host.start`."""
        await supervision.start(self._connection, facts, bundle, enrolment)

    async def stop(self, facts: HostFacts) -> None:
        """See `Host.stop`."""
        await supervision.stop(self._connection, facts)

    async def remove(self, facts: HostFacts) -> None:
        """See `Host.remove`."""
        await supervision.remove(self._connection, facts)

    async def tail(self, facts: HostFacts) -> list[str]:
        """See `Host.tail`."""
        return await supervision.tail(self._connection, facts)

    async def tunnel(
        self, facts: HostFacts, server: tuple[str, int], told: Callable[[str], None]
    ) -> None:
        """See `Host.tunnel`."""
        await tunnel.keep(self._connection, facts, server, told)

    async def answers(self) -> Knocked | None:
        """See `Host.answers`."""
        return await knock.answers(self._connection)

    async def close(self) -> None:
        """See `Host.close`."""
        await self._connection.close()
