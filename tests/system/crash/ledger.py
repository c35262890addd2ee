"""What jobs themselves say of their life, in a file that nothing of moorage touches.

Each line is `word job attempt pid seconds`. `begin` and `end` frame a life; `overlap` is written
where another process of the same job still lived, which is told by a lock that the job's processes
inherit and that ends with the last of them.
"""

from __future__ import annotations

import fcntl
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from system.crash.notice import until


class Line(NamedTuple):
    word: str
    job: int
    attempt: int
    pid: int
    at: float


class Ledger:
    """In a directory that no job's private mounts cover."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self._file = directory / "lines"
        self._file.touch()
        (directory / "locks").mkdir()

    def command(self, body: str = ":") -> str:
        """A command that writes its begin, does `body` (which may exit), and writes its end."""
        locks, lines = (shlex.quote(str(self.directory / name)) for name in ("locks", "lines"))
        say = f'"$MOORAGE_JOB_ID $MOORAGE_ATTEMPT $$ $EPOCHREALTIME" >> {lines}'
        return (
            f"exec 9>>{locks}/$MOORAGE_JOB_ID; flock -n 9 || echo overlap {say}; "
            f"echo begin {say}; trap 'code=$?; echo end {say}; exit $code' EXIT; {body}"
        )

    @contextmanager
    def closed(self, name: str) -> Iterator[Path]:
        """A gate that is closed for the length of the block."""
        path = self.directory / name
        with path.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield path

    def waiting(self, gate: Path) -> str:
        """Shell that goes on once the gate is open."""
        return f"flock -s {shlex.quote(str(gate))} true"

    def lines(self, job: int | None = None) -> list[Line]:
        found = []
        for text in self._file.read_text().splitlines():
            word, number, attempt, pid, at = text.split()
            found.append(Line(word, int(number), int(attempt), int(pid), float(at)))
        return [line for line in found if job in (None, line.job)]

    def until(self, word: str, job: int, attempt: int = 1) -> Line:
        """Wait for that line."""

        def there() -> list[Line]:
            return [x for x in self.lines(job) if (x.word, x.attempt) == (word, attempt)]

        assert until(self._file, lambda: bool(there())), f"no {word} of {job}.{attempt}"
        return there()[0]
