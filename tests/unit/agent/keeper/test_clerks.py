"""Who answers held calls: started with the first one, again where it dies, and for what is started
beside the job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.agent.fsyncs import calls
from moorage.agent.keeper import spawning
from moorage.agent.keeper.clerks import Clerk, Handover
from moorage.agent.keeper.loop import Loop

FSYNC = """
import os, sys
with open(sys.argv[1], "w") as file:
    for _ in range(int(sys.argv[2])):
        os.fsync(file)
"""
EACH = """
import os, sys
with open(sys.argv[1], "w") as file:
    for line in sys.stdin:
        os.fsync(file)
        print("synced", flush=True)
"""


class Keeper:
    """A loop that runs, and a job whose calls are held."""

    def __init__(self, place: Path) -> None:
        self.place = place / "file"
        self.loop = Loop()
        self.known: dict[int, Clerk] = {}
        self.job = self._job()
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def _job(self) -> subprocess.Popen[bytes]:
        handed = Handover()
        words = [sys.executable, "-c", EACH, str(self.place)]
        pipe = subprocess.PIPE
        job = subprocess.Popen(words, stdin=pipe, stdout=pipe, preexec_fn=handed.hold)
        self.clerk = Clerk(self.loop, handed.received(), [], self.known)
        return job

    def reap(self) -> int:
        """The clerk that has ended."""
        pid, _ = os.waitpid(next(iter(self.known)), 0)
        self.loop.post(self.known[pid].died)
        self.rounds()
        return pid

    def rounds(self) -> None:
        """Of the loop, in which it sees all that has happened until now."""
        for _ in range(3):
            seen = threading.Event()
            self.loop.later(0, seen.set)
            self.loop.post(lambda: None)
            assert seen.wait(30)

    def close(self) -> None:
        self.job.kill()
        self.job.communicate()
        self.loop.post(self.clerk.end)
        self.loop.post(self.loop.stop)
        self._thread.join()
        for pid in self.known:
            os.waitpid(pid, 0)


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    if why := calls.why_not():
        pytest.skip(why)
    monkeypatch.syspath_prepend(Path(calls.__file__).parents[3])  # where a keeper has it
    made = Keeper(tmp_path)
    yield made
    made.close()


def test_it_starts_with_the_first_call(keeper: Keeper) -> None:
    assert not keeper.known
    keeper.job.communicate(b"1\n2\n3\n", timeout=30)
    assert keeper.job.returncode == 0
    assert len(keeper.known) == 1


def test_what_is_started_beside_is_answered_too(keeper: Keeper) -> None:
    words = [sys.executable, "-c", FSYNC, str(keeper.place), "2"]
    environment = {"PATH": os.environ["PATH"]}
    pid = keeper.clerk.beside(lambda: spawning.spawn(words, environment, [0, 1, 2], ()))
    filters = Path(f"/proc/{pid}/status").read_text().partition("Seccomp:\t")[2]
    assert filters.startswith("2")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with pytest.raises(OSError, match="no such program"):
        keeper.clerk.beside(_fail)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _fail() -> None:
    raise OSError("no such program")


def test_one_that_dies_is_started_again(keeper: Keeper) -> None:
    assert keeper.job.stdin is not None
    assert keeper.job.stdout is not None
    keeper.job.stdin.write(b"1\n")
    keeper.job.stdin.flush()
    assert keeper.job.stdout.readline() == b"synced\n"
    os.kill(next(iter(keeper.known)), signal.SIGKILL)
    before = keeper.reap()
    assert keeper.job.communicate(b"2\n3\n", timeout=30) == (b"synced\nsynced\n", None)
    assert keeper.job.returncode == 0
    assert keeper.known
    assert before not in keeper.known


@pytest.mark.parametrize("times", [0, 2])
def test_of_what_was_started_beside_nothing_is_left(keeper: Keeper, times: int) -> None:
    """A job may be looked into as often as one likes."""
    words = [sys.executable, "-c", FSYNC, str(keeper.place), str(times)]
    environment = {"PATH": os.environ["PATH"]}
    before = descriptors()
    for _ in range(2):
        pid = keeper.clerk.beside(lambda: spawning.spawn(words, environment, [0, 1, 2], ()))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        if times:
            keeper.reap()
        deadline = time.monotonic() + 30
        # The thread that started it is joined a moment before the kernel has forgotten it.
        while keeper.known or descriptors() != before:
            assert time.monotonic() < deadline, (keeper.known, descriptors(), before)
            keeper.rounds()


VIEW = """
import sys
from moorage.agent.keeper import launching
def view(*_):
    print("moorage.agent.fsyncs.calls" in sys.modules)
    raise launching.LaunchError("enough", "mount")
launching._own_view = view
launching.start({"fsyncs": ["/x"], "mounts": [], "output": "/dev/null"}, None, None)
"""


def test_nothing_is_loaded_from_what_the_job_sees() -> None:
    """There a mount may hide the program, or be in its place."""
    source = str(Path(calls.__file__).parents[3])
    words = ["-I", "-S", "-c", f"import sys; sys.path.insert(0, {source!r})\n{VIEW}"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
