"""The control groups of a bed's hosts, in every hierarchy that is mounted here.

A host's group lies at `<mount>/<bed>/<host>`; inside, a cgroup namespace shows it as the root.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PERIOD = 100_000
_NOT_CONTROLLERS = {"rw", "ro", "none", "xattr", "clone_children", "cpuset_v2_mode"}
PATIENCE = 30.0


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy; `options` are those that mount it again elsewhere."""

    kind: str
    options: str
    place: Path

    def holds(self, controller: str) -> bool:
        """Whether limits of that controller are set here."""
        if self.kind == "cgroup2":
            return controller in (self.place / "cgroup.controllers").read_text().split()
        return controller in self.options.split(",")


def hierarchies() -> list[Hierarchy]:
    """What is mounted, once each."""
    found: dict[tuple[str, str], Hierarchy] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        place = Path(before.split(" ")[4].encode().decode("unicode_escape"))
        if kind == "cgroup2":
            found.setdefault((kind, ""), Hierarchy(kind, "", place))
        elif kind == "cgroup":
            wanted = [o for o in options.split(",") if o not in _NOT_CONTROLLERS]
            named = ",".join(o for o in wanted if not o.startswith("release_agent="))
            if named.startswith("name="):
                named = f"none,{named}"
            found.setdefault((kind, named), Hierarchy(kind, named, place))
    return list(found.values())


class Groups:
    """All groups of one bed."""

    def __init__(self, bed: str) -> None:
        self.hierarchies = hierarchies()
        self._bed = bed

    def of_bed(self) -> list[Path]:
        return [hierarchy.place / self._bed for hierarchy in self.hierarchies]

    def of_host(self, host: str) -> list[Path]:
        return [path / host for path in self.of_bed()]

    def unified(self, host: str = "") -> Path:
        """The v2 group of a host, or of the whole bed."""
        place = next(h.place for h in self.hierarchies if h.kind == "cgroup2")
        return place / self._bed / host

    def make_bed(self) -> None:
        """The parents, with every controller that can be had. OSError."""
        for hierarchy in self.hierarchies:
            _make(hierarchy.place / self._bed)
            if hierarchy.kind == "cgroup2":
                for controller in ("memory", "cpu", "pids"):
                    for path in (hierarchy.place, hierarchy.place / self._bed):
                        with suppress(OSError):  # it is another hierarchy's: see `holds`
                            (path / "cgroup.subtree_control").write_text(f"+{controller}")

    def make(self, host: str, *, memory: int | None, cpus: float | None, pids: int | None) -> None:
        """A host's groups with its limits: bytes, CPUs, processes. OSError."""
        for path in self.of_host(host):
            _make(path)
        if memory is not None:
            self._limit(host, "memory", {"memory.limit_in_bytes": memory}, {"memory.max": memory})
        if cpus is not None:
            quota = int(cpus * _PERIOD)
            v1 = {"cpu.cfs_period_us": _PERIOD, "cpu.cfs_quota_us": quota}
            self._limit(host, "cpu", v1, {"cpu.max": f"{quota} {_PERIOD}"})
        if pids is not None:
            self._limit(host, "pids", {"pids.max": pids}, {"pids.max": pids})

    def _limit(
        self, host: str, controller: str, v1: dict[str, int], v2: dict[str, int | str]
    ) -> None:
        hierarchy = next(h for h in self.hierarchies if h.holds(controller))
        values = v2 if hierarchy.kind == "cgroup2" else v1
        for name, value in values.items():
            (hierarchy.place / self._bed / host / name).write_text(str(value))

    def freeze(self, host: str, frozen: bool) -> None:
        """Stop or go on with all of a host; returns when it is so. OSError, TimeoutError."""
        group = self.unified(host)
        (group / "cgroup.freeze").write_text(str(int(frozen)))
        _wait_for(group, "frozen", int(frozen))

    def kill(self, host: str = "") -> None:
        """SIGKILL for everything in a host, or in the bed; returns before they have ended."""
        with suppress(FileNotFoundError):
            (self.unified(host) / "cgroup.kill").write_text("1")

    def settle(self, host: str, process: int) -> None:
        """A process of the boot leaves the host's root group, where v2 wants to see none."""
        for path in self.of_host(host):
            if (path / "init").exists():
                (path / "init" / "cgroup.procs").write_text(str(process))

    def reset(self, host: str) -> None:
        """After all of a host has ended: no frozen state and no groups from its inside."""
        _wait_for(self.unified(host), "populated", 0)
        self.unified(host).joinpath("cgroup.freeze").write_text("0")
        for top in self.of_host(host):
            for path in _below(top):
                path.rmdir()
        # What an agent there passed on to children keeps processes, the next boot's, out.
        passed_on = self.unified(host) / "cgroup.subtree_control"
        for controller in passed_on.read_text().split():
            passed_on.write_text(f"-{controller}")

    def remove(self) -> None:
        """Kill what there is and remove all groups. TimeoutError."""
        if not any(path.exists() for path in self.of_bed()):
            return
        self.kill()
        if self.unified().exists():
            _wait_for(self.unified(), "populated", 0)
        for top in self.of_bed():
            for path in _below(top):
                path.rmdir()
            with suppress(FileNotFoundError):
                top.rmdir()


def _below(top: Path) -> list[Path]:
    """Groups in a group, the innermost first."""
    return [Path(path) for path, _, _ in os.walk(top, topdown=False) if Path(path) != top]


def _make(path: Path) -> None:
    path.mkdir(exist_ok=True)
    if (path / "cpuset.cpus").exists() and (path.parent / "cpuset.mems").exists():
        for name in ("cpuset.cpus", "cpuset.mems"):  # v1 starts empty and then takes no process
            (path / name).write_text((path.parent / name).read_text())


def _wait_for(group: Path, key: str, value: int) -> None:
    """Until cgroup.events says so: the kernel reports each change as POLLPRI."""
    deadline = time.monotonic() + PATIENCE
    with (group / "cgroup.events").open("rb", buffering=0) as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while f"{key} {value}" not in os.pread(events.fileno(), 4096, 0).decode().splitlines():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{group}: not {key} {value} after {PATIENCE:g} s")
            poll.poll(left * 1000)
