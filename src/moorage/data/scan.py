"""A local file or directory becomes a manifest and the list of files behind it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from moorage.data import digests, ignore
from moorage.data.digests import DigestCache
from moorage.data.hashing import Identity, Known, hash_file, identity
from moorage.data.manifests import escapes
from moorage.errors import InvalidInput, Problem
from moorage.ids import Digest
from moorage.protocol import tree
from moorage.protocol.tree import Entry, Manifest

_IGNORE_IT = "leave it out by a line in .moorageignore"


LocalFile = tuple[str, Identity]
"""The path of a file to upload, and its identity when it was hashed."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A tree as it is on disk."""

    tree: Digest
    """The digest of `encoded`."""
    encoded: bytes
    """The manifest."""
    contents: dict[Digest, LocalFile]
    files: int
    size: int
    """Bytes of all files."""
    notes: list[str]
    """What was left out though nobody asked for it: sockets, pipes, devices."""


def scan(path: Path, cache: DigestCache | None = None, *, limit: int = 0) -> Scan:
    """Scan a file or a directory; a link given here is followed, none inside is.

    `limit`: bytes one file may have, 0 for any. InvalidInput with all that cannot be uploaded.
    """
    root = os.path.realpath(path)
    try:
        status = os.stat(root)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidInput(Problem(reason, file=str(path))) from None
    found = Collector(root, str(path), limit)
    if stat.S_ISDIR(status.st_mode):
        _walk(found, os.fsencode(root))
    elif stat.S_ISREG(status.st_mode):
        found.add(".", root, status)
    else:
        raise InvalidInput(Problem("not a file or directory", file=str(path)))
    return found.finish(cache)


@dataclass(slots=True)
class Collector:
    """Gathers the entries of a tree; `finish` hashes what is not known yet."""

    root: str
    """Absolute, without links."""
    shown: str
    """The same as the user wrote it, for messages."""
    limit: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _entries: list[Entry] = field(default_factory=list)
    _files: list[tuple[str, str, int, Identity]] = field(default_factory=list)

    def add(self, name: str, path: str, status: os.stat_result) -> None:
        """Add an entry by what `lstat` said of it; `name` is relative to the root, with `/`."""
        mode = status.st_mode
        if stat.S_ISREG(mode):
            if self.limit and status.st_size > self.limit:
                reason = f"{status.st_size} bytes are more than the upload limit of {self.limit}"
                self.refuse(name, reason, f"{_IGNORE_IT}, or raise upload_limit in config.yml")
                return
            self._files.append((name, path, mode & 0o777, identity(status)))
        elif stat.S_ISDIR(mode):
            self._entries.append(Entry(name, "dir", mode & 0o777))
        elif stat.S_ISLNK(mode):
            self._link(name, path)
        else:
            kind = (
                "a socket"
                if stat.S_ISSOCK(mode)
                else "a pipe"
                if stat.S_ISFIFO(mode)
                else "a device"
            )
            self.notes.append(f"{os.path.join(self.shown, name)} is {kind}; left out")

    def _link(self, name: str, path: str) -> None:
        """A link must stay inside the tree; it may lead to nothing there."""
        try:
            target = os.readlink(path)
            target.encode()
        except OSError as error:
            self.refuse(name, error.strerror or str(error))
            return
        except UnicodeEncodeError:
            self.refuse(name, "the link's target is not valid UTF-8", _IGNORE_IT)
            return
        if target.startswith("/"):
            self.refuse(
                name, f"link to the absolute path {target}", f"make it relative, or {_IGNORE_IT}"
            )
        elif escapes(name, target) or not self._inside(path, target):
            self.refuse(
                name, f"link out of the tree, to {target}", f"copy the file, or {_IGNORE_IT}"
            )
        else:
            self._entries.append(Entry(name, "link", 0, target=target))

    def refuse(self, name: str, reason: str, fix: str = "") -> None:
        """Record a problem at an entry."""
        shown = self.shown if name == "." else os.path.join(self.shown, name)
        self.problems.append(Problem(reason, fix, file=shown))

    def finish(self, cache: DigestCache | None) -> Scan:
        """Hash and build. InvalidInput with every problem found."""
        if self.problems:
            raise InvalidInput(*self.problems)
        contents: dict[Digest, LocalFile] = {}
        entries = self._entries
        total = 0
        for name, path, mode, (same, digest) in self._digests(cache):
            entries.append(Entry(name, "file", mode, digest, same[0]))
            contents[digest] = (path, same)
            total += same[0]
        if self.problems:
            raise InvalidInput(*self.problems)
        entries.sort(key=lambda entry: entry.path)
        encoded = tree.encode(Manifest(entries))
        named = Digest(blake3(encoded).hexdigest())
        return Scan(named, encoded, contents, len(self._files), total, self.notes)

    def _digests(
        self, cache: DigestCache | None
    ) -> Iterator[tuple[str, str, int, tuple[Identity, Digest]]]:
        known = cache.known(self.root) if cache else {}
        began = digests.now()
        new: dict[str, Known] = {}
        for name, path, mode, same in self._files:
            row = known.pop(path, None)
            if row is not None and row[1:5] == same:
                yield name, path, mode, (same, row[5])
                continue
            try:
                new[path] = hash_file(path)
            except OSError as error:
                self.refuse(name, error.strerror or str(error))
                continue
            yield name, path, mode, new[path]
        if cache:
            cache.remember(new, known, began)

    def _inside(self, path: str, target: str) -> bool:
        """Does the target stay inside both as written and where links on the way really lead?"""
        directory = os.path.dirname(path)
        written = os.path.normpath(os.path.join(directory, target))
        real = os.path.realpath(os.path.join(directory, target))
        below = self.root.rstrip("/") + "/"
        return all(place == self.root or place.startswith(below) for place in (written, real))


def _walk(found: Collector, root: bytes) -> None:
    top = ignore.start(os.fsdecode(root))
    root_text = found.root.rstrip("/") + "/"
    waiting: list[tuple[bytes, str, ignore.Level, bytes]] = [(root, "", top, b"")]
    while waiting:
        directory, prefix, level, own_name = waiting.pop()
        try:
            with os.scandir(directory) as listing:
                children = list(listing)
        except OSError as error:
            found.refuse(prefix.rstrip("/") or ".", error.strerror or str(error), _IGNORE_IT)
            continue
        if own_name:
            names = [child.name for child in children if ignore.is_ignore_file(child.name)]
            level = level.enter(own_name, ignore.read(directory, names))
        for child in children:
            is_directory = child.is_dir(follow_symlinks=False)
            if level.ignores(child.name, is_directory):
                continue
            name = _add(found, root_text, prefix, child)
            if name and is_directory:
                waiting.append((child.path, f"{name}/", level, child.name))


def _add(found: Collector, root: str, prefix: str, child: os.DirEntry[bytes]) -> str:
    """Add one entry; its name in the tree, or nothing where it was refused."""
    try:
        name = prefix + child.name.decode()
    except UnicodeDecodeError:
        shown = prefix + child.name.decode(errors="backslashreplace")
        found.refuse(shown, "the name is not valid UTF-8", f"rename it, or {_IGNORE_IT}")
        return ""
    try:
        found.add(name, root + name, child.stat(follow_symlinks=False))
    except OSError as error:
        found.refuse(name, error.strerror or str(error))
        return ""
    return name
