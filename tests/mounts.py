"""Mounts of tests are in a mount namespace of their own, which goes with the last process in it:
tests that are killed leave none on the machine. A pytest plugin."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

_NEW_NAMESPACE, _RECURSIVE, _SLAVE, _SHARED = 0x20000, 0x4000, 1 << 19, 1 << 20


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before there is another thread or a worker, which are then part of it. What the machine
    mounts is still seen; what was shared within it still is, as it is on most machines."""
    libc = ctypes.CDLL(None)
    if os.geteuid() != 0 or hasattr(config, "workerinput") or libc.unshare(_NEW_NAMESPACE):
        return
    shared = any(
        fields[4] == "/" and any(field.startswith("shared:") for field in fields[6:-3])
        for fields in map(str.split, Path("/proc/self/mountinfo").read_text().splitlines())
    )
    for kind in (_SLAVE, _SHARED) if shared else (_SLAVE,):
        if libc.mount(None, b"/", None, ctypes.c_ulong(kind | _RECURSIVE), None):
            pytest.exit("the mounts of tests cannot be kept apart from the machine's", 1)
