"""Which command lines mean no more than their words, so that no shell is needed to run them.

Whatever is not plainly such a line is the shell's: a wrong no costs a millisecond, a wrong yes
would change what a job does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

_PIECE = re.compile(
    r"""
      (?P<plain> [A-Za-z0-9_./,:+@%^=-]+ )
    | ' (?P<single> [^'\x00-\x08\x0b-\x1f\x7f]* ) '
    | " (?P<double> [^"$`\\!\x00-\x08\x0b-\x1f\x7f]* ) "
    | (?P<gap> [ \t]+ )
    """,
    re.VERBOSE,
)
_RESERVED = """if then else elif fi case esac for select while until do done in function time
coproc"""
_BUILTIN = """. : [ alias bg bind break builtin caller cd command compgen complete compopt continue
declare dirs disown enable eval exec exit export fc fg getopts hash help history jobs kill let
local logout mapfile popd printf pushd pwd read readarray readonly return set shift shopt source
suspend test times trap type typeset ulimit umask unalias unset wait"""
"""Those that are programs too are left out where both do the same."""
_LEADER = re.compile(r"(.*/)?setsid")
"""Forks where it leads its process group, which under a shell it does not, and is not waited for.
Other programs may be told to execute it (`env setsid a`)."""
_SHELL_S_OWN = frozenset(f"{_RESERVED} {_BUILTIN}".split())
_MARKS = "%-"
"""What names a job, or an option, where a program's name is expected."""
_ALSO_PROGRAMS = frozenset({"true", "false"})
"""Builtins that do as the programs do, as long as they have no arguments."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MEANT_FOR_SHELLS = re.compile(
    r"BASH.*|COMP_.*|DIRSTACK|ENV|EPOCH.*|E?UID|EXECIGNORE|FUNC.*|GLOB.*|GROUPS|HIST.*|HOST.*|IFS"
    r"|LC_.*|LANGUAGE|LINENO|MACHTYPE|OLDPWD|OPT.*|OSTYPE|PIPESTATUS|POSIXLY_CORRECT|PPID|PROMPT.*"
    r"|PS[0-4]|PWD|RANDOM|READLINE.*|SECONDS|SHELLOPTS|SHLVL|SRANDOM|TIMEFORMAT|TMOUT|_"
)
"""Variables that a shell would act on, complain about, change or hide."""


def plain(command: str) -> list[str] | None:
    """The words of a command that is a program's name and literal arguments; None for all else."""
    words = _split(command)
    if not words or not words[0] or "=" in words[0] or words[0] in _SHELL_S_OWN:
        return None
    if words[0][0] in _MARKS or any(map(_LEADER.fullmatch, words)):
        return None
    if words[0] in _ALSO_PROGRAMS and len(words) > 1:
        return None
    if words[0] == "echo" and "-" in {word[:1] for word in words[1:]}:
        return None
    return words


def _split(command: str) -> list[str] | None:
    words: list[str] = []
    text, place = command.strip(" \t\n"), 0
    joined = False  # to the piece before, as in a'b'"c"
    while place < len(text):
        found = _PIECE.match(text, place)
        if found is None:
            return None
        place = found.end()
        if found.lastgroup == "gap":
            joined = False
            continue
        piece = found[found.lastgroup or 0]
        if joined:
            words[-1] += piece
        else:
            words.append(piece)
        joined = True
    if not all(word.isascii() or _is_text(word) for word in words):
        return None
    return words


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def undisturbed(env: Mapping[str, str]) -> bool:
    """Whether a shell would hand these variables on as they are."""
    return "PATH" in env and _are_undisturbed(tuple(env))


@lru_cache(maxsize=64)
def _are_undisturbed(names: tuple[str, ...]) -> bool:
    return all(_NAME.fullmatch(name) and not _MEANT_FOR_SHELLS.fullmatch(name) for name in names)
