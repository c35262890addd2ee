"""All live work and the nodes, in memory, with the indexes that make decisions cheap.

Only live runs are here: a run leaves with its last job, and the store keeps its history. Indexes
(`names`, `counts`, the queue, each node's claims) change only in the methods below.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from moorage.core.fleet import LiveFleet, LiveHost
from moorage.core.gang import Hold
from moorage.core.job import (
    Event,
    Job,
    JobState,
    Live,
    Prefilled,
    Queued,
    check,
    ranks_of,
    shown,
)
from moorage.core.node import Node, Reservation
from moorage.core.queue import Queue
from moorage.core.run import Run
from moorage.core.shape import Shape
from moorage.core.storage import LiveStorage, LiveStore, Place, places_of
from moorage.ids import AttemptKey, JobId, NodeId, RunId
from moorage.protocol.agent import Hello
from moorage.protocol.api import FINAL_STATES, RunState


@dataclass(slots=True)
class Cluster:
    """Live runs, their live jobs, and every known node. `next_*` are the numbers to give next."""

    next_run: int = 1
    next_job: int = 1
    next_node: int = 1
    runs: dict[RunId, Run] = field(default_factory=dict)
    jobs: dict[JobId, Job] = field(default_factory=dict)
    nodes: dict[NodeId, Node] = field(default_factory=dict)
    names: dict[str, RunId] = field(default_factory=dict)
    """Live runs by name."""
    node_names: dict[str, NodeId] = field(default_factory=dict)
    queue: Queue = field(default_factory=Queue)
    counts: Counter[RunState] = field(default_factory=Counter)
    """Live runs by state."""
    hosts: dict[Shape, dict[NodeId, int]] = field(default_factory=dict)
    """How many jobs of a shape each node runs."""
    lines: dict[Shape, set[NodeId]] = field(default_factory=dict)
    """Nodes with a line of that shape."""
    hold: Hold | None = field(default=None, compare=False)
    """What is kept for the first job that waits for several nodes, or for one alone; found anew
    after a start."""

    fleets: dict[str, LiveFleet] = field(default_factory=dict)
    hosts_by_node: dict[str, LiveHost] = field(default_factory=dict)
    """Hosts of all fleets, by the names of their nodes."""
    draining: set[NodeId] = field(default_factory=set)
    """Nodes that drain and are not empty yet."""
    stores: dict[str, LiveStore] = field(default_factory=dict)
    """Object stores that were declared, by name."""
    storages: dict[str, LiveStorage] = field(default_factory=dict)
    """Buckets with a name, by it."""
    bucket_users: dict[Place, set[RunId]] = field(default_factory=dict)
    """Live runs by the buckets that they name."""
    secret: bytes = field(default=b"", repr=False, compare=False)
    """Makes the keys of jobs with several ranks; none without it."""
    restored_jobs: int = 0
    """Jobs up to this number are older than the last restore of the store from a backup: attempts
    of them that the store does not know may have been begun."""
    restored_attempt: int = 1
    """The first attempt that no such job can have had."""

    unrecorded: list[tuple[JobId, int]] = field(default_factory=list, compare=False)
    """Ranks of live jobs of which the store had no row: nobody knows where they are."""

    def next_attempt(self, job: Job) -> int:
        """The number of the attempt after the present one; never one that was given before."""
        number = job.state.attempt + 1
        return max(number, self.restored_attempt) if job.id <= self.restored_jobs else number

    def new_run_id(self) -> RunId:
        self.next_run += 1
        return RunId(self.next_run - 1)

    def new_job_id(self) -> JobId:
        self.next_job += 1
        return JobId(self.next_job - 1)

    def add_run(self, run: Run) -> None:
        """A new run, or one of the store; its jobs follow."""
        self.runs[run.id] = run
        self.names[run.name] = run.id
        self.counts[run.state] += 1
        for place in places_of(run.task.mounts):
            self.bucket_users.setdefault(place, set()).add(run.id)

    def add_job(self, job: Job, *claims: Reservation) -> None:
        """A queued job, or, of the store, one that holds `claims`: one for each rank."""
        run = self.runs[job.run]
        before = run.state
        self.jobs[job.id] = job
        run.live.add(job.id)
        run.count(None, shown(job.state.name))
        if isinstance(job.state, Queued):
            self.queue.add(job, delayed=job.state.not_before is not None)
        elif isinstance(job.state, Prefilled):
            self._enqueue(job, job.state.node)
        elif isinstance(job.state, Live) and claims:
            for rank, claim in zip(ranks_of(job.state), claims, strict=True):
                self.nodes[rank.node].restore(job.id, claim)
            self._host(job, job.state.node, 1)
        self.recount(run, before)

    def move(self, job: Job, event: Event, state: JobState) -> None:
        """Change a job's state and every index with it. IllegalTransition where the table does
        not allow it; nothing has changed then."""
        check(job.state.name, event, state.name)
        run, old = self.runs[job.run], job.state
        before = run.state
        job.state = state
        run.count(shown(old.name), shown(state.name))
        if isinstance(old, Queued):
            self.queue.remove(job.id)
        elif isinstance(old, Prefilled):
            self._dequeue(job, old.node)
        elif isinstance(old, Live) and not isinstance(state, Live):
            self.nodes[old.node].release(job.id)
            for rank in old.workers:
                self.nodes[rank.node].release(job.id)
            self._host(job, old.node, -1)
        if isinstance(state, Queued):
            self.queue.add(job, delayed=state.not_before is not None)
        elif isinstance(state, Prefilled):
            self._enqueue(job, state.node)
        elif isinstance(state, Live):
            if not isinstance(old, Live):
                self._host(job, state.node, 1)
        else:
            del self.jobs[job.id]
            run.live.discard(job.id)
        self.recount(run, before)

    def reshape(self, job: Job, shapes: tuple[Shape, ...]) -> None:
        """Where a queued job may run has changed."""
        assert isinstance(job.state, Queued)
        self.queue.remove(job.id)
        job.shape, job.gang = shapes[0], shapes if job.gang else ()
        self.queue.add(job, delayed=job.state.not_before is not None)

    def drop_run(self, run: Run) -> None:
        """Its state is final: only the store knows it from now on."""
        self._count(run.state, -1)
        del self.runs[run.id], self.names[run.name]
        for place in places_of(run.task.mounts):
            self.bucket_users[place].discard(run.id)
            if not self.bucket_users[place]:
                del self.bucket_users[place]

    def node_for(self, hello: Hello) -> Node:
        """The node that greets, as it is now; a new one if its name is new."""
        known = self.node_names.get(hello.node)
        if known is not None:
            self.nodes[known].greet(hello)
            return self.nodes[known]
        node = Node(
            id=NodeId(self.next_node),
            name=hello.node,
            boot_id=hello.boot_id,
            version=hello.version,
            resources=hello.resources,
            isolation=hello.isolation,
            pythons=list(hello.pythons),
            up=True,
            last_seen=None,
            address=hello.address,
        )
        self.next_node += 1
        self.add_node(node)
        return node

    def add_node(self, node: Node) -> None:
        self.nodes[node.id] = node
        self.node_names[node.name] = node.id

    def attempt(self, key: str, node: NodeId) -> Job | None:
        """The job of whose present attempt this is a rank, if that is in line, or live and not
        over, on this node."""
        try:
            number, attempt, rank = AttemptKey.parse(key)
        except ValueError:
            return None
        job = self.jobs.get(number)
        if job is None or not isinstance(job.state, Live | Prefilled):
            return None
        if job.gang:
            return job if self._has_rank(job, attempt, rank, node) else None
        return job if (job.state.node, job.state.attempt, 0) == (node, attempt, rank) else None

    def _has_rank(self, job: Job, attempt: int, rank: int, node: NodeId) -> bool:
        state = job.state
        if not isinstance(state, Live) or state.attempt != attempt or rank >= len(job.gang):
            return False
        found = ranks_of(state)[rank]
        over = found.report is not None and found.report.state == "done"
        return found.node == node and not over

    def ended(self, run: Run) -> bool:
        """Is the run's state final?"""
        return run.state in FINAL_STATES

    def recount(self, run: Run, before: RunState) -> None:
        """The run's state may have changed; it was `before`."""
        if (now := run.state) != before:
            self._count(before, -1)
            self._count(now, 1)

    def _enqueue(self, job: Job, node: NodeId) -> None:
        self.nodes[node].enqueue(job.id, job.shape)
        self.lines.setdefault(job.shape, set()).add(node)

    def _dequeue(self, job: Job, node: NodeId) -> None:
        self.nodes[node].dequeue(job.id, job.shape)
        if job.shape not in self.nodes[node].lines:
            self.lines[job.shape].discard(node)
            if not self.lines[job.shape]:
                del self.lines[job.shape]

    def _host(self, job: Job, node: NodeId, change: int) -> None:
        if job.gang:
            return  # it gives its place to nobody in line
        hosts = self.hosts.setdefault(job.shape, {})
        hosts[node] = hosts.get(node, 0) + change
        if not hosts[node]:
            del hosts[node]
            if not hosts:
                del self.hosts[job.shape]

    def _count(self, state: RunState, change: int) -> None:
        count = self.counts.get(state, 0) + change
        if count:
            self.counts[state] = count
        else:
            del self.counts[state]
