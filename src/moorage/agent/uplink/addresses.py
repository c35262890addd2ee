"""Where servers of this node's cluster may be reached: those it was started with, then those that
the last server named, which are kept in a file for the next agent."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from moorage.trust import context, in_the_clear

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_MOST = 32
"""Addresses kept at most: a server that names thousands is broken."""


class Addresses:
    """A ring of addresses, of which one is tried at present. Changed on one thread; `known` may
    be read from any."""

    def __init__(self, given: Sequence[str], memory: Path, authority: Path | None = None) -> None:
        """`authority`: a file (PEM) of whom alone to trust on TLS; None: as the system does.
        ValueError where one of `given` cannot be an address."""
        for url in given:
            websocket_url(url)
        self._given = tuple(url.rstrip("/") for url in given)
        self._memory = memory
        self._authority = authority
        self._learned = self._remembered()
        self._present = self._given[0]

    @property
    def present(self) -> str:
        """The address to try now, or that is connected."""
        return self._present

    @property
    def owner(self) -> int | None:
        """The user, besides this one and root, who may listen on loopback for the server."""
        return None

    @property
    def known(self) -> tuple[str, ...]:
        """All, each once, the present one first."""
        return tuple(dict.fromkeys((self._present, *self._given, *self._learned)))

    @property
    def words(self) -> list[str]:
        """Arguments by which another process of this node finds the servers."""
        authority = ["--ca", str(self._authority)] if self._authority else []
        return ["--server", ",".join(self._given), *authority]

    def trust(self, url: str) -> ssl.SSLContext | None:
        """For a connection to a server; None for a plain one, as on loopback. ConnectionError
        where that would show the token to others, OSError where the authority cannot be read."""
        if in_the_clear(url):
            raise ConnectionRefusedError(
                "without TLS no token is sent to another machine; use its https address"
            )
        if urlsplit(url).scheme not in ("https", "wss"):
            return None
        return context(self._authority.read_text("ascii") if self._authority else "")

    def next(self) -> None:
        """The present one will not do: go on to the one after it."""
        ring = tuple(dict.fromkeys((*self._given, *self._learned)))
        place = ring.index(self._present) if self._present in ring else -1
        self._present = ring[(place + 1) % len(ring)]

    def follow(self, hint: str) -> bool:
        """A server named another one as its leader: try that next. False where that is no
        address, or the one that was just tried."""
        hint = hint.rstrip("/")
        if not _is_address(hint) or hint == self._present:
            return False
        self._present = hint
        return True

    def learn(self, named: Sequence[str]) -> None:
        """Replace what earlier servers named."""
        learned = tuple(url.rstrip("/") for url in named if _is_address(url))[:_MOST]
        if learned == self._learned:
            return
        self._learned = learned
        with suppress(OSError):  # a full disk is no reason to leave the server
            _write(self._memory, "".join(f"{url}\n" for url in learned))

    def _remembered(self) -> tuple[str, ...]:
        try:
            lines = self._memory.read_text().split()
        except (OSError, UnicodeError):
            return ()
        return tuple(line for line in lines if _is_address(line))[:_MOST]


def websocket_url(url: str) -> str:
    """`http://host:port` as the address that agents dial. ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise ValueError(f"{url!r} is no server address; write http://HOST:PORT")
    return f"{_SCHEMES[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}/v1/agent"


def _is_address(url: str) -> bool:
    try:
        websocket_url(url)
    except ValueError:
        return False
    return True


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
    partial.replace(path)
