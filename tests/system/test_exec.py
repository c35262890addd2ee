"""`moorage exec` and `moorage attach` over the real parts: what the command gets, and that nothing
of it stays."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import imagebuild
from system.cli_harness import COMMAND, PATIENCE, Command
from system.keeper_harness import gone, keeper_pid, modes

WAITS = "trap 'exit 0' TERM; echo ready; sleep 600 & wait"


@pytest.fixture
def moorage(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path / "home")
    yield command
    command("stop", "-x", "-y", "job")
    command("wait", "job")
    command.end()


def begin(moorage: Command, *options: str, script: str = WAITS) -> None:
    """A job that runs and has said `ready`."""
    done = moorage("run", "-d", "-n", "job", *options, "--", "sh", "-c", script)
    assert done.code == 0, done.err
    words = [*COMMAND, "logs", "-f", "job"]
    with subprocess.Popen(words, env=moorage.environment, stdout=subprocess.PIPE) as logs:
        assert logs.stdout is not None
        assert logs.stdout.readline() == b"ready\n"
        logs.kill()


def popen(moorage: Command, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *words], env=moorage.environment, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )


def test_a_command_gets_what_the_job_has_and_gives_back_what_it_says(moorage: Command) -> None:
    begin(moorage, "-e", "COLOUR=blue", script=f"echo made > here; {WAITS}")
    script = 'cat here; echo "$COLOUR"; echo bad >&2; exit 7'
    done = moorage("exec", "job", "--", "sh", "-c", script)
    assert (done.code, done.out, done.err) == (7, "made\nblue\n", "bad\n")
    assert moorage("exec", "-i", "job", "--", "cat", stdin="over\n").out == "over\n"
    assert moorage("exec", "job", "--", "sh", "-c", "kill -9 $$").code == 137
    missing = moorage("exec", "job", "--", "nosuch")
    assert (missing.code, missing.err) == (127, "moorage: nosuch: no such program in the job\n")
    assert '"command":"nosuch"' in moorage("events", "--json").out.replace(" ", "")


def test_much_goes_both_ways_at_once(moorage: Command, tmp_path: Path) -> None:
    begin(moorage)
    data = os.urandom(4_000_000)
    done = subprocess.run(
        [*COMMAND, "exec", "-i", "job", "--", "cat"],
        env=moorage.environment,
        input=data,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.stdout == data


def test_what_cannot_be_reached_is_said_in_a_line(moorage: Command) -> None:
    begin(moorage)
    assert moorage("exec", "nobody", "--", "true").code == 3
    done = moorage("exec", "--rank", "3", "job", "--", "true")
    assert done.err == "moorage: error: run job has no rank 3: it has one rank, 0\n"
    moorage("stop", "-x", "-y", "job")
    moorage("wait", "job")
    done = moorage("exec", "job", "--", "true")
    assert done.code == 2
    assert "run job has ended (cancelled): nothing of it runs that could be reached" in done.err


def test_a_terminal_has_our_size_and_passes_ctrl_c(moorage: Command) -> None:
    begin(moorage)
    # A shell that has just seen `tty` end well may take Ctrl-C for that program's alone.
    script = "tty; exec sleep 600"
    with moorage.on_terminal("exec", "-t", "job", "--", "sh", "-c", script) as screen:
        screen.expect("/dev/pts/")
        screen.type("\x03")
        assert screen.end() == 130


def test_ctrl_c_reaches_a_command_without_a_terminal(moorage: Command) -> None:
    begin(moorage)
    with popen(moorage, "exec", "job", "--", "sh", "-c", "echo on; exec sleep 600") as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"on\n"
        client.send_signal(signal.SIGINT)
        assert client.wait(PATIENCE) == 130


@pytest.mark.parametrize("victim", ["client", "agent", "keeper", "job"])
def test_nothing_is_left_of_a_command(moorage: Command, victim: str) -> None:
    begin(moorage)
    script = "echo $$; sleep 600 & echo $!; wait"
    with popen(moorage, "exec", "job", "--", "sh", "-c", script) as client:
        assert client.stdout is not None
        pids = [int(client.stdout.readline()) for _ in range(2)]
        if victim == "client":
            client.kill()
        elif victim == "agent":
            os.kill(int((moorage.home / "agent/lock").read_text()), signal.SIGKILL)
        elif victim == "keeper":
            os.kill(keeper_pid(moorage.home / "agent"), signal.SIGKILL)
        else:
            moorage("stop", "-x", "-y", "job")
        assert all(gone(pid) for pid in pids)
        assert client.wait(PATIENCE) != 0


def test_a_container_is_entered(moorage: Command, tmp_path: Path) -> None:
    if modes(tmp_path / "probe")["probed"].containers or not imagebuild.BUSYBOX.exists():
        begin(moorage)
        pytest.skip("no containers here")
    path = imagebuild.docker_archive(
        tmp_path / "box.tar", [imagebuild.busybox()], Env=["PATH=/bin"], WorkingDir="/made"
    )
    begin(moorage, "--image", f"docker-archive:{path}", "-u", "ann")
    done = moorage("exec", "job", "--", "sh", "-c", "id -un; pwd; ls /bin/busybox")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == ["ann", "/made", "/bin/busybox"]


def test_ports_are_here_while_a_run_is_attached(moorage: Command) -> None:
    server = "import http.server as h; s = h.ThreadingHTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler); print('ready', flush=True); open('port', 'w').write(str(s.server_port)); s.serve_forever()"  # noqa: E501
    done = moorage("run", "-d", "-n", "job", "--", "python3", "-c", server)
    assert done.code == 0, done.err
    assert moorage("exec", "job", "--", "sh", "-c", "until [ -s port ]; do :; done").code == 0
    port = moorage("exec", "job", "--", "cat", "port").out
    words = [*COMMAND, "attach", "job", "--port", f"*:{port}"]
    with subprocess.Popen(words, env=moorage.environment, stderr=subprocess.PIPE) as attached:
        assert attached.stderr is not None
        url = attached.stderr.readline().decode().split()[1]
        with urllib.request.urlopen(url, timeout=PATIENCE) as reply:
            assert b"port" in reply.read()
        attached.send_signal(signal.SIGINT)
        assert attached.wait(PATIENCE) == 0
    assert "running" in moorage("ps").out


def test_signals_pass_while_nobody_reads_the_output(moorage: Command) -> None:
    begin(moorage)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    # Room for a page only: a write of more would block, although there is room.
    os.write(writer, bytes(fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)))
    os.read(reader, 4096)
    script = "head -c 300000 /dev/zero; echo $$ >&2; exec sleep 600"
    words = [*COMMAND, "exec", "job", "--", "sh", "-c", script]
    with subprocess.Popen(
        words, env=moorage.environment, stdout=writer, stderr=subprocess.PIPE
    ) as client:
        os.close(writer)
        assert client.stderr is not None
        pid = int(client.stderr.readline())
        client.send_signal(signal.SIGTERM)
        assert gone(pid)
        with open(reader, "rb") as rest:
            assert len(rest.read()) >= 300_000
        assert client.wait(PATIENCE) == 143


@pytest.mark.skipif(shutil.which("perl") is None, reason="no program that sets a title")
def test_a_program_that_writes_over_its_variables_keeps_none_from_us(moorage: Command) -> None:
    title = '$| = 1; $0 = "t" x 20000; print "ready\\n"; sleep 600'
    begin(moorage, "-e", "COLOUR=blue", script=f"exec perl -e '{title}'")
    assert moorage("exec", "job", "--", "sh", "-c", "echo $COLOUR").out == "blue\n"
