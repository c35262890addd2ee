"""What lies at a place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from msgspec import Struct

from moorage.data import ignore
from moorage.data.hashing import identity
from moorage.data.objects.bucket import Found
from moorage.data.objects.errors import StoreProblem
from moorage.data.transfer.names import reason_against_file, reason_against_key
from moorage.data.transfer.places import Entry, Local, Place, Remote
from moorage.errors import InvalidInput, NotFound, Problem

PART_NAME = (".moorage-", ".part")
"""What the files begin and end with that a download in parts keeps until it is whole."""


class Listing(Struct):
    """Everything at a place."""

    entries: dict[str, Entry] = {}
    """By name."""
    single: bool = False
    """The place is one file or object, whose name is empty."""
    links: int = 0
    """Symbolic links, which are left out."""
    others: int = 0
    """Sockets, pipes and devices, which are left out."""
    problems: list[Problem] = []
    """Of what cannot be listed or moved at all."""

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(entry.size for entry in self.entries.values())


def listing(place: Place, *, ignoring: bool = False, missing_ok: bool = False) -> Listing:
    """Everything at a place. `ignoring`: without what the ignore files of a local directory leave
    out. NotFound where nothing is there, unless that is allowed; StoreProblem; InvalidInput."""
    if isinstance(place, Remote):
        return _remote(place, missing_ok)
    return _local(place, ignoring, missing_ok)


def _remote(place: Remote, missing_ok: bool) -> Listing:
    found = Listing()
    skipped = len(place.path) + 1 if place.path else 0
    for page in _pages(place):
        for one in page:
            name = one.key[skipped:]
            if name.endswith("/") and not one.size:
                continue  # a directory's mark
            if reason := reason_against_file(name) or reason_against_key(one.key):
                found.problems.append(Problem(reason, "", file=place.bucket.at(one.key)))
            else:
                found.entries[name] = Entry(name, one.size, one.modified, one.etag)
    if place.path and (single := _single(place, empty_too=not found.entries)):
        return Listing({"": single}, single=True)
    if not found.entries and not found.problems and not missing_ok and place.path:
        raise NotFound(f"{place.shown}: there is no such object, and nothing below it")
    return found


def _pages(place: Remote) -> Iterator[list[Found]]:
    """What lies below. obstore refuses a whole listing for one key that is no path."""
    try:
        yield from place.bucket.list(place.path)
    except StoreProblem as error:
        if error.reason != "not-possible":
            raise
        from moorage.data.base import SourceError  # most buckets have no such keys
        from moorage.data.copies import oddkeys

        try:
            yield oddkeys.listing(place.bucket, place.path)
        except SourceError as other:
            raise StoreProblem("not-possible", place.shown, error.said, str(other)) from None
        except ValueError:  # rclone does not know this kind of store
            raise error from None


def is_object(place: Remote) -> bool:
    """Is there an object with that very key, and not only others below it? StoreProblem."""
    if not place.path:
        return False
    alone = not next(_pages(place), [])
    return _single(place, empty_too=alone) is not None


def _single(place: Remote, *, empty_too: bool) -> Entry | None:
    """The object with that very key. One without content, with others below it, stands for a
    directory, as some programs make them."""
    try:
        one = place.bucket.head(place.path)
    except StoreProblem as error:
        if error.reason in ("no-object", "not-possible"):
            return None
        raise
    return Entry("", one.size, one.modified, one.etag) if one.size or empty_too else None


def _local(place: Local, ignoring: bool, missing_ok: bool) -> Listing:
    try:
        status = os.stat(place.path)
    except OSError as error:
        if missing_ok and isinstance(error, FileNotFoundError):
            return Listing()
        reason = (error.strerror or str(error)).lower()
        raise InvalidInput(Problem(reason, file=place.path)) from None
    if stat.S_ISREG(status.st_mode):
        return Listing({"": _entry("", status)}, single=True)
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidInput(Problem("not a file or directory", file=place.path))
    return _Walk(os.path.realpath(place.path), ignoring).found


class _Walk:
    def __init__(self, root: str, ignoring: bool) -> None:
        self.found = Listing()
        self._root = os.fsencode(root)
        self._ignoring = ignoring
        level = ignore.start(root) if ignoring else ignore.EMPTY
        waiting: list[tuple[bytes, str, ignore.Level, bytes]] = [(self._root, "", level, b"")]
        while waiting:
            directory, prefix, level, own_name = waiting.pop()
            children = self._children(directory, prefix)
            if own_name and ignoring:
                names = [one.name for one in children if ignore.is_ignore_file(one.name)]
                level = level.enter(own_name, ignore.read(directory, names))
            for child in children:
                if name := self._add(child, prefix, level):
                    waiting.append((child.path, f"{name}/", level, child.name))

    def _children(self, directory: bytes, prefix: str) -> list[os.DirEntry[bytes]]:
        try:
            with os.scandir(directory) as listing:
                return list(listing)
        except OSError as error:
            self._refuse(prefix.rstrip("/"), error.strerror or str(error))
            return []

    def _add(self, child: os.DirEntry[bytes], prefix: str, level: ignore.Level) -> str:
        """Note one entry; its name where it is a directory to be entered."""
        is_directory = child.is_dir(follow_symlinks=False)
        if self._ignoring and level.ignores(child.name, is_directory):
            return ""
        name = prefix + child.name.decode(errors="backslashreplace")
        if is_directory:
            return name
        if child.is_symlink():
            self.found.links += 1
        elif not child.is_file(follow_symlinks=False):
            self.found.others += 1
        elif not _is_part(name):
            self._add_file(name, child)
        return ""

    def _add_file(self, name: str, child: os.DirEntry[bytes]) -> None:
        try:
            child.name.decode()
            status = child.stat(follow_symlinks=False)
        except UnicodeDecodeError:
            self._refuse(name, "its name is not valid UTF-8")
        except OSError as error:
            self._refuse(name, error.strerror or str(error))
        else:
            if reason := reason_against_key(name):
                self._refuse(name.encode("unicode_escape").decode(), reason)
            else:
                self.found.entries[name] = _entry(name, status)

    def _refuse(self, name: str, reason: str) -> None:
        fix = "leave it out by a line in .moorageignore" if self._ignoring else ""
        place = os.path.join(os.fsdecode(self._root), name)
        self.found.problems.append(Problem(reason.lower(), fix, file=place))


def _entry(name: str, status: os.stat_result) -> Entry:
    changed = max(status.st_mtime, status.st_ctime)
    return Entry(name, status.st_size, changed, identity=identity(status))


def _is_part(name: str) -> bool:
    """Is it a file on its way?"""
    return name.endswith(PART_NAME[1]) and name.rpartition("/")[2].startswith(PART_NAME[0])
