"""What ssh is told about a host: a file of its own per host, which then includes the user's, so
that aliases, agents, hardware keys and known hosts go on to count."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from moorage.backends.ssh.interface import HostConfig, HostProblem, Jump

CONNECT_TIMEOUT = 10
"""Seconds for one TCP connection and the greeting of the other side, with all on the way there."""
JUMP_TIMEOUT, PER_JUMP = 7, 2
"""The same for the first host on the way, and how much more for each after it: so that the ssh to
the host that is silent gives up first, and can be told from those behind it."""
ALIVE_INTERVAL = 5
ALIVE_COUNT = 3
"""Times ALIVE_INTERVAL without an answer until a connection counts as broken."""
PERSIST = 60
"""Seconds that an unused shared connection stays, also after a server that was killed."""
_NAME = re.compile(r"[A-Za-z0-9_.:%-]+")
_SECTION = """\
Host {names}
{lines}
"""
_ALL = {
    "BatchMode": "yes",
    "LogLevel": "ERROR",
    "ConnectionAttempts": 1,
    "RequestTTY": "no",
    "RemoteCommand": "none",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ClearAllForwardings": "no",
    "PermitLocalCommand": "no",
    "EscapeChar": "none",
    "UpdateHostKeys": "no",
    "VisualHostKey": "no",
}
_KEY_RULE = {"strict": "yes", "accept-new": "accept-new"}


def target(config: HostConfig) -> str:
    """The name by which ssh is told to go there."""
    return config.hostname


def config_text(config: HostConfig, sockets: Path, known: Path) -> str:
    """An ssh configuration file; ssh takes the first value that it finds for an option.
    `sockets` is where the shared connection's socket goes, `known` the file for keys that were
    accepted as new. HostProblem for what cannot be written there."""
    names = _aliases(config)
    rule: dict[str, object] = {
        "StrictHostKeyChecking": _KEY_RULE[config.host_key],
        "ConnectTimeout": max(CONNECT_TIMEOUT, _patience(len(config.jumps))),
        "ServerAliveInterval": ALIVE_INTERVAL,
        "ServerAliveCountMax": ALIVE_COUNT,
        "UserKnownHostsFile": f"{_quoted(str(known))} ~/.ssh/known_hosts ~/.ssh/known_hosts2",
    }
    sections = []
    before = ""
    for place, (jump, name) in enumerate(zip(config.jumps, names, strict=True)):
        own = _place(jump.hostname, jump.port, jump.user, jump.identity_file, before)
        # Its words are asked for only when something is wrong; why it cannot go on to the next
        # host is among those that are no errors to it.
        quiet: dict[str, object] = {
            "ControlMaster": "no",
            "ControlPath": "none",
            "LogLevel": "INFO",
            "ConnectTimeout": _patience(place),
        }
        if name != jump.hostname:
            own["HostName"] = jump.hostname
        sections.append(_section(name, {**own, **quiet}))
        before = name
    last = _place(config.hostname, config.port, config.user, config.identity_file, before)
    if not config.jumps:
        del last["ProxyJump"]  # the user's own way there, if there is one
    shared = {
        "ControlMaster": "auto",
        "ControlPath": _quoted(str(sockets / "%C")),
        "ControlPersist": PERSIST,
    }
    sections.append(_section(target(config), {**last, **shared}))
    sections.append(_section("*", {**rule, **_ALL}))
    sections.append(
        "Host *\nInclude ~/.ssh/config\nHost *\nInclude /etc/ssh/ssh_config\n",
    )
    return "".join(sections)


def _patience(place: int) -> int:
    return JUMP_TIMEOUT + PER_JUMP * place


def write_config(config: HostConfig, directory: Path, known: Path) -> Path:
    """The file for `ssh -F`, readable by its owner only."""
    text = config_text(config, directory, known)
    path = directory / "config"
    partial = directory / f"config.{os.getpid()}"
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)
    return path


def check_keys(config: HostConfig) -> None:
    """HostProblem for an identity file that ssh would pass over with a warning or without."""
    for name in (config.identity_file, *(jump.identity_file for jump in config.jumps)):
        if name:
            _check_key(Path(name).expanduser())


def _check_key(path: Path) -> None:
    try:
        mode = path.stat().st_mode
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise HostProblem(
            f"the key file {path} does not exist on the server's machine",
            "correct identity_file",
        ) from None
    except OSError as error:
        raise HostProblem(
            f"the key file {path} cannot be read by the server: {error.strerror}",
            f"give its account the right, or name another identity_file (uid {os.geteuid()})",
        ) from None
    if mode & 0o077:
        raise HostProblem(
            f"the key file {path} may be read by others (mode {mode & 0o777:04o}), "
            "and ssh does not use it",
            f"chmod 600 {path}",
        )


def _aliases(config: HostConfig) -> list[str]:
    """A name for each host on the way: its own, so that the user's sections for it count, unless
    that is another one's too."""
    taken = [config.hostname, *(jump.hostname for jump in config.jumps)]
    return [
        f"moorage-jump-{place}" if taken.count(jump.hostname) > 1 else jump.hostname
        for place, jump in enumerate(config.jumps)
    ]


def _place(host: str, port: int, user: str, identity: str, jump: str) -> dict[str, object]:
    lines: dict[str, object] = {"ProxyJump": jump or "none"}
    for name in (host, *([user] if user else [])):
        if not _NAME.fullmatch(name) or name.startswith("-"):
            raise HostProblem(f"{name!r} is no name of a host or user", "correct it")
    if user:
        lines["User"] = user
    if port:
        lines["Port"] = port
    if identity:
        lines["IdentityFile"] = _quoted(str(Path(identity).expanduser()))
        lines["IdentitiesOnly"] = "yes"
    return lines


def _section(name: str, options: dict[str, object]) -> str:
    lines = "\n".join(f"    {key} {value}" for key, value in options.items())
    return _SECTION.format(names=name, lines=lines)


def _quoted(path: str) -> str:
    if any(sign in path for sign in '"\n\0'):
        raise HostProblem(f"ssh cannot be told of the path {path!r}", "give it a plain name")
    return f'"{path}"'


def way(config: HostConfig) -> Sequence[HostConfig | Jump]:
    """All hosts on the way, the last one included."""
    return (*config.jumps, config)
