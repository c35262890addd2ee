from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from moorage.agent.keeper import spawning

SHOW = "echo $GREETING; grep SigBlk /proc/self/status; echo $$ $(cut -d' ' -f6 /proc/$$/stat)"


def run(tmp_path: Path, script: str, **env: str) -> tuple[int, str]:
    output = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        argv = ["/bin/sh", "-c", script]
        pid = spawning.spawn(argv, env, [null, output, output], [signal.SIGPIPE])
    finally:
        os.close(null)
        os.close(output)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), (tmp_path / "out").read_text()


def test_a_job_goes_before_its_keeper_where_memory_is_full(tmp_path: Path) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    wanted = min(max(own, 0) + 300, 1000)
    # The shell may be quicker than what is written for it from outside.
    wait = f'until [ "$(cat /proc/$$/oom_score_adj)" = {wanted} ]; do :; done'
    show = f"{wait}; cat /proc/self/oom_score_adj"
    assert run(tmp_path, show, PATH=os.environ["PATH"]) == (0, f"{wanted}\n")


def test_a_process_gets_its_variables_a_session_and_no_blocked_signal(tmp_path: Path) -> None:
    old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        code, text = run(tmp_path, SHOW, GREETING="grüß dich", PATH=os.environ["PATH"])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    greeting, blocked, session = text.splitlines()
    assert code == 0
    assert greeting == "grüß dich"
    assert int(blocked.split()[1], 16) == 0
    assert len(set(session.split())) == 1


def test_a_signal_that_python_ignores_works_as_usual(tmp_path: Path) -> None:
    assert run(tmp_path, "kill -PIPE $$")[0] == -signal.SIGPIPE


def test_what_cannot_be_executed_says_why(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        spawning.spawn([str(tmp_path / "none")], {}, [], [])
    assert caught.value.errno == errno.ENOENT


def test_a_null_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="null byte"):
        spawning.spawn(["/bin/true"], {"A": "b\0c"}, [], [])
