"""Settings of the server: `config.yml` in MOORAGE_HOME, all optional."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import Meta, Struct

from moorage.decoding import converted
from moorage.errors import InvalidInput, Problem, Unavailable
from moorage.specs.fleet import ENGINES, EngineName
from moorage.store.leader import LEASE
from moorage.units import BadValue, duration_text, parse_duration, parse_limit, parse_size

DAY = 86_400.0

Amount = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""As many as a column of the database can hold."""


class Tls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operator's own certificate: paths of PEM files."""

    certificate: str
    """The server's, then those between it and its authority."""
    key: str
    ca: str = ""
    """Of the authority that agents and clients are to trust; empty: what their systems trust."""


class Settings(Struct, frozen=True, kw_only=True):
    """What `config.yml` may set. A key that is not here is an error."""

    upload_limit: Amount = 0
    """Bytes that one uploaded file may have; 0: no limit but the disk."""
    blob_grace: Annotated[float, Meta(ge=7200)] = DAY
    """Seconds that a blob which no run names is kept. Two hours at least: the store notes once an
    hour that a blob is relied on, and an upload must last until its submit."""
    log_limit: Amount = 1_000_000_000
    """Bytes of output kept for one attempt; 0: no limit."""
    listen: tuple[str, ...] = ()
    """Where to listen besides loopback, with TLS: `ADDRESS[:PORT]`."""
    tls: Tls | None = None
    """None: a certificate of the server's own authority."""
    database: str = ""
    """`sqlite`, or the URL of a PostgreSQL database; empty: what was used the last time."""
    leader_lease: Annotated[float, Meta(ge=0.5)] = LEASE
    """Seconds without a sign of life after which another server takes the leader's place."""
    default_store: str = ""
    """Where `name:` without `store:` goes: a declared store or a kind; empty: the only declared
    store, else moorage's own."""
    secrets_key_file: str = ""
    """File with the key of the stores' secrets; empty: `server/secrets.key`. Servers that share a
    database share it. MOORAGE_SECRETS_KEY_FILE comes before it."""
    engines: Annotated[tuple[EngineName, ...], Meta(min_length=1)] = ENGINES
    """What runs containers on the server's own machine: the first that works there."""
    docker: bool = False
    """Whether jobs on the server's own machine may have a Docker daemon of their own."""
    node_lease: Annotated[float, Meta(ge=1)] = 30.0
    """Seconds without a sign of life after which a node is lost: `on_node_loss` says what becomes
    of its jobs."""
    flush_timeout: Annotated[float, Meta(ge=1)] = 3600.0
    """Seconds without a byte that moves after which a flush of a bucket is given up, where the
    mount's own `flush_timeout` does not say."""
    run_retention: Annotated[float, Meta(ge=0)] = 90 * DAY
    """Seconds that a finished run is kept, with its output; 0: for ever."""
    run_limit: Amount = 100_000
    """Finished runs that are kept, the newest; 0: all."""
    schedule_jobs: Amount = 100
    """Finished jobs that are kept of one schedule, the newest, for as long as runs are; 0: all."""
    event_retention: Annotated[float, Meta(ge=0)] = 30 * DAY
    """Seconds that events are kept, whatever they are about; 0: for ever."""
    event_limit: Amount = 1_000_000
    """Events that are kept, the newest; 0: all."""
    request_retention: Annotated[float, Meta(ge=0)] = 7 * DAY
    """Seconds in which a repeated submit gets the first answer; 0: for ever."""
    output_retention: Annotated[float, Meta(ge=0)] = 0.0
    """Seconds that nodes keep the output of finished attempts; 0: as long as the run is known."""
    output_limit: Amount = 50 * 1024**3
    """Bytes of output of finished attempts on one node, the newest; 0: no limit."""
    blob_limit: Amount = 0
    """Bytes of uploaded content beyond which what no run names goes before its grace is over
    (never within two hours); 0: no limit but the disk."""


def _size(value: object) -> object:
    """Bytes; `off` (to YAML the same as `false`) means no limit."""
    if value is False:
        return 0
    if isinstance(value, str):
        return 0 if value == "off" else parse_size(value, "B")
    return value


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _as_is(value: object) -> object:
    return value


def _listed(value: object) -> object:
    """One text or several."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise BadValue(str(value), "a list")
    return tuple(value)


def _engines(value: object) -> object:
    return _listed(value)


def _flag(value: object) -> object:
    return value


def _mapped(value: object) -> object:
    if not isinstance(value, dict):
        raise BadValue(str(value), "a mapping")
    return value


def _count(value: object) -> object:
    """A number; `off` means all."""
    return 0 if value is False or value == "off" else value


def _period(value: object) -> object:
    """As _duration; `off` means for ever."""
    if value is False:
        return 0.0
    return (parse_limit(value) or 0.0) if isinstance(value, str) else value


EXPECTED: Mapping[Callable[[object], object], str] = MappingProxyType(
    {
        _size: "a size such as 512MB, 24GB or 1.5TB, or off",
        _duration: "a duration such as 90s, 45m, 1h30m or 2d",
        _period: "a duration such as 90s, 45m, 1h30m or 2d, or off",
        _count: "a whole number, or off",
        _as_is: "a text",
        _listed: "an address such as 10.0.0.5:7321, or a list of some",
        _engines: f"one of {', '.join(ENGINES)}, apptainer, or a list of some",
        _flag: "true or false",
        _mapped: "a mapping of certificate, key and perhaps ca, which are paths",
    }
)

READERS: Mapping[str, Callable[[object], object]] = MappingProxyType(
    {
        "upload_limit": _size,
        "blob_grace": _duration,
        "blob_limit": _size,
        "log_limit": _size,
        "flush_timeout": _duration,
        "run_retention": _period,
        "run_limit": _count,
        "schedule_jobs": _count,
        "event_retention": _period,
        "event_limit": _count,
        "request_retention": _period,
        "output_retention": _period,
        "output_limit": _size,
        "listen": _listed,
        "tls": _mapped,
        "database": _as_is,
        "default_store": _as_is,
        "secrets_key_file": _as_is,
        "engines": _engines,
        "docker": _flag,
        "leader_lease": _duration,
        "node_lease": _duration,
    }
)
"""How the text of each setting is read; numbers are bytes and seconds."""


KINDS: Mapping[str, Any] = MappingProxyType(get_type_hints(Settings, include_extras=True))
"""Type and bounds of each setting."""


def home_directory(given: str | None = None) -> Path:
    """MOORAGE_HOME, absolute: the argument, else the variable, else `~/.moorage`."""
    chosen = given or os.environ.get("MOORAGE_HOME") or "~/.moorage"
    try:
        return Path(chosen).expanduser().absolute()
    except RuntimeError:
        raise InvalidInput(
            Problem(f"{chosen}: this user has no home", "set MOORAGE_HOME")
        ) from None


def make_private(directory: Path) -> Path:
    """Create a directory that only its owner can enter; an existing one is left as it is, and
    Unavailable where others could put things in it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid != os.geteuid():
        raise Unavailable(f"{directory} belongs to user {found.st_uid}; set MOORAGE_HOME")
    if found.st_mode & stat.S_IWOTH:
        if found.st_mode & stat.S_ISVTX:  # as /tmp, which others need as it is
            raise Unavailable(
                f"{directory} is for all users; set MOORAGE_HOME to a place below it"
            )
        raise Unavailable(f"every user may write to {directory}; run: chmod 0700 {directory}")
    return directory


def load(home: Path) -> Settings:
    """The settings of a home; defaults where there is no file. InvalidInput names the key."""
    path = home / "config.yml"
    if not path.exists():
        return Settings()
    document = _parsed(path)
    if unknown := [str(key) for key in document if key not in READERS]:
        raise InvalidInput(*(_unknown(key, str(path)) for key in unknown))
    read: dict[str, object] = {}
    wrong = []
    for key, value in document.items():
        try:
            read[key] = converted(READERS[key](value), KINDS[key])
        except (BadValue, msgspec.ValidationError):
            wrong.append(Problem(_reason(key, value), file=str(path), field=key))
    if wrong:
        raise InvalidInput(*wrong)
    return converted(read, Settings)


def _parsed(path: Path) -> dict[str, object]:
    import yaml  # only where there is a file: 30 ms of a cold start

    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text) or {}
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise InvalidInput(Problem(reason, "make it a file of yours", file=str(path))) from None
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start + 1})"
        raise InvalidInput(Problem(reason, "save it as UTF-8", file=str(path))) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(Problem(f"not YAML: {reason}", file=str(path))) from None
    if not isinstance(document, dict):
        raise InvalidInput(Problem("must be a mapping of settings", file=str(path)))
    keys = [str(key.value) for key, _ in node.value] if node and document else []
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        problems = (Problem("set twice", "keep one", key, str(path)) for key in twice)
        raise InvalidInput(*problems)
    return document


def _reason(key: str, value: object) -> str:
    """Why a value is refused. That of `database` is not shown: it may hold a password."""
    expected = EXPECTED[READERS[key]]
    if READERS[key] is _as_is:
        return f"not {expected}"
    if value is None or isinstance(value, bool | list | dict):
        return f"{json.dumps(value)} is not {expected}"
    with suppress(BadValue):
        if bound := _bound(key, READERS[key](value)):
            return f"{value} is {bound}"
    return f"{value!r} is not {expected}"


def _bound(key: str, number: object) -> str:
    """Which bound of its setting a number breaks, if any."""
    (meta,) = KINDS[key].__metadata__
    if not isinstance(number, int | float):
        return ""
    if number < meta.ge:
        least = duration_text(meta.ge) if READERS[key] in (_duration, _period) else meta.ge
        return f"less than {least}"
    return f"more than {meta.le}" if meta.le is not None and number > meta.le else ""


def _unknown(key: str, file: str) -> Problem:
    nearest = get_close_matches(key, READERS, n=1)
    fix = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(READERS)}"
    return Problem(f"there is no setting {key!r}", fix, file=file)
