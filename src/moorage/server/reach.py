"""Opening the addresses that other machines reach."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from moorage.server.places import Place, parse
from moorage.server.site import Reach, Site

if TYPE_CHECKING:
    from moorage.server.certificates import Certificates

CA_FILE = "ca.pem"
"""In the server's directory: what is trusted, for whoever is to connect from elsewhere."""

Authority = Callable[[Callable[[], str]], str]
"""What the database has, or the call makes."""


@asynccontextmanager
async def secured(
    site: Site, authority: Authority, application: ASGIApp, url: str
) -> AsyncIterator[Reach]:
    """Listen with TLS within the block wherever the site says. InvalidInput, Unavailable."""
    places = parse(site.listen)
    memory = site.directory / CA_FILE
    if not places:
        memory.unlink(missing_ok=True)
        yield Reach(url)
        return
    from moorage.server.secure import listen_secure

    certificates = await asyncio.to_thread(_certificates, site, places, authority)
    memory.write_text(certificates.ca)
    urls = tuple(dict.fromkeys(url for place in places for url in place.urls))
    async with AsyncExitStack() as stack:
        sockets: list[socket.socket] = []
        for place in places:
            for listening in place.bind():
                stack.callback(listening.close)
                sockets.append(listening)
        await stack.enter_async_context(listen_secure(application, sockets, certificates))
        yield Reach(url, urls, certificates.ca)


def _certificates(site: Site, places: list[Place], authority: Authority) -> Certificates:
    from moorage.server.authority import make_authority
    from moorage.server.certificates import Given, Own

    if (tls := site.settings.tls) is not None:
        home = site.options.home
        certificate, key, ca = (
            home / Path(name).expanduser() if name else None
            for name in (tls.certificate, tls.key, tls.ca)
        )
        assert certificate is not None
        assert key is not None
        return Given(certificate, key, ca)
    names = dict.fromkeys(host for place in places for host in place.hosts)
    kept = authority(lambda: make_authority(site.id, time.time()))
    return Own(kept, [*names, socket.gethostname(), "localhost", "127.0.0.1"])
