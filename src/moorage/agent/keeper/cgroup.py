"""One control group for each job, on cgroup v1, hybrid and v2. Standard library only (keeper).

Where things are is read from /proc/self/mountinfo, never assumed. A group lies at
`<mount>/moorage/<agent>/<key>` in every hierarchy that it uses: v2 for membership, killing and CPU
time (also where v1 holds all controllers), and whichever hierarchy has it for each controller.
"""

from __future__ import annotations

import errno
import functools
import os
import signal

from moorage.agent.keeper.oomcount import OomCount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CONTROLLERS = ("memory", "cpu", "pids")
_PERIOD = 100_000


def hierarchies(mountinfo: str) -> dict[str, str]:
    """Mount point by controller; the v2 hierarchy has the name `""`."""
    found: dict[str, str] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        place = before.split(" ")[4].encode().decode("unicode_escape")
        if kind == "cgroup2":
            found.setdefault("", place)
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, place)
    return found


def read(path: str) -> str:
    """A small kernel file; OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # open() would ask three things more of it
    try:
        return os.read(fd, 65536).decode()
    finally:
        os.close(fd)


def write(path: str, text: str) -> None:
    """One value into a kernel file; OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


class Cgroups:
    """The parent groups of one agent; `name` tells agents on this machine apart."""

    __slots__ = ("_mounts", "_relative", "_v1", "_v2", "can_kill")

    def __init__(self, name: str, mountinfo: str | None = None) -> None:
        """Makes the parents. OSError: this process may not (container, no root); RuntimeError:
        no hierarchy with the memory controller is mounted."""
        text = read_all("/proc/self/mountinfo") if mountinfo is None else mountinfo
        self._mounts = hierarchies(text)
        self._relative = os.path.join("moorage", name)
        self._v2: str | None = None
        self._v1: dict[str, str] = {}
        self.can_kill = False
        self._open()

    def _open(self) -> None:
        for last in (False, False, True):
            try:
                self._make_parents()
                return
            except FileNotFoundError:  # another agent that leaves has just tidied up
                if last:
                    raise

    def _make_parents(self) -> None:
        mounts, relative = self._mounts, self._relative
        enabled: set[str] = set()
        if "" in mounts:
            self._v2 = os.path.join(mounts[""], relative)
            enabled = _delegate(mounts[""], relative)
        self.can_kill = self._v2 is not None and os.path.exists(f"{self._v2}/cgroup.kill")
        wanted = [c for c in CONTROLLERS if c not in enabled and c in mounts]
        if self._v2 is None and "cpuacct" in mounts:
            wanted.append("cpuacct")
        wanted += [name for name in self._extras() if name in mounts]
        self._v1 = {c: os.path.join(mounts[c], relative) for c in wanted}
        if "memory" not in enabled and "memory" not in self._v1:
            raise RuntimeError("no cgroup hierarchy with the memory controller is mounted")
        for parent in self._v1.values():
            os.makedirs(parent, exist_ok=True)

    def _extras(self) -> tuple[str, ...]:
        return ("devices",) if self.can_kill else ("devices", "freezer")

    def make(self, key: str, limits: dict[str, float | None], denied: Sequence[str] = ()) -> Group:
        """A new group with `memory` (bytes), `cpus` and `pids` limits, and without the devices in
        `denied` (`c 195:0`). OSError, with nothing left behind."""
        group = self.existing(key)
        for last in (False, False, True):
            try:
                group.create(limits, denied)
                break
            except OSError as error:
                group.remove()
                # Somebody tidied up the parents while they were idle.
                if last or not isinstance(error, FileNotFoundError):
                    raise
                self._open()
        return group

    def existing(self, key: str) -> Group:
        """The group of that name: to be made, or what is left of an earlier keeper's."""
        return Group(
            {c: f"{parent}/{key}" for c, parent in self._v1.items()},
            None if self._v2 is None else f"{self._v2}/{key}",
        )

    def nested(self, key: str) -> list[str]:
        """Where an engine that is told this group makes its own: in every hierarchy there is."""
        return [
            f"{mount}/{self._relative}/{key}" for mount in dict.fromkeys(self._mounts.values())
        ]

    def remove_idle(self) -> None:
        """Remove the parents; those that still have groups stay."""
        for parent in {f"{mount}/{self._relative}" for mount in self._mounts.values()}:
            for path in (parent, os.path.dirname(parent)):
                try:
                    os.rmdir(path)
                except OSError:
                    break


class Group:
    """One job's group. `v1` maps controllers to directories, `v2` is the unified one."""

    __slots__ = ("_join", "_ooms", "nested", "v1", "v2")

    def __init__(self, v1: dict[str, str], v2: str | None) -> None:
        self.v1, self.v2 = v1, v2
        self.nested: list[str] = []
        """Directories of the same name that an engine has made elsewhere; they go with it."""
        self._ooms: OomCount | None = None
        # cpu,cpuacct is often one hierarchy under two names: join it once.
        self._join = list(dict.fromkeys(v1.values()))

    @property
    def directories(self) -> list[str]:
        """All of them."""
        return [*self._join, *([self.v2] if self.v2 else [])]

    def create(self, limits: dict[str, float | None], denied: Sequence[str] = ()) -> None:
        """Make the directories and set the limits. OSError."""
        for name, wanted in (("cpu", limits.get("cpus")), ("devices", denied)):
            if not wanted:  # nothing else is read there, and each group costs 0.2 ms
                self.v1.pop(name, None)
        self._join = list(dict.fromkeys(self.v1.values()))
        for path in self.directories:
            os.mkdir(path)
        for rule in denied if "devices" in self.v1 else ():
            write(f"{self.v1['devices']}/devices.deny", f"{rule} rwm")
        memory, cpus, pids = limits.get("memory"), limits.get("cpus"), limits.get("pids")
        if memory:
            self._limit_memory(int(memory))
        if cpus:
            quota = max(1000, int(cpus * _PERIOD))
            if "cpu" in self.v1:
                write(f"{self.v1['cpu']}/cpu.cfs_period_us", str(_PERIOD))
                write(f"{self.v1['cpu']}/cpu.cfs_quota_us", str(quota))
            elif self.v2:
                write(f"{self.v2}/cpu.max", f"{quota} {_PERIOD}")
        if pids:
            write(f"{self.v1.get('pids') or self.v2}/pids.max", str(int(pids)))

    def _limit_memory(self, size: int) -> None:
        if "memory" in self.v1:
            write(f"{self.v1['memory']}/memory.limit_in_bytes", str(size))
            _try_write(f"{self.v1['memory']}/memory.memsw.limit_in_bytes", str(size))
            return
        write(f"{self.v2}/memory.max", str(size))
        _try_write(f"{self.v2}/memory.swap.max", "0")
        # One process killed and the others left waiting for it is worse than all killed.
        _try_write(f"{self.v2}/memory.oom.group", "1")

    @property
    def holds_by_thread(self) -> bool:
        """Whether all limits are those of groups that a thread can join, so that what it spawns
        is limited from the start. v2 knows no such groups."""
        return "memory" in self.v1 and "pids" in self.v1

    def add(self, pid: int) -> None:
        """Put a process that a joined thread has just spawned into the v2 group too: there it is
        counted, and killed, in one go."""
        if self.v2 is not None:
            _try_write(f"{self.v2}/cgroup.procs", str(pid))

    def join_thread(self, thread: int) -> None:
        """Move one thread of this process into the v1 groups: what it spawns starts there. v2
        knows no such thing; the script's first line joins it, or `add`. OSError."""
        for path in self._join:
            write(f"{path}/tasks", str(thread))

    def leave_thread(self, thread: int) -> None:
        """Back to the top, so that neither this group nor its parents are kept from going."""
        for path in self._join:
            mount = path.rsplit("/", 3)[0]  # it lies at <mount>/moorage/<agent>/<key>
            try:
                os.write(_top_tasks(mount), str(thread).encode())
            except OSError:
                pass

    def processes(self) -> list[int]:
        """Pids of all members, those in groups that the job made below included. Never our own,
        which v1 lists as long as the thread that has joined lives."""
        found: set[int] = set()
        for top in self.directories:
            for path, _, _ in os.walk(top):
                try:
                    found.update(map(int, read(f"{path}/cgroup.procs").split()))
                except OSError:
                    continue
        return sorted(found - {os.getpid()})

    def populated(self) -> bool:
        """Whether anything of it is alive."""
        if self.v2 is not None:
            try:
                if "populated 1" in read(f"{self.v2}/cgroup.events"):
                    return True
            except OSError:
                pass
        try:
            own = {str(os.getpid())}
            return any(set(read(f"{path}/cgroup.procs").split()) - own for path in self._join)
        except OSError:
            return bool(self.processes())

    def kill(self) -> None:
        """SIGKILL everything in it. Repeat until `populated` is false: a process that was
        just being forked may slip through where the kernel has no `cgroup.kill`."""
        if self.v2 and _try_write(f"{self.v2}/cgroup.kill", "1"):
            # Members of v1 that have not come to the line that joins v2.
            _signal_all(self.processes())
            return
        frozen = self._freeze(True)
        _signal_all(self.processes())
        if frozen:  # v1 delivers no signal, not even SIGKILL, before the thaw
            self._freeze(False)

    def _freeze(self, on: bool) -> bool:
        if "freezer" in self.v1:
            return _try_write(f"{self.v1['freezer']}/freezer.state", "FROZEN" if on else "THAWED")
        return bool(self.v2) and _try_write(f"{self.v2}/cgroup.freeze", "1" if on else "0")

    def oom_kills(self) -> int:
        """How many of its processes the kernel killed for want of memory."""
        if "memory" in self.v1:
            below = 0 if self._ooms is None else self._ooms.read()
            return max(below, _field(f"{self.v1['memory']}/memory.oom_control", "oom_kill"))
        return _field(f"{self.v2}/memory.events", "oom_kill")

    def count_below(self) -> None:
        """Let `oom_kills` count in groups below this one too, as v2 does by itself. OSError."""
        if "memory" in self.v1:
            self._ooms = OomCount(self.v1["memory"])

    def memory_peak(self) -> int | None:
        """Bytes, page cache included; None where the kernel does not keep it (v2 before 5.19)."""
        name = (
            f"{self.v1['memory']}/memory.max_usage_in_bytes"
            if "memory" in self.v1
            else f"{self.v2}/memory.peak"
        )
        try:
            return int(read(name))
        except OSError:
            return None

    def cpu_seconds(self) -> float | None:
        """User and system time of everything that ever ran in it; None where nobody counted."""
        if self.v2 is not None:
            return _field(f"{self.v2}/cpu.stat", "usage_usec") / 1e6
        try:
            return int(read(f"{self.v1['cpuacct']}/cpuacct.usage")) / 1e9
        except (KeyError, OSError):
            return None

    def remove(self) -> bool:
        """Remove the directories; False when the kernel still holds one (try again soon)."""
        return all(_remove(path) for path in dict.fromkeys([*self.directories, *self.nested]))


@functools.cache
def _top_tasks(mount: str) -> int:
    """A descriptor, kept, by which threads come back to the top. OSError."""
    return os.open(f"{mount}/tasks", os.O_WRONLY | os.O_CLOEXEC)


def read_all(path: str) -> str:
    """A file under /proc, whatever its length."""
    with open(path, "rb") as file:
        return file.read().decode(errors="surrogateescape")


def _delegate(mount: str, relative: str) -> set[str]:
    """Make `relative` below a v2 mount with our controllers enabled for its children; which of
    them v2 has. OSError."""
    have = set(read(f"{mount}/cgroup.controllers").split()) & set(CONTROLLERS)
    path = mount
    for part in ["", *relative.split("/")]:
        path = os.path.join(path, part) if part else path
        if part:
            os.makedirs(path, exist_ok=True)
        for controller in sorted(have):
            _enable(path, controller)
    return have


def _enable(path: str, controller: str) -> None:
    try:
        write(f"{path}/cgroup.subtree_control", f"+{controller}")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # Not the real root but a container's: processes sit in it, and v2 allows controllers
        # only above groups without processes. They move one level down, where limits of the
        # container still hold for them.
        outer = os.path.join(path, "moorage-outer")
        os.makedirs(outer, exist_ok=True)
        for pid in read_all(f"{path}/cgroup.procs").split():
            _try_write(f"{outer}/cgroup.procs", pid)
        write(f"{path}/cgroup.subtree_control", f"+{controller}")


def _try_write(path: str, text: str) -> bool:
    try:
        write(path, text)
    except OSError:
        return False
    return True


def _field(path: str, name: str) -> int:
    """The number behind `name` in a file of `name number` lines; 0 where there is none."""
    try:
        for line in read(path).splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except OSError:
        pass
    return 0


def _signal_all(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _remove(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        for below, _, _ in os.walk(path, topdown=False):  # groups that the job made inside
            try:
                os.rmdir(below)
            except OSError:
                return False
    return True
