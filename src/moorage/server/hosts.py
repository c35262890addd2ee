"""The work on hosts of fleets, as a chore of the server that leads."""

from __future__ import annotations

import asyncio
from functools import partial
from urllib.parse import urlsplit

from moorage.backends.ssh.bundle import Bundles
from moorage.backends.ssh.host import SshHost
from moorage.backends.ssh.interface import Bundle, Host, HostConfig, HostProblem
from moorage.core.effects import Effect, Write
from moorage.engine.loop import Engine
from moorage.engine.reconcile.hosts import AT_ONCE, Reconciler
from moorage.engine.reconcile.worker import Means
from moorage.errors import Unavailable
from moorage.server import tokens
from moorage.server.peers import Peers
from moorage.server.site import Reach, Site


async def tend_hosts(engine: Engine, site: Site, reach: Reach, peers: Peers | None) -> None:
    """Until cancelled. `reach`: where this server listens; `peers`: the others."""
    where = urlsplit(reach.url)
    identity = await _identity(engine, site)
    means = Means(
        reach=partial(_reach, site, identity),
        bundle=_Packer(site),
        server=(where.hostname or "127.0.0.1", where.port or 80),
        urls=partial(_secure, reach, peers),
        authority=reach.ca,
        slots=asyncio.Semaphore(AT_ONCE),
        options=(
            *("--log-limit", str(site.settings.log_limit)),
            *("--flush-timeout", str(site.settings.flush_timeout)),
        ),
    )
    await Reconciler(engine, means, _make_token).run()


async def _identity(engine: Engine, site: Site) -> str:
    """What keeps this database's agents apart from others' on the same host: the same for all
    servers of the database."""
    for row in engine.store.read("meta", {"key": "site"}):
        return str(row["value"])
    noted: list[Effect] = [Write("set_meta", {"key": "site", "value": site.id})]
    await engine.perform(lambda: noted)
    return site.id


def _secure(reach: Reach, peers: Peers | None) -> tuple[str, ...]:
    """Where hosts may dial a server: this one's addresses, then the others'."""
    others = peers.addresses if peers else ()
    secure = [*reach.secure, *(url for url in others if url.startswith("https://"))]
    return tuple(dict.fromkeys(secure))


def _reach(site: Site, identity: str, config: HostConfig) -> Host:
    return SshHost(config, identity, site.directory / "ssh")


def _make_token() -> tuple[str, str]:
    secret = tokens.make("node")
    return secret, tokens.digest(secret)


class _Packer:
    """Packs the agent once at a time, in a thread."""

    def __init__(self, site: Site) -> None:
        self._bundles = Bundles(site.options.home)
        self._one = asyncio.Lock()

    async def __call__(self) -> Bundle:
        async with self._one:
            try:
                return await asyncio.to_thread(self._bundles.make)
            except Unavailable as error:
                raise HostProblem(str(error), passing=True) from None
