"""Start, replace, stop and remove the agent of a directory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, BinaryIO

from moorage.backends.ssh.onhost import install, leftovers, place, unit

_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from moorage.agent.supervisor import main; main(*sys.argv[2:])"
)
_TAIL, _LINES = 16384, 20
PATIENCE = 15.0
"""Seconds for a process to start or to end."""


def main(arguments: dict[str, Any], _stream: BinaryIO) -> dict[str, Any]:
    """`action`: start, stop, remove or tail; `directory`, `init`; for start also `plan`, `token`,
    `authority`, and `others`: nodes whose agent is not to be replaced."""
    directory, action = arguments["directory"], arguments["action"]
    if action == "tail":
        return {"lines": _tail(directory, arguments["init"])}
    if action != "start" and not os.path.isdir(directory):
        return {"changed": False}
    with place.locked(directory):
        if action == "start":
            changed = _start(arguments)
            for path in install.unused(directory, arguments["plan"]["digest"]):
                shutil.rmtree(str(path), ignore_errors=True)
            return {"changed": changed}
        _stop(directory, arguments["init"])
        if action == "remove":
            leftovers.remove(directory)
    if action == "remove":
        shutil.rmtree(directory, ignore_errors=True)
        if os.path.isdir(directory):
            shutil.rmtree(directory)
        ours = 1 if directory.startswith(place.SYSTEM) else 2
        with contextlib.suppress(OSError):  # others are there
            for parent in list(Path(directory).parents)[:ours]:
                parent.rmdir()
    return {"changed": True}


def _start(arguments: dict[str, Any]) -> bool:
    directory, init, plan = arguments["directory"], arguments["init"], arguments["plan"]
    version = Path(directory, "versions", plan["digest"])
    if not version.is_dir():
        raise RuntimeError("the agent's files are not there: " + str(version), "install it anew")
    present = place.plan(directory)
    if present.get("node", plan["node"]) in arguments["others"]:
        raise RuntimeError(
            "this machine is node %s already" % present["node"],
            "remove one of the two entries: they name the same machine",
        )
    changed = _keep_token(directory, arguments["token"]) | (present != plan)
    changed |= _keep_authority(directory, arguments["authority"])
    if not changed and _kept(directory, init):
        return False
    _stop(directory, init)
    _point(directory, plan["digest"])
    place.write(directory + "/" + place.PLAN, json.dumps(plan))
    if init:
        unit.start(directory, init, plan["node"], [*_program(plan, version), directory, "exec"])
    else:
        _supervise([*_program(plan, version), directory])
    return True


def _keep_token(directory: str, token: str) -> bool:
    """Write it where the agent reads it; whether it is another one."""
    home = Path(directory, place.HOME, "agent")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = str(home / "token")
    if place.read(path).strip() == token:
        return False
    place.write(path, token + "\n")
    return True


def _keep_authority(directory: str, authority: str) -> bool:
    """Write it where the agent reads it; whether it is another one."""
    path = directory + "/" + place.AUTHORITY
    if place.read(path) == authority:
        return False
    place.write(path, authority)
    return True


def _point(directory: str, digest: str) -> None:
    """`current` names this version; always one of them."""
    partial = directory + "/current.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    os.symlink("versions/" + digest, partial)
    os.replace(partial, directory + "/" + place.CURRENT)


def _kept(directory: str, init: str) -> bool:
    return unit.active(directory, init) if init else bool(supervisor(directory))


def supervisor(directory: str) -> int:
    """Its pid; 0: there is none."""
    return place.holder(directory + "/supervisor")


def _program(plan: dict[str, Any], version: Path) -> list[str]:
    return [plan["python"], "-I", "-S", "-X", "utf8", "-c", _BOOT, str(version / "lib")]


def _supervise(command: list[str]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
    )
    if done.stdout.strip() != b"ready":
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["another one runs"]
        raise RuntimeError("the agent's supervisor does not start: " + words[-1], "try again")


def _stop(directory: str, init: str) -> None:
    """End whatever keeps the agent, of either kind, and the agent."""
    unit.stop(directory, init)
    leftovers.end(supervisor(directory), signal.SIGTERM, PATIENCE)
    leftovers.end(place.holder(directory + "/home/agent/lock"), signal.SIGTERM, PATIENCE)


def _tail(directory: str, init: str) -> list[str]:
    """What the agent said last."""
    text = unit.journal(directory, init) if init else place.read(directory + "/log")[-_TAIL:]
    return text.splitlines()[-_LINES:]
