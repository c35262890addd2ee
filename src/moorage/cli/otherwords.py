"""Verbs by the names that other tools give them. Imported only for a word that is none here."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from types import MappingProxyType

_VERBS = MappingProxyType(
    {
        "cancel": "stop",
        "cp": "storage cp",
        "describe": "show",
        "down": "stop",
        "get": "show",
        "help": "--help",
        "info": "show",
        "inspect": "show",
        "jobs": "ps",
        "kill": "stop -x",
        "launch": "apply -f FILE",
        "list": "ps",
        "log": "logs",
        "login": "server connect",
        "ls": "ps",
        "nodes": "node ls",
        "queue": "ps",
        "remove": "delete",
        "rm": "delete",
        "sbatch": "apply -f FILE",
        "scancel": "stop",
        "sinfo": "node ls",
        "squeue": "ps",
        "srun": "run -- CMD",
        "start": "apply -f FILE",
        "status": "ps",
        "submit": "apply -f FILE",
        "tail": "logs -f",
        "top": "ps -w",
        "up": "apply -f FILE",
        "version": "--version",
    }
)
_COMMANDS = MappingProxyType(
    {
        "add": ("create", "add"),
        "describe": ("show",),
        "info": ("show",),
        "inspect": ("show",),
        "list": ("ls",),
        "new": ("create", "add"),
        "ps": ("ls",),
        "remove": ("delete",),
        "rm": ("delete",),
        "status": ("show",),
    }
)
"""Of a verb with commands of its own."""


def verb(word: str, verbs: Iterable[str]) -> str:
    """What somebody means who writes `word` for a verb; empty where nobody knows."""
    close = get_close_matches(word, verbs, n=1, cutoff=0.6)
    return _VERBS.get(word.lower()) or "".join(close)


def command(word: str, commands: Iterable[str]) -> str:
    """The same, of a verb that has these commands."""
    known = [*commands]
    for name in _COMMANDS.get(word.lower(), ()):
        if name in known:
            return name
    return "".join(get_close_matches(word, known, n=1, cutoff=0.6))
