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
from moorage.server.settings import Settings
from moorage.server.tokens import Kind

NODE_LABEL = "local"


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

    def tell(self, url: str, others: Sequence[str] = ()) -> None:
        """Write where this server is, how its user may talk to it, and where else."""
        address = {"url": url, "pid": os.getpid(), "token": self.secret, "others": list(others)}
        path = self.options.home / "server.json"
        tokens.write_secret(path, msgspec.json.encode(address).decode() + "\n")

    def withdraw(self) -> None:
        """The server ends."""
        (self.options.home / "server.json").unlink(missing_ok=True)


def settle(options: Options, version: str, now: float) -> Site:
    """Make the home, or enter it."""
    home = settings.make_private(options.home)
    directory = settings.make_private(home / "server")
    return Site(
        options=options,
        directory=directory,
        settings=settings.load(home),
        node_name=_remembered(directory / "node-name", options.node_name),
        id=_remembered(directory / "id", "") or _made(directory / "id"),
        user=_account(),
        secret=tokens.read_or_make(directory / "token", "user"),
        node_secret=tokens.read_or_make(home / "agent" / "token", "node"),
        version=version,
        started_at=now,
    )


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
