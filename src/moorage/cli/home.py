"""Where a client finds its server: the environment, else `server.json` in MOORAGE_HOME."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from moorage.decoding import from_json
from moorage.errors import InvalidInput, Problem

CONNECTION = "connection.json"
"""In a home: the server elsewhere that it uses."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Address(Struct, frozen=True):
    """A server, and the token that it knows this user by."""

    url: str
    token: str
    pid: int | None = None
    """Process of the server that runs for this MOORAGE_HOME; None for one found by its URL."""
    others: tuple[str, ...] = ()
    """Where other servers on the same database are."""
    ca: str = ""
    """Whose certificates they show (PEM); empty: what this system trusts."""
    secure: tuple[str, ...] = ()
    """Where other machines reach this home's own server."""

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


def elsewhere(home: Path | None = None) -> Address | None:
    """The server that `$MOORAGE_URL` names, else the one that this home is connected to; None
    where it is a server of this machine."""
    url = os.environ.get("MOORAGE_URL")
    if url:
        return checked(url, os.environ.get("MOORAGE_TOKEN", ""))
    return _read((home or home_directory()) / CONNECTION)


def authority(path: str | None) -> str:
    """The certificate in the file, or in that which `$MOORAGE_CA` names; empty where neither is
    given. InvalidInput where it cannot be read."""
    chosen = path or os.environ.get("MOORAGE_CA")
    if not chosen:
        return ""
    place = "MOORAGE_CA" if path is None else "--ca"
    fix = "name a file that `moorage server ca` printed on the server's machine"
    try:
        text = Path(chosen).expanduser().read_text("ascii")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise InvalidInput(Problem(f"{chosen} cannot be read: {why}", fix, place)) from None
    if "-----BEGIN CERTIFICATE-----" not in text or "PRIVATE KEY" in text:
        raise InvalidInput(Problem(f"{chosen} is no certificate (PEM)", fix, place))
    return text


def checked(url: str, token: str, ca: str | None = None) -> Address:
    """An address from its parts, of which the first may be several URLs with commas between;
    `ca`: a certificate, else that of `$MOORAGE_CA`. InvalidInput where one cannot be one."""
    first, *others = [_checked(one.strip()) for one in url.split(",") if one.strip()] or [
        _checked(url)
    ]
    known = authority(None) if ca is None else ca
    return Address(first, token, others=tuple(others), ca=known)


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput(
            Problem(
                f"{url!r} is not the URL of a server", "write https://HOST:PORT", "MOORAGE_URL"
            )
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise InvalidInput(
            Problem(
                f"{url} would show your token to everybody on the way",
                "use the https address of the server (moorage server start --listen), or a "
                "tunnel: ssh -L",
                "MOORAGE_URL",
            )
        )
    return url.rstrip("/")


def from_home(home: Path) -> Address | None:
    """The server that last wrote `server.json` here, dead or alive; None where there is none."""
    return _read(home / "server.json")


def _read(path: Path) -> Address | None:
    try:
        written = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidInput(
            Problem(f"cannot be read: {error.strerror}", file=str(error.filename))
        ) from None
    try:
        return from_json(written, Address)
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
