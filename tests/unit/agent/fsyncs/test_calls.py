"""Calls that wait for an answer. The filter is installed by a program of its own, which hands the
descriptor over: a thread here would keep it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorage.agent.fsyncs import calls
from moorage.agent.fsyncs.calls import Listener
from moorage.agent.keeper.clerks import Handover


@contextmanager
def held(text: str) -> Iterator[tuple[subprocess.Popen[str], Listener]]:
    """A program whose calls are held."""
    if why := calls.why_not():
        pytest.skip(why)
    handed = Handover()
    words = [sys.executable, "-c", f"import ctypes, errno, os, tempfile\n{text}"]
    process = subprocess.Popen(
        words, preexec_fn=handed.hold, stdout=subprocess.PIPE, text=True, close_fds=True
    )
    descriptor = handed.received()
    try:
        with process:
            yield process, Listener(descriptor)
    finally:
        os.close(descriptor)


FSYNC = """
file = tempfile.TemporaryFile()
for _ in range(3):
    try:
        os.fsync(file)
        print(0)
    except OSError as error:
        print(errno.errorcode[error.errno])
os.fdatasync(file)
"""


def test_each_answer() -> None:
    with held(FSYNC) as (process, listener):
        for answer in (listener.proceed, listener.answer, lambda n: listener.answer(n, errno.EIO)):
            call = listener.receive()
            assert call is not None
            assert call.name == calls.FSYNC
            assert call.pid == process.pid
            link = Path(f"/proc/{call.pid}/fd/{call.arguments[0]}").readlink()
            assert str(link).endswith("(deleted)")
            assert listener.waits(call.id)
            assert answer(call.id)
            assert not listener.waits(call.id)
            assert not answer(call.id)
        call = listener.receive()
        assert call is not None
        assert call.name == calls.FDATASYNC
        listener.proceed(call.id)
        assert process.communicate()[0].split() == ["0", "0", "EIO"]


def test_rings_are_refused_and_all_else_goes_its_way() -> None:
    """The fsync of a ring would never be seen."""
    text = """
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(425, 4, ctypes.create_string_buffer(256)), errno.errorcode[ctypes.get_errno()])
"""
    with held(text) as (process, _):
        assert process.communicate()[0] == "-1 ENOSYS\n"


def test_nobody_loads_it_before_a_job_asks() -> None:
    text = (
        "import sys, moorage.agent.keeper.main\nprint([m for m in sys.modules if 'fsyncs' in m])"
    )
    source = Path(calls.__file__).parents[3]
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(source)!r})\n{text}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_old_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls.platform, "release", lambda: "5.4.0-42-generic")
    assert (
        calls.why_not()
        == "Linux 5.5 or newer with seccomp is needed, and this is 5.4.0-42-generic"
    )
    monkeypatch.setattr(calls.platform, "machine", lambda: "riscv64")
    assert calls.why_not() == "it is not known for machines of kind riscv64"
