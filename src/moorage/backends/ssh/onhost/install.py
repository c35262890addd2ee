"""Take in a bundle: complete under its digest, or not at all."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

from moorage.backends.ssh.onhost import place

_TRY = "import sys; sys.path.insert(0, sys.argv[1]); import moorage.agent.main"
_PATIENCE = 30.0


def main(arguments: dict[str, Any], stream: BinaryIO) -> dict[str, Any]:
    """`directory`, `digest`, `python`; the archive follows in `stream`. RuntimeError."""
    versions = Path(arguments["directory"], "versions")
    final = versions / arguments["digest"]
    with place.locked(arguments["directory"]):
        versions.mkdir(mode=0o700, exist_ok=True)
        if final.exists():
            return {"new": False}
        _tidy(versions)
        fresh = versions / (arguments["digest"] + ".new")
        try:
            _unpack(stream, fresh / "lib")
            _attempt(arguments["python"], fresh / "lib")
            _sync(fresh)
            fresh.rename(final)
        except BaseException:
            shutil.rmtree(str(fresh), ignore_errors=True)
            raise
    return {"new": True}


def _tidy(versions: Path) -> None:
    """What a program that was killed left: nobody else is at it, for we hold the lock."""
    for path in versions.glob("*.new"):
        shutil.rmtree(str(path), ignore_errors=True)


def _unpack(stream: BinaryIO, into: Path) -> None:
    into.mkdir(mode=0o700, parents=True)
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as archive:
            for entry in archive:
                path = into / entry.name
                if not entry.isfile() or ".." in path.parts or entry.name.startswith("/"):
                    raise RuntimeError("the bundle has an odd entry: " + entry.name)
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                body = archive.extractfile(entry)
                assert body is not None
                with open(str(path), "wb") as file:
                    shutil.copyfileobj(body, file)
    except (tarfile.TarError, EOFError) as error:
        raise RuntimeError("the bundle arrived damaged (%s)" % error, "try again") from None


def _sync(directory: Path) -> None:
    """A power failure must not leave a version of empty files. Only that filesystem: others may
    have much to write."""
    descriptor = os.open(str(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ctypes.CDLL(None).syncfs(descriptor)
    finally:
        os.close(descriptor)


def _attempt(python: str, lib: Path) -> None:
    """Import the agent, which also compiles it for the first start."""
    try:
        done = subprocess.run(
            [python, "-I", "-S", "-X", "utf8", "-c", _TRY, str(lib)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(
            "the agent does not start within 30 s there", "look at its load"
        ) from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        if "No space left" in words[-1]:
            raise RuntimeError("the disk is full in " + str(lib), "make space there")
        raise RuntimeError(
            "%s cannot import the agent: %s" % (python, words[-1]),
            "is it a complete Python, of the server's version?",
        )


def unused(directory: str, keep: str) -> list[Path]:
    """Versions that no process was started from, other than `keep`."""
    versions = Path(directory, "versions")
    named = place.commands()
    return [
        path
        for path in versions.glob("*")
        if path.name != keep and not any(str(path) in command for command in named)
    ]
