"""The supervisor as a process, with a small program in place of the agent."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.agent import supervisor
from moorage.agent.supervisor import command

PLAN = {"node": "n1", "digest": "d1", "python": sys.executable, "urls": [], "options": []}
AGENT = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("agent speaks", file=sys.stderr, flush=True)
with open(sys.argv[sys.argv.index("--home") + 1] + "/births", "w") as births:
    births.write("%d %s\\n" % (os.getpid(), " ".join(sys.argv[1:])))
signal.pause()
"""
START = "import sys; sys.path.insert(0, sys.argv[1]); " + (
    "from moorage.agent.supervisor import main; main(*sys.argv[2:])"
)
SOURCE = str(Path(supervisor.__file__).parents[2])
TIMEOUT = 60.0


class Place:
    """A directory as a host has it, with a pipe on which each agent says that it was born."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.put("d1")
        (directory / "home").mkdir()
        os.mkfifo(directory / "home" / "births")
        self.births = os.open(directory / "home" / "births", os.O_RDWR)
        self.write(**PLAN)

    def put(self, digest: str) -> None:
        package = self.directory / "versions" / digest / "lib" / "moorage" / "agent"
        package.mkdir(parents=True)
        (package.parent / "__init__.py").touch()
        (package / "__init__.py").touch()
        (package / "main.py").write_text(AGENT)

    def write(self, **plan: object) -> None:
        (self.directory / "plan.json").write_text(json.dumps(plan))

    def start(self) -> str:
        said = subprocess.run(
            [sys.executable, "-I", "-S", "-c", START, SOURCE, str(self.directory)],
            stdout=subprocess.PIPE,
            timeout=TIMEOUT,
            check=True,
        )
        return said.stdout.decode().strip()

    def born(self) -> tuple[int, str]:
        """Pid and arguments of the next agent."""
        readable, _, _ = select.select([self.births], [], [], TIMEOUT)
        assert readable, (self.directory / "log").read_text()
        pid, _, words = os.read(self.births, 4096).decode().strip().partition(" ")
        return int(pid), words

    @property
    def pid(self) -> int:
        return int((self.directory / "supervisor").read_text())

    def stop(self) -> None:
        end(self.pid, signal.SIGTERM)


def end(pid: int, number: signal.Signals) -> None:
    """Signal a process and wait until it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, number)
        assert select.select([descriptor], [], [], TIMEOUT)[0]
    finally:
        os.close(descriptor)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    if (tmp_path / "supervisor").exists():
        made.stop()
    os.close(made.births)


def test_an_agent_that_ends_is_started_again(place):
    assert place.start() == "ready"
    first, words = place.born()
    assert f"--tunnel {place.directory}/address" in words
    assert "--name n1" in words
    os.kill(first, signal.SIGKILL)
    second, _ = place.born()
    assert second != first
    log = (place.directory / "log").read_text()
    assert "agent speaks" in log
    assert "status -9" in log


def test_there_is_one_for_a_directory(place):
    assert place.start() == "ready"
    place.born()
    assert place.start() == "another"


def test_the_next_agent_is_of_the_plan_that_stands_then(place):
    place.start()
    first, _ = place.born()
    place.put("d2")
    place.write(**{**PLAN, "digest": "d2", "urls": ["http://a:1", "http://b:1"]})
    os.kill(first, signal.SIGKILL)
    _, words = place.born()
    assert "--server http://a:1,http://b:1" in words


def test_its_end_is_the_agents_end(place):
    place.start()
    agent, _ = place.born()
    watched = os.pidfd_open(agent)
    place.stop()
    assert select.select([watched], [], [], TIMEOUT)[0]
    os.close(watched)


def test_a_killed_supervisor_takes_the_agent_with_it(place):
    place.start()
    agent, _ = place.born()
    watched = os.pidfd_open(agent)
    end(place.pid, signal.SIGKILL)
    assert select.select([watched], [], [], TIMEOUT)[0]
    os.close(watched)
    assert place.start() == "ready"
    place.born()


def test_without_a_plan_it_leaves(place):
    place.start()
    agent, _ = place.born()
    watched = os.pidfd_open(place.pid)
    (place.directory / "plan.json").unlink()
    os.kill(agent, signal.SIGKILL)
    assert select.select([watched], [], [], TIMEOUT)[0]
    os.close(watched)


def test_the_log_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "LOG_LIMIT", 10)
    log = supervisor._open_log(tmp_path / "log")
    os.write(log, b"0123456789abcdef")
    supervisor._bound(log, tmp_path / "before")
    os.write(log, b"more")
    os.close(log)
    assert (tmp_path / "before").read_bytes() == b"6789abcdef"
    assert (tmp_path / "log").read_bytes() == b"more"


def test_the_arguments_of_an_agent():
    argv = command(Path("/d"), {**PLAN, "urls": ["http://a:1"], "options": ["--log-limit", "5"]})
    assert argv[0] == sys.executable
    assert argv[-8:] == [
        "--server",
        "http://a:1",
        "--home",
        "/d/home",
        "--name",
        "n1",
        "--log-limit",
        "5",
    ]
