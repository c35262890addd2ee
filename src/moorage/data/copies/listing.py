"""Objects as files: a bucket's keys are any text, a directory's names are not.

What cannot be a file below the directory is left out, and said:

- a key with an empty part (`a//b`, `/a`), with `.` or `..` as a part, or with one of more than 255
  bytes (`data.transfer.names`);
- an object that has others below it (`a` beside `a/b`): the directory wins.

A key that ends with a slash is a directory, as consoles and tools make them, unless an object of
that name is there; its own content, if any, is left out. Everything else is taken byte by byte:
capitals, blanks, and letters that look alike but are encoded otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from blake3 import blake3
from msgspec import Struct

from moorage.data.objects.bucket import Found
from moorage.data.transfer.names import directories, reason_against_file, reason_against_key

_NAMED = 3
"""Left-out objects that are named in one line."""


Content = tuple[str, str, int]
"""Key, version and size: the same in two listings of a bucket as long as the bytes are."""


class Entry(Struct, frozen=True, array_like=True):
    """One object as a file. `path` is below the directory."""

    path: str
    key: str
    size: int
    etag: str
    modified: float

    @property
    def found(self) -> Found:
        """The object."""
        return Found(self.key, self.size, self.modified, self.etag)

    @property
    def version(self) -> str:
        """What is another as soon as the content is."""
        return self.etag or repr(self.modified)

    @property
    def content(self) -> Content:
        """See `Content`."""
        return self.key, self.version, self.size


class LeftOut(Struct, frozen=True, array_like=True):
    """An object that is no file, and why."""

    key: str
    reason: str


class Layout(NamedTuple):
    """A bucket, or a part of it, as a directory; or one object as a file."""

    files: list[Entry]
    """In order of their paths."""
    directories: list[str]
    """That nothing lies in."""
    left_out: list[LeftOut]
    single: bool = False
    """The one entry of `files` is all there is to be: a file."""

    @property
    def nothing(self) -> bool:
        """There is nothing at this address."""
        return not (self.files or self.directories or self.left_out)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    def digest(self, *origin: str) -> str:
        """Another whenever anything that a job could see is."""
        check = blake3()
        for word in (*origin, "file" if self.single else "directory"):
            check.update(f"{len(word.encode())}:".encode() + word.encode())
        for entry in self.files:
            key = entry.key.encode()
            check.update(b"%d:%b%d:" % (len(key), key, entry.size))
            check.update(f"{len(entry.version)}:{entry.version}".encode())
        for path in self.directories:
            check.update(f"/{len(path.encode())}:{path}".encode())
        return check.hexdigest()


def single(found: Found) -> Layout:
    """One object as a file, called as the last part of its key."""
    name = found.key.rpartition("/")[2]
    return Layout([_entry(name, found)], [], [], single=True)


def lay_out(objects: Iterable[Found], prefix: str) -> Layout:
    """What lies below `prefix` (no slash at its end) as files."""
    start = len(prefix) + 1 if prefix else 0
    files: dict[str, Found] = {}
    markers: list[str] = []
    left_out: list[LeftOut] = []
    for found in objects:
        path = found.key[start:]
        marks = path.endswith("/") or not path
        path = path.removesuffix("/")
        why = path and (reason_against_file(path) or reason_against_key(path))
        if why:
            left_out.append(LeftOut(found.key, why))
        elif not marks:
            files[path] = found
        elif found.size:
            left_out.append(LeftOut(found.key, "a directory has no content"))
        if marks and path and not why:
            markers.append(path)
    above = directories(files)
    for path in [path for path in files if path in above]:
        found = files.pop(path)
        if found.size:  # else it stands for the directory, as some tools write it
            left_out.append(LeftOut(found.key, "there are objects below it"))
    entries = [_entry(path, files[path]) for path in sorted(files)]
    left_out.sort(key=lambda one: one.key)
    return Layout(entries, _empty(markers, files, above), left_out)


def without(layout: Layout, keys: Collection[str]) -> Layout:
    """The same where these objects are directories: engines show `a/` as an empty object `a`."""
    gone = set(keys)
    files = {entry.path: entry.found for entry in layout.files if entry.key not in gone}
    markers = [entry.path for entry in layout.files if entry.key in gone] + layout.directories
    entries = [entry for entry in layout.files if entry.path in files]
    return layout._replace(files=entries, directories=_empty(markers, files, directories(files)))


def describe(left_out: list[LeftOut], noun: str = "object") -> str:
    """What was left out in one line; empty where nothing was."""
    if not left_out:
        return ""
    named = "; ".join(f"{one.key!r}: {one.reason}" for one in left_out[:_NAMED])
    more = "; ..." if len(left_out) > _NAMED else ""
    return f"{len(left_out)} {noun}{'' if len(left_out) == 1 else 's'} left out ({named}{more})"


def _entry(path: str, found: Found) -> Entry:
    return Entry(path, found.key, found.size, found.etag, found.modified)


def _empty(markers: list[str], files: dict[str, Found], above: set[str]) -> list[str]:
    """The directories among these that must be made for themselves. An object with content is
    worth more than an empty directory in its place."""
    free = {path for path in markers if files.keys().isdisjoint({path} | directories([path]))}
    return sorted(free - above - directories(free))
