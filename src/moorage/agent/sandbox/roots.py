"""A root directory of a job's own: a tmpfs in which everything of `/` is bound again, so that
`/workflow` can be there and what the job writes directly into `/` ends with the job. Standard
library only (keeper).

Making one takes a mount for each entry of `/`. So each is made once, in a namespace that is kept,
and every job gets a copy of that namespace. It serves again when the job has ended and nothing
was written into it; it is thrown away when `/`, or any mount of the node, changed meanwhile.
"""

from __future__ import annotations

import os
import select
import stat
import threading
from queue import SimpleQueue

from moorage.agent.sandbox import mounting
from moorage.agent.sandbox.mounting import (
    BIND,
    NODEV,
    PRIVATE,
    REC,
    SLAVE,
    UNBINDABLE,
    MountError,
    mount,
)

_LIMIT = 2000
"""Entries: each becomes a mount, and thousands of them would slow the whole node down."""
_KEPT = 100
"""Roots that jobs have or that wait for one. Each is some fifty mounts, and two descriptors, of
which a process may often have no more than 1024."""
USUAL = ("/tmp", "/var/tmp", "/dev/shm", "/workflow")  # noqa: S108
"""Where nearly every job has mounts."""


def cover_root(base: str) -> None:
    """Replace `/` of this namespace; `base` is any directory. MountError, OSError."""
    names = os.listdir("/")
    check_size("/", names)
    mount("tmpfs", base, "tmpfs", NODEV, "mode=755")
    # Else binding the directory that holds `base` would drag the new root into itself.
    mount("none", base, None, UNBINDABLE)
    for name in names:
        try:
            copy_entry(f"/{name}", f"{base}/{name}")
        except (MountError, OSError):
            if os.path.lexists(f"/{name}"):
                raise
            # Somebody removed it since it was listed.
    os.chdir(base)
    mounting.change_root()
    mount("none", "/", None, PRIVATE)


def copy_entry(source: str, target: str) -> None:
    """Let what is at `source` appear at `target` too. MountError, OSError."""
    mode = os.lstat(source).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
        return
    if stat.S_ISDIR(mode):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
    mount(source, target, None, BIND | REC)


def check_size(directory: str, names: list[str]) -> None:
    """MountError where that many entries cannot be bound one by one."""
    if len(names) > _LIMIT:
        raise MountError(
            f"cannot make a mount point in {directory}: it is not writable and has "
            f"{len(names)} entries; ask its owner to make the directory"
        )


class Root:
    """A prepared namespace, of which each job gets a copy."""

    __slots__ = ("_directory", "_namespace", "_pristine", "age", "own", "places")

    def __init__(self, base: str, age: int) -> None:
        """Made from the present namespace, which the calling thread leaves. `base`: as in
        `cover_root`; `age`: which state of the node it shows. MountError, OSError."""
        mounting.unshare(mounting.CLONE_NEWNS)
        # What the node mounts later still appears here; nothing made here appears there.
        mount("none", "/", None, REC | SLAVE)
        self.age = age
        self.own = any(lacks_top(target) for target in USUAL)
        if self.own:
            cover_root(base)
            for target in filter(lacks_top, USUAL):
                os.makedirs(target)
        self.places = frozenset(path for path in USUAL if _is_plain_directory(path))
        self._namespace = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._directory = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._pristine = self._state()

    def _state(self) -> tuple[object, ...]:
        """Changes with anything that a job can do to this file system, entries that it makes
        below what is bound there included: they take room and numbers."""
        if not self.own:
            return ()
        top, room = os.fstat(self._directory), os.fstatvfs(self._directory)
        # Within one tick of the clock, which is all that older kernels tell, times stay the same.
        return (top.st_mode, top.st_uid, top.st_gid, top.st_mtime_ns, top.st_ctime_ns,
                room.f_flag, room.f_blocks, room.f_bfree, room.f_files, room.f_ffree)  # fmt: skip

    def enter(self) -> None:
        """Put the calling thread, which shares its root with no other, into a copy. MountError."""
        mounting.enter(self._namespace, mounting.CLONE_NEWNS)
        mounting.unshare(mounting.CLONE_NEWNS)

    def untouched(self) -> bool:
        """Whether the jobs that had it left nothing in it."""
        return self._state() == self._pristine

    def close(self) -> None:
        """Let go of it; jobs that have a copy keep theirs."""
        os.close(self._namespace)
        os.close(self._directory)


class Roots:
    """Prepared namespaces for jobs; for the threads that start them and the keeper's own."""

    def __init__(self) -> None:
        self._node = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # The kernel says once by each such descriptor when a mount of the node's namespace came or
        # went: one is for whoever waits for that, who would else take the news from the other.
        self.mounts, self._mounts = (
            os.open("/proc/thread-self/mountinfo", os.O_RDONLY | os.O_CLOEXEC) for _ in range(2)
        )
        self._changes = select.poll()
        self._changes.register(self._mounts, select.POLLPRI)
        self._seen = self._listing()
        self._age = 0
        self._free: list[Root] = []
        self._lent = 0
        self._lock = threading.Lock()
        self._old: SimpleQueue[Root | None] = SimpleQueue()
        ready = threading.Event()
        threading.Thread(target=self._end, args=(ready,), daemon=True).start()
        ready.wait()

    def _listing(self) -> tuple[int, int]:
        top = os.fstat(self._top)
        return top.st_mtime_ns, top.st_ctime_ns

    def notice(self, _events: int = 0) -> None:
        """Throw away what shows the node as it was before its mounts, or `/`, changed."""
        with self._lock:
            self._notice()

    def _notice(self) -> None:
        listing = self._listing()
        if self._changes.poll(0) or listing != self._seen:
            self._seen = listing
            self._age += 1
            self._drop()

    def take(self, base: str) -> Root:
        """One for a job. The calling thread, which shares its root with no
        other, ends up in any namespace. MountError, OSError."""
        with self._lock:
            self._notice()
            if self._free:
                return self._free.pop()
            age = self._age  # before it is made: what changes meanwhile makes it old
        self.leave()
        return Root(base, age)

    def leave(self) -> None:
        """Put the calling thread back into the node's own namespace. MountError."""
        mounting.enter(self._node, mounting.CLONE_NEWNS)

    def lend(self, root: Root) -> Root | None:
        """To the job that has entered it; None where enough are kept, and it serves no other."""
        with self._lock:
            if self._lent + len(self._free) < _KEPT:
                self._lent += 1
                return root
        self._old.put(root)
        return None

    def give_back(self, root: Root) -> None:
        """After the last process of the job it was lent to."""
        with self._lock:
            self._lent -= 1
            if root.age == self._age and root.untouched():
                self._free.append(root)
                return
        self._old.put(root)

    def drop(self) -> None:
        """Throw away all that no job has: they hold on to every file system of the node."""
        with self._lock:
            self._drop()

    def close(self) -> None:
        """Let go of everything; roots that jobs have must have come back."""
        self.drop()
        self._old.put(None)
        for descriptor in (self._node, self._top, self.mounts, self._mounts):
            os.close(descriptor)

    def _drop(self) -> None:
        free, self._free = self._free, []
        for root in free:
            self._old.put(root)

    def _end(self, ready: threading.Event) -> None:
        """Close what is not needed any more, on a thread that nobody waits for: whoever is the
        last to have a file system that was unmounted meanwhile writes it out, or waits for a
        server that is gone."""
        try:
            # Else whoever made this thread could not change its own namespace.
            mounting.unshare(mounting.CLONE_FS)
        finally:
            ready.set()
        while (root := self._old.get()) is not None:
            root.close()


def lacks_top(target: str) -> bool:
    """Whether the first part of a target's real path is missing, or `/` itself is meant."""
    place = os.path.realpath(target)
    return place == "/" or not os.path.lexists("/" + place.split("/")[1])


def _is_plain_directory(path: str) -> bool:
    return os.path.realpath(path) == path and os.path.isdir(path)
