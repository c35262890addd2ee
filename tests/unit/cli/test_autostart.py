from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from moorage.cli import autostart
from moorage.errors import InvalidInput, Unreachable

SERVER = """
import json, os, socket, sys
home, ready = sys.argv[2], int(sys.argv[4])
listening = socket.create_server(("127.0.0.1", 0))
port = listening.getsockname()[1]
with open(home + "/server.json", "w") as file:
    json.dump({"url": f"http://127.0.0.1:{port}", "pid": os.getpid(), "token": "t"}, file)
with open(home + "/starts", "a") as file:
    file.write(f"{os.getpid()} {os.getsid(0)}\\n")
os.write(ready, b"ready\\n")
os.close(ready)
while True:
    listening.accept()[0].close()
"""
BROKEN = """
import sys
print("first line")
sys.exit("moorage: error: the database is from the future")
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home whose server is a small script; what was started is killed at the end."""

    def command(home: Path) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", SERVER, "--home", str(home)]

    monkeypatch.setattr(autostart, "server_command", command)
    yield tmp_path
    for pid, _ in starts(tmp_path):
        try:
            process = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(process)
        except (ProcessLookupError, ChildProcessError):
            pass


def starts(home: Path) -> list[tuple[int, int]]:
    path = home / "starts"
    if not path.exists():
        return []
    pairs = [line.split() for line in path.read_text().splitlines()]
    return [(int(pid), int(session)) for pid, session in pairs]


def test_the_first_command_starts_a_server_in_a_session_of_its_own(home):
    address, started = autostart.ensure(home)
    assert started
    [(pid, session)] = starts(home)
    assert address.pid == pid == session
    assert (home / "server.log").stat().st_mode & 0o777 == 0o600


def test_a_server_that_runs_is_found(home):
    first, _ = autostart.ensure(home)
    second, started = autostart.ensure(home)
    assert (second, started) == (first, False)


def test_two_commands_that_race_start_one_server(home):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(autostart.ensure(home))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(starts(home)) == 1
    assert sorted(started for _, started in found) == [False, False, False, True]
    assert len({address.url for address, _ in found}) == 1


def test_a_dead_server_is_started_again(home):
    first, _ = autostart.ensure(home)
    os.kill(first.pid, signal.SIGKILL)
    os.waitpid(first.pid, 0)
    second, started = autostart.ensure(home)
    assert started
    assert second.pid != first.pid


def test_a_process_that_took_the_number_of_the_server_is_not_the_server(home):
    stale = {"url": "http://127.0.0.1:1", "pid": os.getpid(), "token": "t"}
    (home / "server.json").write_text(json.dumps(stale))
    _, started = autostart.ensure(home)
    assert started


def test_a_cut_address_file_counts_as_no_server(home):
    (home / "server.json").write_text('{"url": "htt')
    _, started = autostart.ensure(home)
    assert started


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (1, Unreachable, "the server did not start: the disk is full; free some"),
        (2, InvalidInput, "the disk is full; free some"),
    ],
)
def test_a_server_that_says_why_it_ends_is_quoted_in_one_line(
    tmp_path, monkeypatch, code, error, text
):
    words = f"print('noise'); print('moorage server: the disk is full; free some'); exit({code})"
    monkeypatch.setattr(autostart, "server_command", lambda home: [sys.executable, "-c", words])
    with pytest.raises(error) as caught:
        autostart.ensure(tmp_path)
    assert str(caught.value) == text


def test_all_problems_of_its_settings_are_shown(tmp_path):
    (tmp_path / "config.yml").write_text("run_limit: x\nlog_limit: y\n")
    with pytest.raises(InvalidInput) as caught:
        autostart.ensure(tmp_path)
    assert "run_limit: 'x' is" in str(caught.value)
    assert "log_limit: 'y' is" in str(caught.value)


def test_a_server_that_dies_shows_the_end_of_its_log(tmp_path, monkeypatch):
    command = [sys.executable, "-I", "-S", "-c", BROKEN]
    monkeypatch.setattr(autostart, "server_command", lambda home: command)
    (tmp_path / "server.log").write_text("from an earlier start\n")
    with pytest.raises(Unreachable) as caught:
        autostart.ensure(tmp_path)
    assert "the database is from the future" in str(caught.value)
    assert "earlier" not in str(caught.value)
