"""Places at which a process of moorage kills itself with SIGKILL, when a test has armed them.

Only tests know of this module. Agent and server get it by `sitecustomize` on PYTHONPATH, the
keeper by its boot line; standard library only. A point is armed by a file of its name in
`$MOORAGE_FAULTS/armed`, and fires once: it moves that file to `$MOORAGE_FAULTS/fired` and dies.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
import threading
from importlib.machinery import PathFinder
from pathlib import Path

PLACE = os.environ.get("MOORAGE_FAULTS", "")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod"}


def reach(point):
    """Die here if this point is armed."""
    try:
        Path(f"{PLACE}/armed/{point}").rename(f"{PLACE}/fired/{point}")
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def around(owner, name, point, *, before=True, after=True):
    """Make `owner.name` reach `<point>.before` and `<point>.after`; a str or a function of the
    arguments gives the points' names (several, or none, as well)."""
    original = getattr(owner, name)

    def points(args):
        found = point(*args) if callable(point) else point
        return [found] if isinstance(found, str) else list(found or ())

    def touch(args, edge, wanted):
        for one in points(args) if wanted else ():
            reach(f"{one}.{edge}")

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def patched(*args, **kwargs):
            touch(args, "before", before)
            result = await original(*args, **kwargs)
            touch(args, "after", after)
            return result
    else:

        @functools.wraps(original)
        def patched(*args, **kwargs):
            touch(args, "before", before)
            result = original(*args, **kwargs)
            touch(args, "after", after)
            return result

    setattr(owner, name, patched)


class FirstStep:
    """A coroutine that reaches a point when it waits for the first time: what it asked for is on
    its way, and no answer has come."""

    def __init__(self, coroutine, point):
        self._coroutine, self._point = coroutine, point

    def __await__(self):
        steps = self._coroutine.__await__()
        try:
            waiting = next(steps)
        except StopIteration as done:
            return done.value
        reach(self._point)
        while True:
            try:
                sent = yield waiting
            except BaseException as error:
                step = functools.partial(steps.throw, error)
            else:
                step = functools.partial(steps.send, sent)
            try:
                waiting = step()
            except StopIteration as done:
                return done.value


class Counter:
    """The n-th change of this process to the file system: `<name>.change` is armed with n."""

    def __init__(self, name):
        self._file = f"{PLACE}/armed/{name}.change"
        self._point = f"{name}.change"
        self._lock = threading.Lock()
        self._busy = threading.local()
        self._seen = 0
        sys.addaudithook(self._hook)

    def _hook(self, event, args):
        if event not in _CHANGES and not (
            event == "open" and isinstance(args[2], int) and args[2] & _WRITING
        ):
            return
        if getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            self._count(event, args)
        finally:
            self._busy.now = False

    def _count(self, event, args):
        try:
            with open(self._file) as file:
                wanted = int(file.read() or 0)
        except (OSError, ValueError):
            return
        with self._lock:
            self._seen += 1
            if self._seen < wanted:
                return
            with open(f"{PLACE}/where", "w") as file:
                file.write(f"{event} {args}")
            reach(self._point)


class Patches:
    """Changes modules as they are imported: `{module: function of the module}`."""

    def __init__(self, patches):
        self._patches = patches
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path, target=None):
        """See importlib: the module as ever, then changed."""
        patch = self._patches.get(name)
        spec = PathFinder.find_spec(name, path, target) if patch else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            patch(module)

        spec.loader.exec_module = exec_module
        return spec


def boot_id(module):
    """Let a test say which boot this is."""
    real = module.boot_id

    def pretended():
        try:
            with open(f"{PLACE}/boot_id") as file:
                return file.read().strip()
        except OSError:
            return real()

    module.boot_id = pretended
