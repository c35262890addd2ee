"""Queued jobs, grouped by priority and shape, so that a scheduling pass costs shapes x nodes and
not jobs x nodes."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from moorage.core.job import Job
from moorage.core.shape import Shape
from moorage.ids import JobId

Group = tuple[int, Shape]
"""Priority and shape: within a group, jobs differ only in age."""


class Queue:
    """Jobs by group, each group a heap by age; and those that wait for the delay before a retry.

    A removed job stays in its heap until it comes to the top: `_ready` says who is really there.
    """

    def __init__(self) -> None:
        self._heaps: dict[Group, list[JobId]] = {}
        self._ready: dict[JobId, Group] = {}
        self._sizes: dict[Group, int] = {}
        self._delayed: dict[JobId, Job] = {}

    def __len__(self) -> int:
        return len(self._ready) + len(self._delayed)

    def __contains__(self, job: JobId) -> bool:
        return job in self._ready or job in self._delayed

    def add(self, job: Job, *, delayed: bool = False) -> None:
        """Put a job at its place; `delayed` ones are not offered until `mature`."""
        if delayed:
            self._delayed[job.id] = job
            return
        group = (job.priority, job.shape)
        heap = self._heaps.setdefault(group, [])
        heappush(heap, job.id)
        self._ready[job.id] = group
        self._sizes[group] = self._sizes.get(group, 0) + 1

    def mature(self, job: JobId) -> bool:
        """The delay of this job is over; False if it was not waiting for one."""
        if (waiting := self._delayed.pop(job, None)) is None:
            return False
        self.add(waiting)
        return True

    def remove(self, job: JobId) -> None:
        """Take a job out, wherever it is."""
        if self._delayed.pop(job, None) is not None:
            return
        group = self._ready.pop(job)
        self._sizes[group] -= 1
        if not self._sizes[group]:
            del self._sizes[group], self._heaps[group]

    def head(self, group: Group) -> JobId | None:
        """The oldest job of a group."""
        heap = self._heaps.get(group)
        if heap is None:
            return None
        while heap and self._ready.get(heap[0]) != group:
            heappop(heap)
        return heap[0]

    def groups(self) -> list[tuple[int, JobId, Shape]]:
        """A heap of (-priority, oldest job, shape): the order in which groups are served."""
        found = [
            (-group[0], head, group[1])
            for group in self._sizes
            if (head := self.head(group)) is not None
        ]
        heapify(found)
        return found

    def ahead(self, order: tuple[int, int]) -> int:
        """How many jobs that could start now are served before this place (`Job.order`)."""
        return sum((-group[0], job) < order for job, group in self._ready.items())
