"""Parts of an object for a file of the cache that was changed here and never fetched in full."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from moorage.data.base import SourceError
from moorage.data.rclone import environment, options, program
from moorage.data.rclone.holes import Span

_PATIENCE = 60.0  # seconds without a byte
_PIECE = 1 << 20
_NOT_THERE = (3, 4)  # how rclone ends where there is no such directory or file


def fetch(
    path: Path, file: int, gaps: list[Span], variables: Mapping[str, str], wake: int = -1
) -> None:
    """Write these parts of the object `path`, bucket first, into `file`; nothing where there is
    none. SourceError; also as soon as `wake` can be read."""
    where = f"{options.REMOTE}:{path}"
    told = _run(variables, wake, None, ["lsjson", "--stat", "--no-modtime", where])
    if told is None or json.loads(told)["IsDir"]:
        return
    begin, end = gaps[0][0], gaps[-1][1]
    target = _Gaps(file, gaps)
    count = str(end - begin)
    _run(variables, wake, target, ["cat", "--offset", str(begin), "--count", count, where])


class _Gaps:
    """Takes what follows `gaps[0]`, and keeps what belongs into a gap."""

    def __init__(self, file: int, gaps: list[Span]) -> None:
        self._file, self._gaps, self._place = file, gaps, gaps[0][0]

    def take(self, piece: bytes) -> None:
        start, end = self._place, self._place + len(piece)
        for first, last in self._gaps:
            begin, stop = max(first, start), min(last, end)
            if begin < stop:
                os.pwrite(self._file, piece[begin - start : stop - start], begin)
        self._place = end


def _run(
    variables: Mapping[str, str], wake: int, target: _Gaps | None, words: list[str]
) -> bytes | None:
    """What it prints, if that goes nowhere else; None where nothing is there. SourceError."""
    brief = ["--retries", "1", "--low-level-retries", "3"]
    process = subprocess.Popen(
        [str(program.find()), *words, *brief],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment.of_process(variables),
        cwd="/",
    )
    with process:
        try:
            said = _read(process.stdout, wake, target)
        except BaseException:
            process.kill()
            raise
    if process.returncode in _NOT_THERE:
        return None
    if process.returncode:
        raise SourceError("the rest of a file that was changed here cannot be fetched")
    return said


def _read(stream: IO[bytes] | None, wake: int, target: _Gaps | None) -> bytes:
    assert stream is not None
    said = b""
    wanted = [stream.fileno(), *([wake] if wake >= 0 else [])]
    while True:
        ready = select.select(wanted, [], [], _PATIENCE)[0]
        if wanted[0] not in ready or wake in ready:
            raise SourceError("the store does not answer")
        piece = os.read(wanted[0], _PIECE)
        if not piece:
            return said
        if target is None:
            said += piece
        else:
            target.take(piece)
