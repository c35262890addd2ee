"""What stays the same of a server, whatever its role."""

from __future__ import annotations

import os
import pwd
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from moorage.server import settings, tokens
from moorage.server.options import Options
from moorage.server.places import OFF, parse
from moorage.server.settings import Settings
from moorage.server.tokens import Kind

NODE_LABEL = "local"


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a server listens."""

    url: str
    """On loopback, in the clear."""
    secure: tuple[str, ...] = ()
    """For other machines, with TLS."""
    ca: str = ""
    """Whom they trust for that (PEM); empty: what their systems trust."""

    @property
    def public(self) -> str:
        """What other servers and agents are told."""
        return next(iter(self.secure), self.url)


@dataclass(frozen=True, slots=True)
class Site:
    """One server's home and who it is."""

    options: Options
    directory: Path
    """`server/` in its home."""
    settings: Settings
    node_name: str
    """Of this machine's node, as it was once given; empty: the host's name."""
    id: str
    """Random; the same after a restart."""
    listen: tuple[str, ...]
    """Where others reach it, with TLS."""
    user: str
    """The account that the server runs as."""
    secret: str
    """The token of its user."""
    node_secret: str
    version: str
    started_at: float

    @property
    def holders(self) -> list[tuple[str, Kind, str]]:
        """Whom it lets in: token, kind, subject."""
        return [(self.secret, "user", self.user), (self.node_secret, "node", NODE_LABEL)]

    def tell(self, reach: Reach, others: Sequence[str] = ()) -> None:
        """Write where this server is, how its user may talk to it, and where else."""
        address = {
            "url": reach.url,
            "pid": os.getpid(),
            "token": self.secret,
            "others": list(others),
            "ca": reach.ca,
            "secure": list(reach.secure),
        }
        path = self.options.home / "server.json"
        tokens.write_secret(path, msgspec.json.encode(address).decode() + "\n")

    def withdraw(self) -> None:
        """The server ends."""
        (self.options.home / "server.json").unlink(missing_ok=True)


def settle(options: Options, version: str, now: float) -> Site:
    """Make the home, or enter it."""
    home = settings.make_private(options.home)
    directory = settings.make_private(home / "server")
    given = settings.load(home)
    return Site(
        options=options,
        directory=directory,
        settings=given,
        listen=_listening(directory / "listen", options.listen) or given.listen,
        node_name=_remembered(directory / "node-name", options.node_name),
        id=_remembered(directory / "id", "") or _made(directory / "id"),
        user=_account(),
        secret=tokens.read_or_make(directory / "token", "user"),
        node_secret=tokens.read_or_make(home / "agent" / "token", "node"),
        version=version,
        started_at=now,
    )


def _listening(memory: Path, given: Sequence[str]) -> tuple[str, ...]:
    """Where to listen, by the command line of this start or of the one before."""
    if OFF in given:
        memory.unlink(missing_ok=True)
        return ()
    parse(given)
    return tuple(_remembered(memory, "\n".join(given)).split())


def _remembered(path: Path, given: str) -> str:
    """What is given, and kept for the next start; else what was kept."""
    kept = ""
    with suppress(FileNotFoundError):
        kept = path.read_text("utf-8").strip()
    if given and given != kept:
        tokens.write_secret(path, given + "\n")
    return given or kept


def _made(path: Path) -> str:
    return _remembered(path, secrets.token_hex(8))


def _account() -> str:
    """The user's name; the number where it has none, as in many containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
