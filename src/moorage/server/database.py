"""Which database a server uses: said on the command line, in the environment or in the settings,
else the one of the last time, so that no start ever opens an empty one beside it."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, urlsplit

from moorage.errors import InvalidInput, Problem
from moorage.server.tokens import write_secret

SQLITE = "sqlite"
"""The embedded database, as a choice."""
VARIABLE = "MOORAGE_DATABASE"
_SCHEMES = ("postgresql", "postgres")
_SECRET = frozenset({"password", "sslpassword"})
_FIX = "write postgresql://HOST/DATABASE, or sqlite"


def choose(given: str, environ: Mapping[str, str], configured: str, home: Path) -> str:
    """`sqlite`, or the URL of a PostgreSQL database. `given` is from the command line,
    `configured` from `config.yml`; empty ones say nothing. InvalidInput names the place."""
    if given:
        if _password(_checked(given, "--database")):
            raise InvalidInput(
                Problem(
                    "a password in --database can be read by every user of this machine",
                    f"use ~/.pgpass, PGPASSWORD, ${VARIABLE} or `database` in config.yml",
                    "--database",
                )
            )
        return given
    if chosen := environ.get(VARIABLE, ""):
        return _checked(chosen, f"${VARIABLE}")
    if configured:
        path = home / "config.yml"
        if _password(_checked(configured, "database", path)):
            _require_private(path)
        return configured
    memory = _memory(home)
    with suppress(FileNotFoundError):
        return _checked(memory.read_text("utf-8").strip(), "", memory)
    return SQLITE


def remember(home: Path, database: str) -> None:
    """Make this the choice of the next start that is told nothing."""
    with suppress(FileNotFoundError):
        if _memory(home).read_text("utf-8").strip() == database:
            return
    write_secret(_memory(home), database + "\n")


def shown(database: str) -> str:
    """A choice as people may see it: without a password or anything else of its kind."""
    if database == SQLITE:
        return SQLITE
    parts = _parts(database)
    user = f"{parts.user}@" if parts.user else ""
    return f"postgresql://{user}{parts.hosts}{parts.rest.path}"


def _memory(home: Path) -> Path:
    return home / "server" / "database"


def _checked(database: str, field: str, file: Path | None = None) -> str:
    """The text itself is never shown: it may hold a password."""
    if database == SQLITE:
        return database
    place = str(file or "")
    try:
        parts = _parts(database)
        for host in parts.hosts.split(","):
            _ = urlsplit(f"//{host}").port
    except ValueError:
        raise InvalidInput(Problem("not the URL of a database", _FIX, field, place)) from None
    if parts.scheme not in _SCHEMES:
        raise InvalidInput(Problem("neither sqlite nor a PostgreSQL URL", _FIX, field, place))
    return database


def _password(database: str) -> bool:
    parts = _parts(database)
    return bool(parts.password) or not _SECRET.isdisjoint(parse_qs(parts.rest.query))


class _Parts(NamedTuple):
    """Of a database's URL. `hosts`: one, or those of a cluster, with their ports, by commas;
    `rest`: path and query."""

    scheme: str
    user: str
    password: str
    hosts: str
    rest: SplitResult


def _parts(database: str) -> _Parts:
    """`urlsplit` of some versions of Python refuses several hosts where one is in brackets."""
    scheme, _, beyond = database.partition("://")
    authority = re.split("[/?#]", beyond, maxsplit=1)[0]
    account, _, hosts = authority.rpartition("@")
    user, _, password = account.partition(":")
    return _Parts(scheme, user, password, hosts, urlsplit(beyond[len(authority) :]))


def _require_private(path: Path) -> None:
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidInput(
            Problem(
                "it holds a password, and others may read it",
                f"run: chmod 0600 {path}",
                "database",
                str(path),
            )
        )
