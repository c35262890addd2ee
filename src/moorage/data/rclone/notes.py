"""rclone's notes about the files in its cache, where it was killed while it wrote one.

It writes a note anew in place. One that is empty or half written it cannot read when it starts
again, and then it removes the file too, although its writer was told that all is well.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

_DIRTY = re.compile(rb'"Dirty":\s*true')


def mend(cache: Path) -> None:
    """Before rclone starts: a note for each file that has none which can be read, that it is not
    in the bucket yet; at worst it is uploaded twice. A file with holes is left to rclone: nobody
    knows which parts of it are another object's, and were not fetched."""
    top = cache / "vfsMeta"
    for directory, _, names in os.walk(top):
        for name in names:
            note = Path(directory, name)
            content = cache / "vfs" / note.relative_to(top)
            if not _readable(note) and _whole(content):
                _write(note, content.stat())


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


def _readable(note: Path) -> bool:
    try:
        return isinstance(json.loads(note.read_bytes()), dict)
    except ValueError:
        return False


def _whole(content: Path) -> bool:
    try:
        file = os.open(content, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        size = os.fstat(file).st_size
        return size > 0 and os.lseek(file, 0, os.SEEK_HOLE) == size
    finally:
        os.close(file)


def _write(note: Path, status: os.stat_result) -> None:
    told = {
        "ModTime": _time(status.st_mtime),
        "ATime": _time(status.st_atime),
        "Size": status.st_size,
        "Rs": [{"Pos": 0, "Size": status.st_size}],
        "Fingerprint": "mended",  # of no object: what is in the bucket meanwhile gives way
        "Dirty": True,
    }
    partial = note.with_name(f"{note.name}.mended")
    partial.write_text(json.dumps(told))
    partial.replace(note)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
