"""Packages for buckets on a host, whose agent came without them: fetched once, when they are first
needed, and linked to where the agent looks for packages."""

from __future__ import annotations

import importlib
import os
import shutil
import tarfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from moorage.data.base import SourceError

MARK = "storage.parts"
"""Beside the packages of a host's agent: which parts its server has."""

Fetch = Callable[[str, Path], None]
"""Writes the archive with this digest to a file. SourceError."""


class Parts:
    """Of one agent. `ready` may be called from several threads."""

    def __init__(self, home: Path, fetch: Fetch, lib: Path | None = None) -> None:
        """`home`: the agent's; `lib`: where its packages are."""
        self._shelf = home / "parts"
        self._fetch = fetch
        self._lib = lib or _lib()
        self._one = threading.Lock()

    def ready(self) -> None:
        """They are here when it returns; at once where this agent needs none. SourceError."""
        wanted = awaited(self._lib)
        if not wanted:
            return
        with self._one:
            place = self._shelf / wanted
            try:
                if not place.exists():
                    self._take_in(wanted, place)
                _link(place, self._lib)
            except OSError as error:
                raise SourceError(
                    f"packages for buckets cannot be kept in {self._shelf}: {error}"
                ) from None

    def _take_in(self, wanted: str, place: Path) -> None:
        shutil.rmtree(self._shelf, ignore_errors=True)  # of other versions, or cut off
        self._shelf.mkdir(mode=0o700, parents=True)
        packed, fresh = self._shelf / "archive", self._shelf / "new"
        self._fetch(wanted, packed)
        try:
            with packed.open("rb") as stream:
                _unpack(stream, fresh)
        except (tarfile.TarError, EOFError) as error:
            raise SourceError(f"packages for buckets arrived damaged: {error}") from None
        fresh.rename(place)
        packed.unlink()


def awaited(lib: Path | None = None) -> str:
    """The digest of what is yet to be fetched or linked here; empty where nothing is."""
    lib = lib or _lib()
    with suppress(OSError):
        wanted = (lib / MARK).read_text().strip()
        return "" if (lib / "bin" / "rclone").exists() else wanted
    return ""


def _lib() -> Path:
    return Path(__file__).parents[2]


def _unpack(stream: BinaryIO, into: Path) -> None:
    with tarfile.open(fileobj=stream, mode="r|gz") as archive:
        for entry in archive:
            path = into / entry.name
            if not entry.isfile() or ".." in path.parts or entry.name.startswith("/"):
                raise tarfile.TarError(f"it has an odd entry, {entry.name}")
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            body = archive.extractfile(entry)
            assert body is not None
            with path.open("wb") as file:
                shutil.copyfileobj(body, file)
            path.chmod(entry.mode & 0o755)


def _link(place: Path, lib: Path) -> None:
    """Each entry by a name of its own, whatever was there before."""
    for entry in place.iterdir():
        fresh = lib / f"{entry.name}.new"
        fresh.unlink(missing_ok=True)
        os.symlink(entry, fresh)
        fresh.replace(lib / entry.name)
    importlib.invalidate_caches()
