"""rclone's remote control, as far as an upload needs it. Standard library only, unlike the agent's
`data/rclone/rc.py`: who answers calls must be small."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_GROUP = "fsync"
_PATIENCE = 10.0  # seconds for an answer: none of them moves data
_FINISHES, _SETTLES = 2.0, 10.0  # seconds for uploads that nobody waits for: to end, to break off
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PAUSE, _LONGEST = 0.005, 0.05  # seconds between two questions


class Failed(Exception):
    """What rclone said: one line."""


class Remote:
    """Of the rclone that works in `directory`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._first = threading.Lock()
        self._settled = False
        self._never = threading.Event()

    def cache(self) -> tuple[str, str]:
        """Where it keeps the files' contents, and where its notes about them. Failed."""
        found = self._call("vfs/stats").get("diskCache") or {}
        try:
            return found["path"], found["pathMeta"]
        except KeyError:
            raise Failed("rclone has no cache") from None

    def upload(self, cache: str, target: str, name: str) -> None:
        """Store the file `name` of the cache in the bucket as it is, whatever is there. Failed.

        rclone goes on with it if this process is killed: a request that is broken off may still
        be carried out by the store, after a later one, so that older content would win."""
        with self._first:
            if not self._settled:
                self._settle()
                self._settled = True
        begun = self._call(
            "operations/copyfile",
            # It may change meanwhile: what was there when it began is what counts, and a content
            # that turns out to be another must not make rclone remove the object.
            srcFs=f":local,no_check_updated=true:{cache}",
            srcRemote=name,
            dstFs=target,
            dstRemote=name,
            _async=True,
            _group=_GROUP,
            _config={"IgnoreTimes": True, "NoCheckDest": True, "IgnoreChecksum": True},
        )
        self._finish(begun["jobid"])

    def stat(self, target: str, name: str) -> tuple[int, int] | None:
        """Bytes of an object, and the time of the file that it was made of in microseconds; None
        where there is none, or the store does not keep times. Failed."""
        found = self._call("operations/stat", fs=target, remote=name).get("item") or {}
        try:
            since = datetime.fromisoformat(found["ModTime"]) - _EPOCH
            return found["Size"], since // timedelta(microseconds=1)
        except (KeyError, ValueError):
            return None

    def delete(self, target: str, name: str) -> None:
        """Remove an object. Failed."""
        self._call("operations/deletefile", fs=target, remote=name)

    def look_again(self, name: str) -> None:
        """Have it find out that there is an object of this name. Failed."""
        self._call("vfs/forget", file=name)

    def end(self) -> None:
        """Return when no upload goes on. What takes long is broken off: nobody waits for it."""
        with suppress(Failed):
            if not self._rests(_FINISHES):
                self._call("job/stopgroup", group=_GROUP)
                self._rests(_SETTLES)

    def _rests(self, patience: float) -> bool:
        """Whether within that time there is a moment without uploads. Failed."""
        ending = time.monotonic() + patience
        while self._call("core/stats", group=_GROUP).get("transferring"):
            if time.monotonic() > ending:
                return False
            self._never.wait(_PAUSE)
        return True

    def _settle(self) -> None:
        """Wait for what was begun by a process that was killed. Failed."""
        for job in self._call("job/list").get("jobids") or ():
            with suppress(Failed):
                if self._call("job/status", jobid=job).get("group") == _GROUP:
                    self._finish(job)

    def _finish(self, job: int) -> None:
        """Wait for an upload: rclone can only be asked again and again. Failed."""
        pause = _PAUSE
        while not (told := self._call("job/status", jobid=job))["finished"]:
            self._never.wait(pause)
            pause = min(pause * 1.2, _LONGEST)
        if not told["success"]:
            raise Failed(str(told["error"]))

    def _call(self, what: str, **fields: Any) -> dict[str, Any]:
        connection = _Connection(self._directory)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", f"/{what}", json.dumps(fields).encode(), headers)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Failed(f"rclone does not answer: {error}") from None
        finally:
            connection.close()
        if response.status != 200:
            raise Failed(str(answer.get("error") or f"rclone refuses {what}"))
        return answer


class _Connection(http.client.HTTPConnection):
    def __init__(self, directory: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._directory = directory

    def connect(self) -> None:
        # By a descriptor of the directory: the path of a socket may have no more than 107 bytes.
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{directory}/rc")
        finally:
            os.close(directory)
