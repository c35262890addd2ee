"""rclone's notes about the files in its cache, as one that was killed left them.

It writes a note when a file is first changed and when the last one has closed it, not in
between. Of what was written meanwhile it knows nothing when it starts again: it fetches those
parts from the object that was there before, over what was written, or cannot read them. It writes
notes in place: one that is empty or half written it cannot read, and removes the file. It renames
file and note one after the other: a file without a note it removes. So before it starts, all notes
are mended: what is not in the bucket is here in full, and its note says so.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moorage.data.rclone import holes
from moorage.data.rclone.holes import Span

Fetch = Callable[[Path, int, list[Span]], None]
"""Write parts of an object into an open file; what there is none of stays as it is. The path is
that of the file in the cache, below the name of the store. SourceError."""

_DIRTY = re.compile(rb'"Dirty":\s*true')


def mend(cache: Path, fetch: Fetch) -> None:
    """Before rclone starts. SourceError, of `fetch`."""
    contents, notes = cache / "vfs", cache / "vfsMeta"
    _rejoin(contents, notes)
    for content in _files(contents):
        path = content.relative_to(contents)
        note = notes / path
        told = _read(note)
        if told is None or told.get("Dirty"):
            _complete(content, note, told, lambda *parts, p=path: fetch(_below(p), *parts))
        elif _changed(content, note, told):  # by somebody who was not told that this was done
            note.unlink()
            content.unlink()


def may_be_dirty(note: Path) -> bool:
    """Whether a note fails to say that its file is in the bucket. rclone writes notes anew in
    place, so that one is empty for a moment."""
    try:
        text = note.read_bytes()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return bool(_DIRTY.search(text)) or b'"Dirty"' not in text


def _rejoin(contents: Path, notes: Path) -> None:
    """A file that was being renamed has its note under the old name still, and at the new one
    there may be that of the file it replaces."""
    alone = [
        (note, told)
        for note in _files(notes)
        if (told := _read(note))
        and told.get("Dirty")
        and not (contents / note.relative_to(notes)).exists()
    ]
    odd = []
    for content in _files(contents) if alone else ():
        own = notes / content.relative_to(contents)
        other = _read(own)
        if other is None or not other.get("Dirty"):
            same = [note for note, told in alone if _written_as(content, told)]
            if same:
                _move(same[0], own)
            elif _whole(content) and (other is None or _changed(content, own, other)):
                odd.append(own)
    left = [note for note, _ in alone if note.exists()]
    if len(left) == len(odd) == 1:  # it had not been closed when it was renamed
        _move(left[0], odd[0])


def _written_as(content: Path, told: dict[str, Any]) -> bool:
    status = content.stat()
    return (told.get("Size"), _microseconds(told)) == (
        status.st_size,
        status.st_mtime_ns // 1000,
    )


def _changed(content: Path, note: Path, told: dict[str, Any]) -> bool:
    """Since its note was written."""
    status = content.stat()
    return bool(told.get("Size") != status.st_size or status.st_mtime_ns > note.stat().st_mtime_ns)


def _whole(content: Path) -> bool:
    """Whether it has no holes: else it may be one that is being fetched."""
    with open(content, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return holes.written(file.fileno(), size) == [(0, size)]


def _move(note: Path, place: Path) -> None:
    if note.exists():
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        note.replace(place)


def _complete(
    content: Path,
    note: Path,
    told: dict[str, Any] | None,
    fetch: Callable[[int, list[Span]], None],
) -> None:
    file = os.open(content, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        status = os.fstat(file)
        here = _here(told, file, content.parent)
        if told is None and not here:
            return  # it has just been made, and has nothing of its own yet
        if gaps := holes.missing(here, status.st_size):
            fetch(file, gaps)
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(file)
    whole = [{"Pos": 0, "Size": status.st_size}] if status.st_size else None
    if told is None or (told.get("Size"), told.get("Rs")) != (status.st_size, whole):
        _write(note, status, whole, told)


def _here(told: dict[str, Any] | None, file: int, directory: Path) -> list[Span]:
    """What its cached file has, of the object or written since."""
    size = os.fstat(file).st_size
    if told is None:
        return holes.written(file, size)
    before = told.get("Size") or 0
    if not told.get("Fingerprint") or not before:
        return [(0, size)]  # there was no object, or nothing of it was kept: holes are zeros
    noted = [(one["Pos"], one["Pos"] + one["Size"]) for one in told.get("Rs") or ()]
    spans = [*noted, (before, max(before, size))]
    if holes.missing(spans, size) and holes.told_in(directory):
        spans += holes.written(file, size)
    return spans


def _read(note: Path) -> dict[str, Any] | None:
    """None where it cannot be read."""
    try:
        found = json.loads(note.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(
    note: Path, status: os.stat_result, ranges: object, told: dict[str, Any] | None
) -> None:
    said = {
        "ModTime": _time(status.st_mtime_ns),
        "ATime": _time(status.st_atime_ns),
        "Size": status.st_size,
        "Rs": ranges,
        "Fingerprint": (told or {}).get("Fingerprint", ""),
        "Dirty": True,
    }
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = note.with_name(f"{note.name}.mended")
    partial.write_text(json.dumps(said))
    partial.replace(note)


def _time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


def _microseconds(told: dict[str, Any]) -> int:
    try:
        moment = datetime.fromisoformat(str(told.get("ModTime")))
    except ValueError:
        return -1
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds


def _below(path: Path) -> Path:
    return Path(*path.parts[1:])


def _files(top: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(top):
        for name in names:
            yield Path(directory, name)
