"""The server through a tunnel that it leads to this host itself: the port is another one each
time, and stands in a file that the server's side writes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from moorage.agent.uplink.addresses import Addresses

_NONE = "http://127.0.0.1:0"
"""Where nobody can ever listen: connections are refused until there is a tunnel."""


class TunnelEnd(Addresses):
    """One address, read from the file whenever it is asked for. Other addresses that a server
    names are of no use: the host cannot reach them."""

    def __init__(self, file: Path) -> None:
        """The file holds the address and the user whose the listener is, if not this one's."""
        self._file = file

    @property
    def present(self) -> str:
        """See `Addresses`."""
        return self._read()[0]

    @property
    def owner(self) -> int | None:
        """See `Addresses`."""
        return self._read()[1]

    @property
    def known(self) -> tuple[str, ...]:
        """See `Addresses`."""
        return (self.present,)

    @property
    def words(self) -> list[str]:
        """See `Addresses`."""
        return ["--tunnel", str(self._file)]

    def next(self) -> None:
        """There is no other."""

    def follow(self, hint: str) -> bool:
        """There is no other."""
        return False

    def learn(self, named: Sequence[str]) -> None:
        """There is no other."""

    def _read(self) -> tuple[str, int | None]:
        with suppress(OSError, ValueError):
            url, *owner = self._file.read_text().split()
            if url.startswith("http://127.0.0.1:"):
                return url, int(owner[0]) if owner else None
        return _NONE, None
