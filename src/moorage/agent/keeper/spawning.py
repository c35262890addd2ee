"""posix_spawn(3) by the C library itself. Standard library only (keeper).

`os.posix_spawn` keeps Python's lock until the child has executed its program, which takes
milliseconds while control groups change: every other start and end would wait for it.
"""

from __future__ import annotations

import ctypes
import functools
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_SET_GROUP, _SET_SIGNAL_DEFAULT, _SET_SIGNAL_MASK, _SET_SESSION = 0x02, 0x04, 0x08, 0x80
_OPAQUE = 1024
"""Bytes: more than any C library's `posix_spawnattr_t`, file actions or `sigset_t` take."""

_SOONER = 300
"""As if it held so many thousandths of the node's memory more than it does."""
_SOONEST = 1000

_libc = ctypes.CDLL(None)
_held = ctypes.PyDLL(None)
"""Keeps Python's lock: for calls that only fill in a structure."""


def spawn(
    argv: list[str],
    env: dict[str, str],
    files: list[int],
    defaults: Iterable[int],
    path: str | None = None,
) -> int:
    """Start the program at `path` in a process group of its own, else `argv[0]` in a session of
    its own, with no signal blocked and the signals `defaults` handled as usual; `files` become its
    descriptors 0, 1, 2... The pid. OSError, ValueError."""
    actions, pid = ctypes.create_string_buffer(_OPAQUE), ctypes.c_int()
    # A leader of a session is refused setpgrp(2), which programs call that expect a shell.
    attributes = _attributes(_SET_SESSION if path is None else _SET_GROUP, tuple(defaults))
    _check(_held.posix_spawn_file_actions_init(actions))
    try:
        for target, source in enumerate(files):
            _check(_held.posix_spawn_file_actions_adddup2(actions, source, target))
        words = _strings(argv)
        variables = _strings(f"{name}={value}" for name, value in env.items())
        file = words[0] if path is None else os.fsencode(path)
        _check(_libc.posix_spawn(ctypes.byref(pid), file, actions, attributes, words, variables))
    finally:
        _held.posix_spawn_file_actions_destroy(actions)
    go_first(pid.value)
    return pid.value


def go_first(pid: int) -> None:
    """Where the node's memory is full, the kernel is to end this process and its children rather
    than agent or keeper, without which nobody would say why."""
    try:
        file = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:  # it has ended, or is not ours any more
        return
    try:
        os.write(file, b"%d" % min(_own_place() + _SOONER, _SOONEST))
    except OSError:  # it has ended just now
        pass
    finally:
        os.close(file)


@functools.lru_cache(maxsize=1)
def _own_place() -> int:
    """What this process has itself, if that is more than usual: nobody may go below it."""
    with open("/proc/self/oom_score_adj") as file:
        return max(int(file.read()), 0)


@functools.lru_cache(maxsize=8)
def _attributes(apart: int, defaults: tuple[int, ...]) -> ctypes.Array[ctypes.c_char]:
    """Never changed again, so that any number of threads may use them."""
    attributes, signals = (ctypes.create_string_buffer(_OPAQUE) for _ in range(2))
    _check(_held.posix_spawnattr_init(attributes))
    _held.sigemptyset(signals)
    _check(_held.posix_spawnattr_setsigmask(attributes, signals))
    for number in defaults:
        _held.sigaddset(signals, int(number))
    _check(_held.posix_spawnattr_setsigdefault(attributes, signals))
    flags = _SET_SIGNAL_DEFAULT | _SET_SIGNAL_MASK | apart
    _check(_held.posix_spawnattr_setflags(attributes, ctypes.c_short(flags)))
    return attributes


def _strings(texts: Iterable[str]) -> ctypes.Array[ctypes.c_char_p]:
    """A null-terminated array; ValueError where a text holds a null itself."""
    encoded = [os.fsencode(text) for text in texts]
    if any(b"\0" in text for text in encoded):
        raise ValueError("embedded null byte")
    return (ctypes.c_char_p * (len(encoded) + 1))(*encoded, None)


def _check(error: int) -> None:
    if error:
        raise OSError(error, os.strerror(error))
