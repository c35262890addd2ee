"""Bodies of the HTTP API (`/v1/...`, JSON). The OpenAPI document is generated from these.

Times are Unix seconds, sizes bytes, durations seconds. A reply may gain fields; a request with an
unknown field is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

from moorage.ids import Digest
from moorage.protocol.agent import (
    Isolation,
    NodeResources,
    Outcome,
    Phase,
    Usage,
)
from moorage.protocol.health import GpuHealth
from moorage.specs.task import Task

RunState = Literal[
    "scheduled",  # waits for the clock (`schedule`)
    "queued",  # waits for resources, or for the delay before a retry
    "starting",  # a node has it: claim to prolog
    "running",
    "finishing",  # the process ended; data is being flushed and cleaned
    "succeeded",
    "failed",
    "cancelled",
]
FINAL_STATES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})


class ErrorBody(Struct, frozen=True, omit_defaults=True):
    """Every reply with a status of 400 or more."""

    code: str
    """`invalid` 400/422, `forbidden` 401/403, `not-found` 404, `conflict` 409,
    `unavailable` 503."""
    message: str
    problems: list[str] = []


class RunRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """One run to submit. `source` is the file as written, kept for `show`; `dialect` its kind."""

    spec: Task
    source: str = ""
    dialect: str = "native"


RunRequests = Annotated[list[RunRequest], Meta(max_length=10_000)]
"""More in one decision would keep every other request waiting for seconds."""


class SubmitRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Submits all or none. A repeated `request_id` of the same user gets the first reply and
    changes nothing, whatever became of the runs."""

    request_id: str
    runs: RunRequests


class RunRef(Struct, frozen=True):
    """A submitted run."""

    id: int
    name: str


class SubmitReply(Struct, frozen=True):
    runs: list[RunRef]


NodeState = Literal["up", "down", "lost"]
"""`down`: without a connection; `lost`: for longer than its lease."""


class Away(Struct, frozen=True, omit_defaults=True):
    """A node on which something of a job is, and which is not connected: what it does there now,
    nobody knows."""

    node: str
    state: NodeState
    since: float | None = None
    """When it was heard of last."""


class RetryRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`name`: of the new run, instead of the one that was written."""

    request_id: str
    name: str | None = None


class AttemptView(Struct, frozen=True, omit_defaults=True):
    """One rank of an attempt."""

    attempt: int
    node: str
    state: str
    assigned_at: float
    started_at: float | None = None
    """When the process started."""
    ended_at: float | None = None
    phases: list[Phase] = []
    outcome: Outcome | None = None
    usage: Usage | None = None
    rank: int = 0


class JobView(Struct, frozen=True, omit_defaults=True):
    id: int
    index: int
    state: RunState
    reason: str = ""
    """One word for programs: `exit-code`, `out-of-memory`, `timeout`, `stopped`, ..."""
    message: str = ""
    """One line for people."""
    exit_code: int | None = None
    waits_for: str = ""
    away: Away | None = None
    warning: str = ""
    """GPUs of it that failed while it runs."""
    stopping: bool = False
    queued_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    attempts: list[AttemptView] = []


class RunSummary(Struct, frozen=True, omit_defaults=True):
    """A row of `ps`."""

    id: int
    name: str
    user: str
    state: RunState
    submitted_at: float
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    node: str = ""
    attempt: int = 0
    priority: int = 0
    stopping: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    next_at: float | None = None
    """When the schedule fires next."""
    waits_for: str = ""
    """In a list, for the newest that are queued: why."""
    doing: str = ""
    """In a list: how far the present phase is, such as `flushing 3.1 of 9.4 GB`."""
    away: Away | None = None
    tags: dict[str, str] = {}


COUNTED = 10_000
"""How far totals count. To count on would make the answer slower with every run ever made."""


class RunPage(Struct, frozen=True, omit_defaults=True):
    """Newest first. `cursor` goes into the next request; None after the last page."""

    runs: list[RunSummary]
    total: int
    """Of all pages; 10,000 stands for that many or more."""
    cursor: str | None = None


class RunView(Struct, frozen=True, omit_defaults=True):
    """All about one run, `spec.env` and `source` with whatever secrets they hold: only its user
    may see it (ADR 0006)."""

    summary: RunSummary
    spec: Task
    jobs: list[JobView]
    source: str = ""
    dialect: str = "native"


class StopRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`abort` kills without grace."""

    abort: bool = False


class NodeView(Struct, frozen=True, omit_defaults=True):
    """`used_*` is what running and starting jobs have reserved."""

    id: int
    name: str
    state: NodeState
    resources: NodeResources
    isolation: Isolation
    version: str
    fleet: str = "local"
    hostname: str = ""
    """As its fleet's file names it."""
    draining: bool = False
    """Nothing new starts there."""
    health: str = ""
    """Why nothing new starts there, though nobody said so."""
    warning: str = ""
    """What is not well there, and no reason to keep jobs away."""
    gpu_health: list[GpuHealth] = []
    """Of GPUs that are not healthy."""
    pythons: list[str] = []
    used_cpus: float = 0.0
    used_memory: int = 0
    used_gpus: int = 0
    blocks: int = 0
    """Equal parts of which jobs take whole ones; 0: they share it by what they reserve."""
    free_blocks: int = 0
    jobs: int = 0
    last_seen: float | None = None
    """While it is not `up`: when it was heard of last."""
    flapping: bool = False
    """It connects again and again."""


class NodePage(Struct, frozen=True):
    nodes: list[NodeView]


class Event(Struct, frozen=True, omit_defaults=True):
    """One change, in order of `seq`. Also the data of each server-sent event."""

    seq: int
    at: float
    kind: str
    """`run.submitted`, `run.stopping`, `run.skipped`, `run.ended`, `run.deleted`, `run.trimmed`
    (jobs with an index below `data.before` went), `run.exec` and `run.ssh` (`data` says by whom);
    `job.queued`, `job.retracted` (out of the line
    on a node), `job.refused` (by a node that lacks what it needs: `data.then` says what follows),
    `job.starting`, `job.running`, `job.finishing`, `job.ended`; of jobs on several nodes
    `rank.ended`, and `rank.unknown` of one that a server that started has no row of; of mounted
    buckets `mount.restarted`, `mount.stalled`, `mount.back`, `mount.fsync-failed` (`data.target`
    says where); `node.up`, `node.down`, `node.flapping` (neither is told then until
    `node.settled`), `node.draining`, `node.drained`, `node.resumed`, `node.health`; `store.` and
    `storage.` with what became of an object store or a bucket (`data` has its name);
    `fleet.created`, `fleet.changed`, `fleet.deleting`, `fleet.deleted`; `host.removed`, and
    `host.` with each state of a host (`data` has `fleet`, `num`, `host`, and what is wrong as
    `message` and `fix`); `server.restored`. `feed.trimmed` stands for the events
    after `data.after` up to its own number that retention removed: what they told is unknown."""
    run: int | None = None
    run_name: str = ""
    job: int | None = None
    node: str = ""
    data: dict[str, Any] = {}


class EventPage(Struct, frozen=True):
    """Oldest first; continue with `since=` the last `seq`."""

    events: list[Event]


class MissingRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Which of these does the server lack? `trees` count as present only with all their files."""

    digests: list[Digest] = []
    trees: list[Digest] = []


class MissingReply(Struct, frozen=True):
    digests: list[Digest]
    trees: list[Digest]


class FetchRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Answered with a pack (see `packs.py`) of exactly these blobs, in this order."""

    digests: list[Digest]


class PackReply(Struct, frozen=True):
    """Blobs of the pack that are durable now (those known before included)."""

    stored: int


class PartReply(Struct, frozen=True):
    """How many bytes of a large blob the server holds; `complete` once its digest is verified."""

    received: int
    complete: bool


class Progress(Struct, frozen=True, omit_defaults=True):
    """How far long work is. `total` 0: nobody knows."""

    what: str
    done: int = 0
    total: int = 0


IN_BYTES = frozenset({"backup", "compressed", "content", "database"})
"""What `Progress` counts in bytes."""


class Told(Struct, frozen=True, omit_defaults=True):
    """A line of a reply that takes long: how far it is, every half second. The last has the reply
    or the error instead; that of a backup has `size`, about how many bytes of it follow."""

    progress: Progress | None = None
    reply: Raw = Raw()
    error: ErrorBody | None = None
    size: int | None = None


class Finding(Struct, frozen=True, omit_defaults=True):
    """Something wrong with the store, and what to do."""

    problem: str
    remedy: str
    repairable: bool = False
    """`moorage server check --repair` does what the remedy says."""


class CheckReply(Struct, frozen=True):
    """What a check found; nothing, if all is well."""

    findings: list[Finding]
    checked: dict[str, int]
    """How much was looked at: runs, events, blobs, bytes of content."""
    deep: bool = False


class RestoreReply(Struct, frozen=True):
    """What was put back from a backup of `created_at`, by which version it was made, and the
    number of the next run."""

    created_at: float
    version: str
    runs: int
    packs: int
    next_run: int


class CollectReply(Struct, frozen=True):
    """What was removed, or would be: numbers, and bytes of disk."""

    blobs: int
    bytes: int
    """Of content."""
    runs: int = 0
    jobs: int = 0
    """Of schedules that go on."""
    events: int = 0
    requests: int = 0
    outputs: int = 0
    """Attempts whose output went from the nodes, those of removed runs not counted."""
    output_bytes: int = 0
    database_bytes: int = 0
    """Given back by the database's file."""
    skipped: list[str] = []
    """What could not be done now, and why."""


Role = Literal["leader", "standby"]


class ServerView(Struct, frozen=True, omit_defaults=True):
    """One of several servers on a database. `age`: seconds since it was last heard of."""

    url: str
    version: str
    leads: bool
    age: float


class Info(Struct, frozen=True):
    """What this server is."""

    version: str
    protocol: int
    started_at: float
    epoch: int
    store: str
    user: str
    upload_limit: int
    """Bytes that one file may have; 0: no limit but the disk."""
    runs: dict[str, int]
    """Live runs by state."""
    role: Role = "leader"
    database: str = "sqlite"
    """Which one, without a password."""
    servers: list[ServerView] = []
    """All on the same database, this one included; empty where there can be only one."""
