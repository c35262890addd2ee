"""Runs the system's git: no prompts, no settings leaking in from the caller, no secrets in
arguments or messages."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from moorage.data.stopping import run_program

_TIMEOUT = 3600.0
"""Seconds after which a clone is given up; a stalled one ends by git's own low-speed limit."""

_SETTINGS = {
    "safe.directory": "*",  # a volume may belong to somebody else; hooks are never run from it
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "gc.auto": "0",
    "advice.detachedHead": "false",
    "protocol.version": "2",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
}
_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=20 -o StrictHostKeyChecking=accept-new"


class GitError(Exception):
    """Git failed; the text is its last line of complaint, without credentials."""


def run(
    arguments: Sequence[str],
    directory: Path,
    *,
    settings: dict[str, str] | None = None,
    stdin: bytes | IO[bytes] = b"",
    stdout: IO[bytes] | None = None,
    users_settings: bool = True,
) -> bytes:
    """What `git ARGUMENTS` printed in `directory`; GitError where it failed or is not installed.

    `stdin`: bytes, or an open file; `users_settings`: read the user's own git configuration.
    """
    source: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    try:
        done = run_program(
            ["git", *arguments],
            cwd=directory,
            env=_environment({**_SETTINGS, **(settings or {})}, users_settings),
            **source,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=_TIMEOUT,
        )
    except FileNotFoundError:
        raise GitError("git is not installed; install it") from None
    except subprocess.TimeoutExpired:
        raise GitError(f"no end after {_TIMEOUT:.0f} s") from None
    if done.returncode:
        raise GitError(_complaint(done.stderr.decode(errors="replace"), arguments[0]))
    return done.stdout or b""


def ask(arguments: Sequence[str], directory: Path) -> str | None:
    """One line of answer, or None where git says no."""
    try:
        return run(arguments, directory).decode(errors="surrogateescape").rstrip("\n") or None
    except GitError:
        return None


def without_credentials(url: str) -> str:
    """The URL without password, and without user where that may be a token (http)."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    if user and parts.scheme not in ("http", "https"):
        host = f"{user}@{host}"
    return urlunsplit(parts._replace(netloc=host))


def credentials(url: str) -> dict[str, str]:
    """The settings that authenticate at an http(s) URL with a user or token in it: given to git
    by the environment, so that no argument list shows them."""
    parts = urlsplit(url)
    secret = parts.netloc.rpartition("@")[0]
    if parts.scheme not in ("http", "https") or not secret:
        return {}
    user, _, password = secret.partition(":")
    pair = f"{unquote(user)}:{unquote(password)}".encode()
    place = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "/", "", ""))
    header = f"Authorization: Basic {base64.b64encode(pair).decode()}"
    return {f"http.{place}.extraHeader": header}


def _environment(settings: dict[str, str], users_settings: bool) -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    for name in ("GIT_SSH_COMMAND", "GIT_SSH", "GIT_SSL_CAINFO", "GIT_SSL_NO_VERIFY"):
        if name in os.environ:
            environment[name] = os.environ[name]
    environment.setdefault("GIT_SSH_COMMAND", _SSH)
    environment |= {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "LC_ALL": "C",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    if not users_settings:
        environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    for number, (name, value) in enumerate(settings.items()):
        environment[f"GIT_CONFIG_KEY_{number}"] = name
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment


def _complaint(text: str, verb: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines[-1:]
    if not telling:
        return f"git {verb} failed"
    words = telling[0].partition(": ")[2] or telling[0]
    return " ".join(without_credentials(word) for word in words.split())
