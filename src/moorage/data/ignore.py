"""Which files of a directory are not uploaded: git's rules, exactly, from whichever ignore files
there are.

In each directory the first of these counts: `.moorageignore`; `.dstackignore` after `.gitignore`
(dstack reads both, the own file has the last word); `.skyignore`; `.gitignore`. Files of deeper
directories have the last word. Above the directory that is uploaded, the ignore files up to the
top of its git checkout count too; `.git/info/exclude` and a user's global excludes do not, so that
two users upload the same. `.git` is never uploaded.

As in git, rules work on bytes, an ignored directory is not entered (nothing below it can be taken
back), and an ignore file that is a link is not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from moorage.data.wildmatch import Pattern, parse

_OWN: tuple[tuple[bytes, ...], ...] = (
    (b".moorageignore",),
    (b".gitignore", b".dstackignore"),
    (b".skyignore",),
    (b".gitignore",),
)
_NAMES = (b".moorageignore", b".dstackignore", b".skyignore", b".gitignore")
_BOM = b"\xef\xbb\xbf"

_Search = Callable[[bytes], object]


class _Run(NamedTuple):
    """Neighbouring patterns of the same sign, which may therefore be tried in any order; for one
    kind of entry (directories, or everything else)."""

    negated: bool
    names: frozenset[bytes]
    suffixes: tuple[bytes, ...]
    name: _Search | None
    path: _Search | None

    def matches(self, name: bytes, path: bytes) -> bool:
        return (
            name in self.names
            or name.endswith(self.suffixes)
            or (self.name is not None and self.name(name) is not None)
            or (self.path is not None and self.path(path) is not None)
        )


class _Rules(NamedTuple):
    """The rules of one directory, last first; `base` is the length of its path with the slash."""

    base: int
    files: list[_Run]
    directories: list[_Run]


class Level:
    """The rules in force in one directory. `path`s are bytes relative to the place where the
    outermost ignore file lies; `enter` gives the level of a directory below."""

    def __init__(self, rules: tuple[_Rules, ...], prefix: bytes) -> None:
        self._rules = rules
        self._prefix = prefix

    def ignores(self, name: bytes, directory: bool) -> bool:
        """Is the entry `name` of this directory left out?"""
        if name == b".git":
            return True
        path = self._prefix + name
        for rules in self._rules:
            for run in rules.directories if directory else rules.files:
                if run.matches(name, path[rules.base :]):
                    return not run.negated
        return False

    def enter(self, name: bytes, patterns: list[Pattern]) -> Level:
        """The level of the directory `name`, which holds these patterns itself; the outermost
        directory has no name."""
        prefix = self._prefix + name + b"/" if name else b""
        if not patterns:
            return Level(self._rules, prefix)
        return Level((_compile(patterns, len(prefix)), *self._rules), prefix)


EMPTY = Level((), b"")
"""No rules at all; a path's first directory is entered with an empty name."""


def own_patterns(directory: bytes) -> list[Pattern]:
    """The patterns of a directory without its `.gitignore`, for where git itself applies that."""
    return read(directory, [name for name in _present(directory) if name != b".gitignore"])


def start(root: str) -> Level:
    """The level of the directory `root` itself, ignore files above it included."""
    above = _above(os.fsencode(os.path.realpath(root)))
    level = EMPTY
    for position, directory in enumerate(above):
        name = os.path.basename(directory) if position else b""
        level = level.enter(name, read(directory, _present(directory)))
    return level


def read(directory: bytes, names: Iterable[bytes]) -> list[Pattern]:
    """The patterns of a directory that has these entries; empty where none is an ignore file."""
    there = [name for name in _NAMES if name in names]
    if not there:
        return []
    chosen = next(own for own in _OWN if own[-1] in there)
    patterns: list[Pattern] = []
    for name in chosen:
        if name in there:
            patterns += _lines(os.path.join(directory, name))
    return patterns


def is_ignore_file(name: bytes) -> bool:
    """Could this name be an ignore file? Lets a walk skip `read`."""
    return name in _NAMES


def _above(root: bytes) -> list[bytes]:
    """The top of the git checkout that holds `root`, and every directory down to `root`."""
    chain = [root]
    while not os.path.lexists(os.path.join(chain[0], b".git")):
        parent = os.path.dirname(chain[0])
        if parent == chain[0]:
            return [root]
        chain.insert(0, parent)
    return chain


def _present(directory: bytes) -> list[bytes]:
    return [name for name in _NAMES if os.path.lexists(os.path.join(directory, name))]


def _lines(path: bytes) -> Iterator[Pattern]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # a link, or unreadable: the walk itself reports what it cannot read
    try:
        with open(fd, "rb") as file:
            content = file.read()
    except IsADirectoryError:
        return
    for line in content.removeprefix(_BOM).split(b"\n"):
        if pattern := parse(line.removesuffix(b"\r")):
            yield pattern


def _compile(patterns: list[Pattern], base: int) -> _Rules:
    return _Rules(
        base,
        list(_runs([p for p in patterns if not p.directory])),
        list(_runs(patterns)),
    )


def _runs(patterns: list[Pattern]) -> Iterator[_Run]:
    for negated, same in groupby(reversed(patterns), key=lambda p: p.negated):
        run = list(same)
        yield _Run(
            negated,
            frozenset(p.text for p in run if p.kind == "name"),
            tuple(p.text for p in run if p.kind == "suffix"),
            _any([p.text for p in run if p.kind == "name-regex"]),
            _any([p.text for p in run if p.kind == "path-regex"]),
        )


def _any(sources: list[bytes]) -> _Search | None:
    if not sources:
        return None
    return re.compile(b"|".join(b"(?:%s)" % s for s in sources), re.DOTALL).fullmatch
