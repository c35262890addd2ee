"""The start-once record: one directory for each attempt that this node ever agreed to run.

`mkdir` is the claim, and it precedes every other action, so a repeated `Start` can never run
anything twice: the second `mkdir` fails. The directory is removed only when the server has said
that the attempt's end is durable on its side (`Forget`).

Nothing here is synced to disk. What must be survived is the death of the agent, and the page
cache does survive that. When the machine itself goes down, no process of an attempt outlives it,
the boot id changes, and the server learns that everything it has placed here is lost.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from moorage.data import scratch
from moorage.data.base import SourceError
from moorage.decoding import json_decoder, msgpack_decoder
from moorage.ids import AttemptKey
from moorage.protocol.agent import (
    AttemptState,
    Held,
    Launch,
    Outcome,
    Phase,
    PhaseName,
    Usage,
)
from moorage.protocol.mounts import MountHealth

log = logging.getLogger("moorage.agent")

LAUNCH = "launch.msgpack"
JOURNAL = "phases.jsonl"

_encode_launch = msgspec.msgpack.Encoder().encode
_decode_launch = msgpack_decoder(Launch)


class Line(Struct, frozen=True, omit_defaults=True):
    """One line of the journal. `outcome` stands where the end was decided before `clean`: a
    restarted agent then goes on undoing instead of deciding again. `final` is the last line: with
    it nothing is left to do."""

    at: float
    phase: PhaseName | None = None
    edge: Literal["begin", "end"] = "begin"
    detail: str = ""
    outcome: Outcome | None = None
    usage: Usage | None = None
    final: bool = False


_encode_line = msgspec.json.Encoder().encode
_decode_line = json_decoder(Line)


@dataclass(slots=True)
class Claim:
    """One claimed attempt, on disk and in memory."""

    key: str
    directory: Path
    launch: Launch | None = None
    """None where the agent died between the claim and writing it down: nothing was done then."""
    state: AttemptState = "staging"
    phases: list[Phase] = field(default_factory=list)
    outcome: Outcome | None = None
    usage: Usage | None = None
    journal: int = -1
    """Descriptor of the journal, open while phases are still to come."""
    unwritten: bytes = b""
    """Lines that no action depends on yet."""

    def held(self) -> Held:
        """What the server is told."""
        return Held(self.key, self.state, list(self.phases), self.outcome, self.usage)

    def begin(self, phase: PhaseName, *, at_once: bool = True) -> None:
        """Record that a phase starts now; a phase that an earlier agent began is begun anew.
        Where not `at_once`, the line waits for the next one that is: an agent that is killed
        before that has done nothing in the phase that cannot be done again."""
        now = time.time()
        self._append(Line(now, phase), at_once)
        self._note(Phase(phase, now))

    def end(
        self, phase: PhaseName, detail: str = "", at: float | None = None, *, at_once: bool = True
    ) -> None:
        """Record that a phase is over, well or badly."""
        now = time.time() if at is None else at
        detail = _printable(detail)
        self._append(Line(now, phase, "end", detail), at_once)
        self._finish(phase, now, detail)

    def say(self, phase: PhaseName, detail: str, mounts: Sequence[MountHealth] = ()) -> None:
        """How far a phase is, if it lasts, and how its mounts are; nothing of it is written
        down."""
        for place, known in enumerate(self.phases):
            if known.name == phase and known.ended is None:
                text = _printable(detail)
                self.phases[place] = Phase(phase, known.began, None, text, list(mounts))

    def decide(self, outcome: Outcome) -> None:
        """Record how the attempt ended; what follows only tidies up."""
        self.outcome = msgspec.structs.replace(outcome, message=_printable(outcome.message))
        self._append(Line(time.time(), outcome=self.outcome), True)

    def finish(self, outcome: Outcome) -> None:
        """The last word: the state becomes `done`, durable against the death of the agent."""
        # On a full disk an agent that is killed now decides anew from the journal and exit.json.
        self._append(Line(time.time(), outcome=outcome, usage=self.usage, final=True), True)
        self.outcome = outcome
        self.state = "done"
        self.close()

    def ended(self, phase: PhaseName) -> bool:
        """Whether that phase is over."""
        for known in self.phases:
            if known.name == phase:
                return known.ended is not None
        return False

    def close(self) -> None:
        """Close the journal."""
        if self.journal >= 0:
            os.close(self.journal)
            self.journal = -1

    def _append(self, line: Line, at_once: bool) -> None:
        # One write call for whole lines: an agent that is killed leaves no torn one, only a full
        # disk tears or refuses one. Then a restarted agent repeats a phase, which is always
        # allowed; the leading newline keeps a torn line from swallowing its successor.
        self.unwritten += b"\n" + _encode_line(line)
        if not at_once:
            return
        with suppress(OSError):
            if self.journal < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self.journal = os.open(f"{self.directory}/{JOURNAL}", flags, 0o600)
            os.write(self.journal, self.unwritten)
        self.unwritten = b""

    def _note(self, phase: Phase) -> None:
        for known in self.phases:
            if known.name == phase.name:
                self.phases.remove(known)
                break
        self.phases.append(phase)

    def _finish(self, phase: PhaseName, at: float, detail: str) -> None:
        for place in reversed(range(len(self.phases))):  # as a rule it is the last
            known = self.phases[place]
            if known.name == phase:
                if known.ended is None:
                    self.phases[place] = Phase(phase, known.began, at, detail, known.mounts)
                return

    def load(self) -> None:
        """Read back what an earlier agent wrote; what is torn or missing was not done."""
        with suppress(OSError, msgspec.MsgspecError):
            self.launch = _decode_launch((self.directory / LAUNCH).read_bytes())
        for line in _lines(self.directory / JOURNAL):
            if line.outcome is not None:
                self.outcome, self.usage = line.outcome, line.usage
                self.state = "done" if line.final else "staging"
            elif line.phase is not None and line.edge == "begin":
                self._note(Phase(line.phase, line.at))
            elif line.phase is not None:
                self._finish(line.phase, line.at, line.detail)


class Claims:
    """All claims of this node. `root` is the `attempts` directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, Claim] = {}

    def read(self) -> list[Claim]:
        """Every claim that earlier agents left, oldest first; called once, at the start."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys = []
        for entry in os.scandir(self.root):
            with suppress(ValueError):
                keys.append(AttemptKey.parse(entry.name))
        for key in sorted(keys):
            claim = Claim(str(key), self.root / str(key))
            claim.load()
            self._known[claim.key] = claim
        return list(self._known.values())

    def take(self, launch: Launch) -> Claim | None:
        """Claim this attempt; None where it was claimed before. OSError: the disk refuses, and
        nothing of the claim is left."""
        key = key_of(launch)
        directory = f"{self.root}/{key}"
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            return None
        try:
            _write_new(f"{directory}/{LAUNCH}", _encode_launch(launch))
        except OSError:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        claim = self._known[key] = Claim(key, Path(directory), launch)
        return claim

    def get(self, key: str) -> Claim | None:
        """The claim of that key, if it is held."""
        return self._known.get(key)

    def held(self) -> list[Held]:
        """The full inventory, for `Hello`."""
        return [claim.held() for claim in self._known.values()]

    def forget(self, key: str) -> None:
        """Drop a finished claim; one that is not `done`, or unknown, is left as it is."""
        claim = self._known.get(key)
        if claim is not None and claim.state == "done":
            del self._known[key]
            claim.close()
            _remove(str(claim.directory))

    def close(self) -> None:
        """Close what is open; the records stay."""
        for claim in self._known.values():
            claim.close()


def key_of(launch: Launch) -> str:
    """The name of the attempt."""
    return f"{launch.job}.{launch.attempt}.{launch.rank}"  # as AttemptKey says it


def _printable(text: str) -> str:
    """The text with what cannot be encoded spelt out: names of files may be any bytes."""
    return text.encode(errors="backslashreplace").decode()


def _write_new(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if os.write(descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(descriptor)


def _remove(directory: str) -> None:
    """Remove the records, and what `clean` could not remove, unless something is mounted there."""
    try:
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    except OSError:
        try:
            scratch.remove(Path(directory))
        except SourceError as error:
            log.warning("%s", error)


def _lines(path: Path) -> list[Line]:
    """The readable lines of a journal; a torn one (the disk was full) counts as not written."""
    try:
        raw = path.read_bytes()
    except OSError:
        return []
    lines = []
    for text in raw.split(b"\n"):
        with suppress(msgspec.MsgspecError):
            lines.append(_decode_line(text))
    return lines
