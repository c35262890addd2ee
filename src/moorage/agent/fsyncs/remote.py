"""rclone's remote control, as far as an upload needs it. Standard library only, unlike the agent's
`data/rclone/rc.py`: who answers calls must be small."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_GROUP = "fsync"
_PATIENCE = 10.0  # seconds for an answer that moves no data
_SETTLES, _PAUSE = 10.0, 0.01  # seconds


class Failed(Exception):
    """What rclone said: one line."""


class Remote:
    """Of the rclone that works in `directory`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._uploads: set[_Connection] = set()
        self._ended = False

    def cache(self) -> tuple[str, str]:
        """Where it keeps the files' contents, and where its notes about them. Failed."""
        found = self._call("vfs/stats").get("diskCache") or {}
        try:
            return found["path"], found["pathMeta"]
        except KeyError:
            raise Failed("rclone has no cache") from None

    def upload(self, cache: str, target: str, name: str) -> None:
        """Store the file `name` of the cache in the bucket as it is, whatever is there. Failed."""
        connection = _Connection(self._directory, None)
        with self._lock:
            if self._ended:
                raise Failed("the job has ended")
            connection.begin()
            self._uploads.add(connection)
        try:
            self._ask(
                connection,
                "operations/copyfile",
                # It may grow meanwhile: what was there when it began is what counts.
                srcFs=f":local,no_check_updated=true:{cache}",
                srcRemote=name,
                dstFs=target,
                dstRemote=name,
                _group=_GROUP,
                _config={"IgnoreTimes": True, "NoCheckDest": True},
            )
        finally:
            with self._lock:
                self._uploads.discard(connection)

    def delete(self, target: str, name: str) -> None:
        """Remove an object. Failed."""
        self._call("operations/deletefile", fs=target, remote=name)

    def look_again(self, name: str) -> None:
        """Have it find out that there is an object of this name. Failed."""
        self._call("vfs/forget", file=name)

    def end(self) -> None:
        """Break off all uploads, and return when nothing of them goes on."""
        with self._lock:
            self._ended = True
            uploads = list(self._uploads)
        for connection in uploads:
            connection.break_off()
        never = threading.Event()
        for _ in range(int(_SETTLES / _PAUSE) if uploads else 0):
            try:
                if not self._call("core/stats", group=_GROUP).get("transferring"):
                    return
            except Failed:
                return
            never.wait(_PAUSE)

    def _call(self, what: str, **fields: Any) -> dict[str, Any]:
        return self._ask(_Connection(self._directory, _PATIENCE), what, **fields)

    def _ask(self, connection: _Connection, what: str, **fields: Any) -> dict[str, Any]:
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
    def __init__(self, directory: str, patience: float | None) -> None:
        super().__init__("localhost", timeout=patience)
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

    def begin(self) -> None:
        """Connect now. Failed."""
        try:
            self.connect()
        except OSError as error:
            raise Failed(f"rclone does not answer: {error.strerror}") from None

    def break_off(self) -> None:
        """From another thread."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except (OSError, AttributeError):  # it has ended
            pass
