"""Programs for the other side: their texts, the request, and the command that takes them in."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moorage.backends.ssh.interface import HostProblem
from moorage.backends.ssh.onhost import frame

_PACKAGE = "moorage.backends.ssh.onhost"
_TAKE = "import sys; i = sys.stdin.buffer; exec(i.read(int(i.readline())))"
_NEW_ENOUGH = "import sys; sys.exit(sys.version_info < (3, 7))"
_PLAIN = re.compile(r"[A-Za-z0-9_./+~-]+")
_PLACES = "/usr/local/bin:/usr/bin:/bin:/opt/python/bin:/usr/local/sbin:/usr/sbin:/sbin"


_SUDO = {
    "": "s=",
    "root": "s=",
    "sudo": 's="sudo -n --"',
    "any": 's=; test $(id -u) = 0 || { sudo -n -- true 2>/dev/null && s="sudo -n --"; }',
}


@dataclass(frozen=True, slots=True)
class Program:
    """A module of `onhost` and those that it imports, in the order in which they are made."""

    name: str
    needs: tuple[str, ...] = ()

    def request(self, word: str, arguments: Mapping[str, Any]) -> bytes:
        """What standard input begins with; `word` begins the answer."""
        modules = {
            f"{_PACKAGE}.{name}": inspect.getsource(importlib.import_module(f"{_PACKAGE}.{name}"))
            for name in (*self.needs, self.name)
        }
        body = json.dumps(
            {
                "modules": modules,
                "main": f"{_PACKAGE}.{self.name}",
                "arguments": arguments,
                "word": word,
            }
        ).encode()
        first = f"{inspect.getsource(frame)}\nraise SystemExit(serve(sys.stdin.buffer))\n".encode()
        return b"%d\n%s%d\n%s" % (len(first), first, len(body), body)


def new_word() -> str:
    """What no login prints by itself."""
    return f"moorage-{secrets.token_hex(8)}"


def command(pythons: Sequence[str], privilege: str = "") -> str:
    """For a login shell of any kind (so without quotes in quotes, `!` or line ends): run the
    first of these interpreters that is new enough, with `sudo` where that is the privilege, and
    where it is `any`, if sudo works without a password."""
    for python in pythons:
        if not _PLAIN.fullmatch(python):
            raise HostProblem(f"the interpreter {python!r} has a name that no shell likes")
    return (
        f"exec /bin/sh -c 'echo; echo {frame.SHELL}; PATH=$PATH:{_PLACES}:$HOME/.local/bin; "
        f"{_SUDO[privilege]}; "
        f"for p in {' '.join(pythons)}; do q=$(command -v $p) && "
        f'"$q" -c "{_NEW_ENOUGH}" 2>/dev/null && exec $s "$q" -I -c "{_TAKE}"; done; '
        f"echo {frame.NO_PYTHON}'"
    )


def answer(word: str, out: str) -> Any | None:
    """What the program returned; None where it did not answer. HostProblem where it said that
    it could not."""
    for line in out.splitlines():
        if line.startswith(f"{word} "):
            reply = json.loads(line[len(word) + 1 :])
            if "problem" in reply:
                raise HostProblem(*reply["problem"][:2])
            return (reply["value"],)
    return None
