"""rclone's remote control over its socket: what is uploaded still, and how far that is."""

from __future__ import annotations

import http.client
import os
import re
import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from moorage.data.rclone.options import REMOTE, SOCKET
from moorage.decoding import from_json

_PATIENCE = 10.0  # seconds without an answer
PROBE = "operations/stat"
"""What is called to see whether a store answers; rclone writes into its log that it failed."""
_NOWHERE = ".moorage/there"
"""In a directory of its own: to look for it lists nothing else."""
_NO_WAY = re.compile(
    "dial tcp|i/o timeout|connection re|no such host|unreachable|EOF", re.IGNORECASE
)
_T = TypeVar("_T")


class Unreachable(Exception):
    """It does not answer: it is starting, dead, or hangs."""


class Refused(Unreachable):
    """It answers that it cannot do that."""


class Queued(Struct, frozen=True):
    """A file that is not in the bucket yet. Bytes; seconds until its upload begins."""

    name: str
    size: int = 0
    id: int = 0
    tries: int = 0
    expiry: float = 0.0
    uploading: bool = False


class _Queue(Struct, frozen=True):
    queue: list[Queued] = []


class _Disk(Struct, frozen=True, rename="camel"):
    uploads_in_progress: int = 0
    uploads_queued: int = 0
    errored_files: int = 0


class _Stats(Struct, frozen=True, rename="camel"):
    disk_cache: _Disk | None = None


class Transfer(Struct, frozen=True):
    """One that is under way. Bytes."""

    name: str = ""
    bytes: int = 0
    size: int = 0
    dst_fs: str = msgspec.field(default="", name="dstFs")
    """Empty: it is read from the store."""


class _Core(Struct, frozen=True, rename="camel"):
    bytes: int = 0
    listed: int = 0
    transfers: int = 0
    transferring: list[Transfer] | None = None
    last_error: str = ""


class _Object(Struct, frozen=True, rename="pascal"):
    size: int
    mod_time: datetime


class _Stat(Struct, frozen=True):
    item: _Object | None = None


class _List(Struct, frozen=True):
    vfses: list[str] = []


class Control:
    """Of the rclone whose working directory is `directory`. All may raise Unreachable."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def queue(self) -> list[Queued]:
        """What waits for its upload or is uploaded; without a cache nothing ever does."""
        return self._call("vfs/queue", _Queue).queue if self.busy() else []

    def busy(self) -> bool:
        """Whether anything waits for its upload or is uploaded."""
        disk = self._call("vfs/stats", _Stats).disk_cache
        return disk is not None and bool(disk.uploads_in_progress or disk.uploads_queued)

    def uploading(self, patience: float) -> bool:
        """Whether anything of its cache is being uploaded."""
        disk = self._call("vfs/stats", _Stats, patience).disk_cache
        return disk is not None and disk.uploads_in_progress > 0

    def hurry(self, item: Queued) -> None:
        """Upload it now, however long it should wait."""
        self._call("vfs/queue-set-expiry", msgspec.Raw, id=item.id, expiry=-1e6)

    def list_again(self, paths: Iterable[str]) -> None:
        """Have it list the directories of these anew, however new what it knows."""
        for parent in {os.path.dirname(path) for path in paths}:
            where = {"dir": parent} if parent else {}
            self._call("vfs/refresh", msgspec.Raw, _PATIENCE, **where)

    def transfers(self, patience: float = _PATIENCE) -> list[Transfer]:
        """What moves at present, in either direction."""
        return self._call("core/stats", _Core, patience).transferring or []

    def uploads(self, patience: float) -> list[str]:
        """The names of what is written into the store at present."""
        return [one.name for one in self.transfers(patience) if one.dst_fs]

    def mark(self, patience: float) -> tuple[int, int, int]:
        """What grows as long as the store does anything."""
        core = self._call("core/stats", _Core, patience)
        return core.bytes, core.listed, core.transfers

    def store_answers(self, bucket: str, patience: float) -> bool:
        """Whether the store says anything within so many seconds, be it that we may not ask."""
        try:
            where = {"fs": f"{REMOTE}:{bucket}", "remote": _NOWHERE}
            self._call(PROBE, msgspec.Raw, patience, **where)
        except Refused as error:
            return not _NO_WAY.search(str(error))
        except Unreachable:
            return False
        return True

    def stat(self, remote: str, path: str) -> tuple[int, int] | None:
        """Bytes of an object and the time that was set, in microseconds; None: it is not there."""
        found = self._call(PROBE, _Stat, _PATIENCE, fs=remote, remote=path).item
        if found is None:
            return None
        since = found.mod_time - datetime(1970, 1, 1, tzinfo=UTC)
        return found.size, since // timedelta(microseconds=1)

    def last_error(self) -> str:
        """What went wrong last; empty where nothing did."""
        return self._call("core/stats", _Core).last_error

    def name(self) -> str:
        """What it calls its bucket: part of the name are the options, secrets included, as a
        digest, and its cache is below a directory of that name."""
        found = self._call("vfs/list", _List).vfses
        if not found:
            raise Unreachable("rclone does not say what it has mounted")
        return found[0]

    def _call(self, what: str, kind: type[_T], patience: float = _PATIENCE, **fields: Any) -> _T:
        connection = _Connection(self._directory, patience)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", f"/{what}", msgspec.json.encode(fields), headers)
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise Refused(f"rclone refuses {what}: {body[:400].decode(errors='replace')}")
            return from_json(body, kind)
        except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
            raise Unreachable(f"rclone does not answer: {error}") from None
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, directory: Path, patience: float) -> None:
        super().__init__("localhost", timeout=patience)
        self._directory = directory

    def connect(self) -> None:
        # By a descriptor of the directory: the path of a socket may have no more than 107 bytes.
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{directory}/{SOCKET}")
        finally:
            os.close(directory)
