"""Where a client finds its server: the environment, else `server.json` in MOORAGE_HOME."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from moorage.errors import InvalidInput, Problem


class Address(Struct, frozen=True):
    """A server, and the token that it knows this user by."""

    url: str
    token: str
    pid: int | None = None
    """Process of the server that runs for this MOORAGE_HOME; None for one found by its URL."""
    others: tuple[str, ...] = ()
    """Where other servers on the same database are."""

    def __repr__(self) -> str:
        return f"Address({self.url!r}, pid={self.pid})"

    @property
    def place(self) -> str:
        """`127.0.0.1:41234`, for people."""
        return urlsplit(self.url).netloc


def home_directory(given: str | os.PathLike[str] | None = None) -> Path:
    """MOORAGE_HOME, absolute: the argument, else the variable, else `~/.moorage`."""
    chosen = given or os.environ.get("MOORAGE_HOME") or "~/.moorage"
    try:
        return Path(chosen).expanduser().absolute()
    except RuntimeError:
        raise InvalidInput(
            Problem(f"{chosen}: this user has no home", "set MOORAGE_HOME")
        ) from None


def from_environment() -> Address | None:
    """The server that `$MOORAGE_URL` names, if it is set."""
    url = os.environ.get("MOORAGE_URL")
    return checked(url, os.environ.get("MOORAGE_TOKEN", "")) if url else None


def checked(url: str, token: str) -> Address:
    """An address from its parts, of which the first may be several URLs with commas between;
    InvalidInput where one cannot be one."""
    first, *others = [_checked(one.strip()) for one in url.split(",") if one.strip()] or [
        _checked(url)
    ]
    return Address(first, token, others=tuple(others))


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput(
            Problem(f"{url!r} is not the URL of a server", "write http://HOST:PORT", "MOORAGE_URL")
        )
    return url.rstrip("/")


def from_home(home: Path) -> Address | None:
    """The server that last wrote `server.json` here, dead or alive; None where there is none."""
    try:
        written = (home / "server.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidInput(
            Problem(f"cannot be read: {error.strerror}", file=str(error.filename))
        ) from None
    try:
        return msgspec.json.decode(written, type=Address)
    except msgspec.DecodeError:
        return None  # cut short by a full disk or a crash: as good as no server


def is_alive(pid: int | None) -> bool:
    """Does a process of this user with this number exist?"""
    if pid is None:
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False  # a number that now belongs to somebody else's process is not our server
    return True
