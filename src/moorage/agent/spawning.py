"""posix_spawn(3) by the C library itself. Standard library only (keeper).

`os.posix_spawn` keeps Python's lock until the child has executed its program, which takes
milliseconds while control groups change: every other start and end would wait for it.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_SET_GROUP, _SET_SIGNAL_DEFAULT, _SET_SIGNAL_MASK, _SET_SESSION = 0x02, 0x04, 0x08, 0x80
_OPAQUE = 1024
"""Bytes: more than any C library's `posix_spawnattr_t`, file actions or `sigset_t` take."""

_libc = ctypes.CDLL(None)


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
    actions, attributes, signals = (ctypes.create_string_buffer(_OPAQUE) for _ in range(3))
    pid = ctypes.c_int()
    _check(_libc.posix_spawn_file_actions_init(actions))
    _check(_libc.posix_spawnattr_init(attributes))
    try:
        for target, source in enumerate(files):
            _check(_libc.posix_spawn_file_actions_adddup2(actions, source, target))
        _libc.sigemptyset(signals)
        _check(_libc.posix_spawnattr_setsigmask(attributes, signals))
        for number in defaults:
            _libc.sigaddset(signals, int(number))
        _check(_libc.posix_spawnattr_setsigdefault(attributes, signals))
        # A leader of a session is refused setpgrp(2), which programs call that expect a shell.
        apart = _SET_SESSION if path is None else _SET_GROUP
        flags = _SET_SIGNAL_DEFAULT | _SET_SIGNAL_MASK | apart
        _check(_libc.posix_spawnattr_setflags(attributes, ctypes.c_short(flags)))
        words = _strings(argv)
        variables = _strings(f"{name}={value}" for name, value in env.items())
        file = words[0] if path is None else os.fsencode(path)
        _check(_libc.posix_spawn(ctypes.byref(pid), file, actions, attributes, words, variables))
    finally:
        _libc.posix_spawn_file_actions_destroy(actions)
        _libc.posix_spawnattr_destroy(attributes)
    return pid.value


def _strings(texts: Iterable[str]) -> ctypes.Array[ctypes.c_char_p]:
    """A null-terminated array; ValueError where a text holds a null itself."""
    encoded = [os.fsencode(text) for text in texts]
    if any(b"\0" in text for text in encoded):
        raise ValueError("embedded null byte")
    return (ctypes.c_char_p * (len(encoded) + 1))(*encoded, None)


def _check(error: int) -> None:
    if error:
        raise OSError(error, os.strerror(error))
