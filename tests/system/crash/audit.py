"""What must be true when all is over, however many processes were killed on the way."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage.agent.keeper.main import group_name
from moorage.agent.node.isolation import PROBE
from moorage.agent.stage import NEVER_STARTED
from moorage.protocol.agent import PHASES
from system.crash.ledger import Line
from system.crash.notice import until
from system.crash.world import World, told
from system.keeper_harness import processes

GONE = ("lost", "unstarted")


@dataclass(frozen=True)
class Expected:
    """How a run must end: its exit code, where it is left to itself. `retried`: an attempt that
    was lost is followed by another; `stopped`: a user may have ended it; `reasons`: other ends
    that it may have; `fragile`: may be lost although its process ran (its keeper was killed)."""

    code: int = 0
    retried: bool = False
    stopped: bool = False
    reasons: tuple[str, ...] = ()
    fragile: bool = False


def audit(world: World, expected: dict[int, Expected]) -> None:
    """AssertionError with the first thing that is not as it must be."""
    views = {run: world.end(run) for run in expected}
    for run, view in views.items():
        judge(view, expected[run], world)
    settled(world)
    nothing_left(world)
    unexpected, world.unexpected = world.unexpected, []  # the next test is not to blame
    assert not unexpected, unexpected


def settled(world: World) -> None:
    """Wait until the agent was told to forget all, and has."""
    attempts = world.home / "agent" / "attempts"

    def bare() -> bool:
        return not list(attempts.iterdir())

    assert until(attempts, bare), f"left: {sorted(path.name for path in attempts.iterdir())}"


# The truth of what users see


def judge(view: Any, expected: Expected, world: World) -> None:
    """One run, shown as it was."""
    for job in view["jobs"]:
        lines = world.ledger.lines(job["id"])
        message = f"{told(view)}\n{lines}"
        alone(lines, message)
        attempts(job, lines, message)
        if job is view["jobs"][-1]:
            ending(job, lines, expected, message)


def alone(lines: list[Line], message: str) -> None:
    """No attempt ran twice, no two at one time."""
    assert not [line for line in lines if line.word == "overlap"], message
    begun = [line.attempt for line in lines if line.word == "begin"]
    assert len(begun) == len(set(begun)), f"an attempt ran twice: {message}"
    assert begun == sorted(begun), message


def attempts(job: Any, lines: list[Line], message: str) -> None:
    """Numbered without a gap, each over, each with its phases, and told as it was."""
    shown = job.get("attempts", [])
    assert [attempt["attempt"] for attempt in shown] == list(range(1, len(shown) + 1)), message
    known = {attempt["attempt"] for attempt in shown}
    assert {line.attempt for line in lines} <= known, f"ran, but is not shown: {message}"
    for attempt in shown:
        assert attempt["state"] == "done", message
        ran = {line.word: line for line in lines if line.attempt == attempt["attempt"]}
        outcome = attempt["outcome"]
        if NEVER_STARTED in outcome.get("message", ""):
            assert not ran, f"said not to have run: {message}"
        if outcome["kind"] == "exited" and outcome["exit_code"] == 0:
            assert {"begin", "end"} <= set(ran), message
        if "begin" in ran:
            assert attempt.get("started_at") is not None, message
        phases(attempt, ran, message)


def phases(attempt: Any, ran: dict[str, Line], message: str) -> None:
    """In their order, each once."""
    names = [phase["name"] for phase in attempt.get("phases", [])]
    assert names == [name for name in PHASES if name in names], message
    for phase in attempt.get("phases", []):
        ended = phase.get("ended")
        # One that an agent died in, before the process: it was undone, never ended.
        assert ended is not None or attempt["outcome"]["kind"] in GONE, message
        assert ended is None or phase["began"] <= ended + 0.01, message
    if "begin" in ran and attempt["outcome"]["kind"] not in GONE:
        assert {"run", "unmount", "clean"} <= set(names), message


def ending(job: Any, lines: list[Line], expected: Expected, message: str) -> None:
    """State, reason and exit code are those that the job deserves."""
    shown = job.get("attempts", [])
    reason, state = job.get("reason", ""), job["state"]
    if state == "cancelled":
        assert expected.stopped, message
        return
    if reason in expected.reasons:
        return
    if reason == "lost":
        assert not expected.retried, message
        assert expected.fragile, f"lost though only its agent died: {message}"
        assert job["message"], message
        assert job["state"] == "failed", message
        return
    wanted = "succeeded" if expected.code == 0 else "failed"
    assert (state, job.get("exit_code")) == (wanted, expected.code), message
    ended = [line for line in lines if line.word == "end"]
    assert ended, message
    assert ended[-1].attempt == len(shown), message


# Nothing stays


def nothing_left(world: World) -> None:
    """No process, mount, control group, directory of a job."""
    left = [line for line in map(command, processes(world.home)) if not is_ours(line)]
    assert not left, left
    inside = [line for line in mounts_naming(world.home.parent.name) if not is_home(line, world)]
    assert not inside, inside
    assert not groups(world.home), groups(world.home)
    arriving = list((world.home / "agent" / "cache").rglob("arriving-*"))
    assert not arriving, arriving
    partial = world.home / "server" / "partial"
    assert not partial.exists() or not list(partial.iterdir()), list(partial.iterdir())


def command(pid: int) -> str:
    """Its number and arguments; nothing where it ended meanwhile."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return f"{pid}: {words}"
    return ""


def is_ours(line: str) -> bool:
    """A server, an agent or a keeper: one may just be starting."""
    programs = (
        "moorage.server.main",
        "moorage.agent.main",
        "moorage.agent.keeper.main import main",
    )
    return not line or any(program in line for program in programs)


def is_home(line: str, world: World) -> bool:
    """The home, or a part of it, may be a file system of its own."""
    parts = [world.home, world.home / "agent", world.home / "server"]
    return line.split()[5] in map(str, parts)


def mounts_naming(directory: str) -> Iterable[str]:
    """Mounts at or of a directory of this name, in any namespace that can be seen."""
    seen = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            namespace = Path(entry.path, "ns", "mnt").readlink()
            if namespace in seen:
                continue
            seen.add(namespace)
            text = Path(entry.path, "mountinfo").read_text(errors="replace")
            for line in text.splitlines():
                if directory in line:
                    yield f"{entry.name}: {line}"


def groups(home: Path) -> list[str]:
    """Control groups of attempts, in every hierarchy."""
    name = group_name(str(home / "agent"))
    top = Path("/sys/fs/cgroup")
    found = [*top.glob(f"*/moorage/{name}/*/"), *top.glob(f"moorage/{name}/*/")]
    # An agent may just be starting.
    return [str(path) for path in found if path.name != PROBE]


def descriptors(world: World) -> dict[str, int]:
    """How many each of the processes has open, but for what it keeps for the next time: a keeper
    roots, as many as jobs ran at once, a server readers of its database, as many as read at once.
    """
    found = {}
    for name in ("server", "agent", "keeper"):
        with suppress(OSError):
            numbers = list(Path(f"/proc/{world.pid(name)}/fd").iterdir())
            found[name] = len(numbers) - sum(map(is_kept, numbers))
    return found


def is_kept(descriptor: Path) -> bool:
    """Or closed meanwhile."""
    try:
        link = str(descriptor.readlink())
    except FileNotFoundError:
        return True
    return link == "/" or link.startswith("mnt:") or "/moorage.db" in link
