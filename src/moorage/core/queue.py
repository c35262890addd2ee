"""Queued jobs, grouped by priority and shape, so that a scheduling pass costs shapes x nodes and
not jobs x nodes; and counted by priority and number, so that a place is known without counting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from moorage.core.job import Job
from moorage.core.shape import Shape, Where
from moorage.ids import JobId

_BLOCK = 64
"""Consecutive job numbers that are counted together."""


@dataclass(slots=True, eq=False)
class Group:
    """The queued jobs of one priority and one shape: they differ only in age."""

    priority: int
    shape: Shape
    gang: tuple[Shape, ...] = ()
    """What each rank asks for, where there are several: such jobs are in groups of their own."""
    heap: list[JobId] = field(default_factory=list)
    """By age. A job that was removed stays until it comes to the top."""
    size: int = 0


class Queue:
    """Jobs by group, and those that wait for the delay before a retry. Jobs of one shape share
    one object for it: comparing them costs nothing then."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, Shape], Group] = {}
        self._gangs: dict[tuple[int, tuple[Shape, ...]], Group] = {}
        self._alone: dict[tuple[int, Shape], Group] = {}
        """Of `_groups`, those that want nodes alone."""
        self._ready: dict[JobId, Group] = {}
        """Where each job is: a heap may have it still after that."""
        self._delayed: dict[JobId, Job] = {}
        self._wheres: Counter[Where] = Counter()
        self._blocks: dict[int, dict[int, int]] = {}
        """How many are ready, by priority and block."""

    def __len__(self) -> int:
        return len(self._ready) + len(self._delayed)

    def __contains__(self, job: JobId) -> bool:
        return job in self._ready or job in self._delayed

    def add(self, job: Job, *, delayed: bool = False) -> None:
        """Put a job at its place; `delayed` ones are not offered until `mature`."""
        if delayed:
            self._delayed[job.id] = job
            return
        group = self._group(job)
        if group is None:
            group = self._begin(job)
            if job.shape.where is not None:
                self._wheres[job.shape.where] += 1
        job.shape = group.shape
        heappush(group.heap, job.id)
        group.size += 1
        self._ready[job.id] = group
        blocks = self._blocks.setdefault(job.priority, {})
        block = job.id // _BLOCK
        blocks[block] = blocks.get(block, 0) + 1

    def mature(self, job: JobId) -> bool:
        """The delay of this job is over; False if it was not waiting for one."""
        if (waiting := self._delayed.pop(job, None)) is None:
            return False
        self.add(waiting)
        return True

    def remove(self, job: JobId) -> None:
        """Take a job out, wherever it is."""
        if (group := self._ready.pop(job, None)) is None:
            del self._delayed[job]
            return
        group.size -= 1
        if not group.size:
            if group.gang:
                del self._gangs[(group.priority, group.gang)]
            else:
                del self._groups[(group.priority, group.shape)]
                self._alone.pop((group.priority, group.shape), None)
            if (where := group.shape.where) is not None:
                self._wheres[where] -= 1
                if not self._wheres[where]:
                    del self._wheres[where]
        blocks, block = self._blocks[group.priority], job // _BLOCK
        blocks[block] -= 1
        if not blocks[block]:
            del blocks[block]
            if not blocks:
                del self._blocks[group.priority]

    def _group(self, job: Job) -> Group | None:
        if job.gang:
            return self._gangs.get((job.priority, job.gang))
        return self._groups.get((job.priority, job.shape))

    def _begin(self, job: Job) -> Group:
        group = Group(job.priority, job.shape, job.gang)
        if job.gang:
            self._gangs[(job.priority, job.gang)] = group
        else:
            self._groups[(job.priority, job.shape)] = group
            if job.shape.exclusive:
                self._alone[(job.priority, job.shape)] = group
        return group

    @property
    def wheres(self) -> Collection[Where]:
        """Restrictions to some nodes that jobs here have, but for delayed ones."""
        return self._wheres.keys()

    def head(self, group: Group) -> JobId | None:
        """The oldest job of a group; None where none is left."""
        heap, ready = group.heap, self._ready
        while heap and ready.get(heap[0]) is not group:
            heappop(heap)
        return heap[0] if heap else None

    def groups(self) -> list[tuple[int, JobId, Group]]:
        """A heap of (-priority, oldest job, group): the order in which groups are served. Without
        jobs that have several ranks."""
        return self._heads(self._groups.values())

    def starving(self) -> list[tuple[int, JobId, Group]]:
        """As `groups`, of the jobs that smaller ones could keep waiting for ever: those that have
        several ranks, or want a node alone."""
        return self._heads((*self._gangs.values(), *self._alone.values()))

    def all_groups(self) -> list[tuple[int, JobId, Group]]:
        """`groups` and `gangs` together."""
        if not self._gangs:
            return self.groups()
        return self._heads((*self._groups.values(), *self._gangs.values()))

    def _heads(self, groups: Iterable[Group]) -> list[tuple[int, JobId, Group]]:
        found = [
            (-group.priority, head, group)
            for group in groups
            if (head := self.head(group)) is not None
        ]
        heapify(found)
        return found

    def ahead(self, order: tuple[int, int]) -> int:
        """How many jobs that could start now are served before this place (`Job.order`)."""
        priority, number = -order[0], order[1]
        found = sum(sum(b.values()) for above, b in self._blocks.items() if above > priority)
        if (blocks := self._blocks.get(priority)) is None:
            return found
        own = number // _BLOCK
        found += sum(count for block, count in blocks.items() if block < own)
        beside = range(own * _BLOCK, number) if own in blocks else ()
        return found + sum(self._is_ready(JobId(job), priority) for job in beside)

    def _is_ready(self, job: JobId, priority: int) -> bool:
        group = self._ready.get(job)
        return group is not None and group.priority == priority
