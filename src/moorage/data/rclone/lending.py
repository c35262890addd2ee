"""Keys that a store lends for a time, an hour as a rule: rclone, whose options nobody can change
while it runs, gets them of a program (`credential_process` of Amazon's tools), and asks it again
when they have ended. It prints a file that is written anew long before.

    keys.ini   tells rclone of the program
    keys       what it prints (0600)
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from moorage.data import stopping
from moorage.data.base import SourceError
from moorage.specs.stores.record import Access

log = logging.getLogger("moorage.agent")

PROFILE = "shared_credentials_file"
"""The option by which rclone finds them: it needs nothing of the node's own then."""
_NAME = "moorage"
_KEYS, _PROGRAM = "keys", "keys.ini"
_GIVEN = {
    "AccessKeyId": "access_key_id",
    "SecretAccessKey": "secret_access_key",
    "SessionToken": "session_token",
}
_SOONEST, _PAUSE = 1.0, 30.0
"""Seconds until they are asked for again; where none came that last longer."""
_PATIENCE = 5.0


def lent(options: Mapping[str, str], access: Access, directory: Path) -> dict[str, str]:
    """rclone's options for a mount in that directory: as they are for keys that last, else with a
    place in which they are found."""
    if access.expires is None or options.get("type") != "s3":
        return dict(options)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(directory, access)
    program = f"/bin/cat {shlex.quote(str(directory / _KEYS))}"
    _private(directory / _PROGRAM, f"[profile {_NAME}]\ncredential_process = {program}\n")
    own = {"env_auth": "true", PROFILE: str(directory / _PROGRAM), "profile": _NAME}
    return {**{name: options[name] for name in options if name not in _GIVEN.values()}, **own}


def write(directory: Path, access: Access) -> None:
    """Let rclone have these from when it asks next."""
    told: dict[str, object] = {"Version": 1}
    told |= {word: access.secrets[name] for word, name in _GIVEN.items() if name in access.secrets}
    ends = datetime.fromtimestamp(access.expires or 0.0, UTC)
    told["Expiration"] = ends.isoformat(timespec="seconds").replace("+00:00", "Z")
    _private(directory / _KEYS, json.dumps(told))


def ends(directory: Path) -> float | None:
    """When those end that rclone has there (Unix seconds); None where they last."""
    with suppress(FileNotFoundError):
        told = json.loads((directory / _KEYS).read_bytes())
        return datetime.fromisoformat(told["Expiration"]).timestamp()
    return None


def forget(directory: Path) -> None:
    """They are needed no more."""
    for name in (_KEYS, _PROGRAM):
        (directory / name).unlink(missing_ok=True)


class Renewal:
    """Of the keys in one mount's directory, from now until `stop`."""

    def __init__(self, directory: Path, ask: Callable[[], Access]) -> None:
        """`ask` blocks, on a thread. SourceError."""
        self._directory, self._ask = directory, ask
        self._stopper = stopping.Stopper()
        self._stopped = threading.Event()
        name = f"keys {directory.parents[1].name}/{directory.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Nothing is written any more, though a server that does not answer may be waited for."""
        self._stopped.set()
        self._stopper.stop()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        stopping.current.set(self._stopper)
        pause = 0.0
        while (until := ends(self._directory)) is not None:
            if self._stopped.wait(max(_SOONEST, pause, (until - time.time()) / 2)):
                return
            pause = 0.0 if self._renewed(until) else _PAUSE

    def _renewed(self, until: float) -> bool:
        """Whether there are any now that last longer."""
        try:
            access = self._ask()
            if self._stopped.is_set() or (access.expires or 0.0) <= until:
                return False
            write(self._directory, access)
        except (SourceError, OSError) as error:
            if not self._stopped.is_set():
                log.warning("%s: no new ones: %s", self._thread.name, error)
            return False
        return True


def _private(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.new")
    partial.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(partial, flags, 0o600), "w") as file:
        file.write(text)
    partial.replace(path)
