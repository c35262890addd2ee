"""Messages between the server and an agent: msgpack over one WebSocket that the agent opens.

Any message may come twice. A `Start` is idempotent by its key; a `Report` is repeated, on the same
or the next connection, until an `Ack` names its number. After each connect the agent sends `Hello`
with all claims; the server answers with the difference (`Start`, `Stop`, `Forget`, `Retract`).

A node without room may be given jobs beforehand (`Start.wait`). They stand in line; when an
attempt of it is `done` the first takes its place at once, and one report tells both, so that no
place is counted twice. One that falls free with nobody in line is the server's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct, msgpack

from moorage.decoding import msgpack_decoder
from moorage.protocol.container import Container
from moorage.protocol.flush import Flush, Flushed
from moorage.protocol.health import CheckHealth, Health
from moorage.protocol.mounts import MountHealth
from moorage.protocol.peers import Peers
from moorage.protocol.streams import Purpose
from moorage.specs.mounts import Mount

PHASES = ("claim", "fetch", "mount", "prolog", "run", "flush", "unmount", "clean")
PhaseName = Literal["claim", "fetch", "mount", "prolog", "run", "flush", "unmount", "clean"]

AttemptState = Literal["waiting", "retracted", "staging", "running", "finishing", "done"]
"""`waiting`: in line, not claimed; `retracted`: it left the line before its turn, and will never
begin; `staging`: claim to prolog; `finishing`: flush to clean; `done`: nothing of it is left."""

OutcomeKind = Literal[
    "exited",  # the process ended by itself; `exit_code`
    "signaled",  # killed by a signal that nobody here sent; `signal`
    "out-of-memory",  # the kernel killed it at its memory limit (or the node's)
    "timeout",  # max_duration
    "stopped",  # Stop, with grace
    "aborted",  # Stop without grace
    "phase-failed",  # a data phase failed before the process could start; `phase`
    "not-flushed",  # the process ended, its data could not be saved; `phase`
    "lost",  # nobody can know how it ended (node rebooted, keeper died)
    "node-lost",  # node and server were without contact for too long: ended there, or given up
    "unstarted",  # the agent or the keeper died before its process was started
]


class GpuDevice(Struct, frozen=True, omit_defaults=True):
    """One GPU or MIG slice; memory in bytes; `compute_capability` as 8.6, 0 where unknown."""

    index: int
    """The node's own number for it, the same until the next boot."""
    vendor: str
    name: str
    memory: int
    compute_capability: float = 0.0
    uuid: str = ""
    pci: str = ""
    """`0000:18:00.0`; slices have their parent's."""
    driver: str = ""


class NodeResources(Struct, frozen=True, omit_defaults=True):
    """What a node has in all. Bytes."""

    cpus: int
    arch: str
    """`x86` or `arm`."""
    memory: int
    disk: int
    """Size of the filesystem that holds scratch."""
    gpus: list[GpuDevice] = []
    notes: list[str] = []
    """What could not be found out, one line each."""


class Isolation(Struct, frozen=True, omit_defaults=True):
    """What keeps jobs on this node apart: each None if in force, else why it is not."""

    cgroup: str | None = None
    """Limits on memory, CPU and processes; everything of a job can be killed."""
    mounts: str | None = None
    """A private mount namespace: volumes at any path, private /tmp, /dev/shm and /var/tmp."""
    user: str = ""
    """The account jobs run as."""
    containers: str | None = None
    """Jobs with an image."""
    devices: str | None = None
    """The kernel keeps jobs from GPUs that are not their own; else they are told which are."""
    ssh: str | None = None
    """Other ranks of a job reach the one here by ssh."""
    engine: str = ""
    """What runs jobs with an image; `moorage` where none is needed."""
    docker: str | None = "its agent is of an older version"
    """Jobs may have a Docker daemon of their own."""
    fsync: str | None = "its agent is of an older version"  # mounts may be `durable: fsync`


class Limits(Struct, frozen=True, omit_defaults=True):
    """What the kernel enforces for one rank; None: no limit. Bytes; CPUs as 1.5."""

    cpus: float | None = None
    memory: int | None = None
    pids: int | None = None
    shm: int | None = None
    scratch: int | None = None
    gpus: list[int] = []
    """Indexes of the GPUs that this rank may use."""


class Launch(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """All that an agent needs to run one rank of one attempt. Interpolation is done."""

    run: int
    run_name: str
    user: str
    job: int
    index: int
    """Position of the job in its run."""
    attempt: int
    rank: int = 0
    nodes: int = 1
    hosts: list[str] = []
    """Where there are several ranks: lines for `MPI_HOSTFILE`, `10.0.0.1 slots=8`."""
    peers: Peers | None = None
    """How they reach each other; None for one rank."""
    commands: list[str]
    container: Container | None = None
    """None: a process of the node."""
    docker: bool = False
    shell: str | None = None
    python: str | None = None
    working_dir: str | None = None
    env: dict[str, str] = {}
    """The user's variables and those of the server; the agent adds the paths only it knows."""
    compat: list[str] = []
    mounts: list[Mount] = []
    limits: Limits = Limits()
    max_duration: float | None = None
    stop_duration: float | None = None
    line: str = ""
    """Attempts of one line reserve the same; empty: never in line."""
    fence: bool = False
    """Kill it where the node's lease ends: the server may begin the next attempt after that."""


class Outcome(Struct, frozen=True, omit_defaults=True):
    """How an attempt ended."""

    kind: OutcomeKind
    exit_code: int | None = None
    signal: int | None = None
    phase: PhaseName | None = None
    message: str = ""
    """One line for the user: which command, which file, what to do."""
    here: bool = False
    """Because of this node no process began: others may run it. Older agents never say so."""


class Phase(Struct, frozen=True, omit_defaults=True):
    """One data phase on the node. Unix seconds; `ended` is None while it lasts."""

    name: PhaseName
    began: float
    ended: float | None = None
    detail: str = ""
    """`214 files, 3.1 MB, 0 B fetched`; the error where it failed."""
    mounts: list[MountHealth] = []


class Usage(Struct, frozen=True, omit_defaults=True):
    """What the process tree consumed: CPU seconds, peak bytes."""

    cpu_seconds: float = 0.0
    memory_peak: int | None = None


class Held(Struct, frozen=True, omit_defaults=True):
    """The present state of one claim; each later one replaces the earlier."""

    key: str
    """`str(AttemptKey)`."""
    state: AttemptState
    phases: list[Phase] = []
    outcome: Outcome | None = None
    """Set from the end of the process on; final when the state is `done`."""
    usage: Usage | None = None


class Hello(Struct, frozen=True, tag="hello"):
    """First message of every connection."""

    protocol: int
    version: str
    node: str
    boot_id: str
    resources: NodeResources
    isolation: Isolation
    pythons: list[str]
    """Interpreters found: `["3.9", "3.11"]`."""
    held: list[Held]
    address: str = ""
    """Where other nodes reach this one; empty: only on its own machine."""


class Report(Struct, frozen=True, tag="report"):
    """Claims that changed since the last report."""

    seq: int
    held: list[Held]


class LogData(Struct, frozen=True, tag="log-data"):
    """The answer to a `ReadLog`: the bytes at `offset` (which is later than asked for where the
    cap dropped the beginning). `ended`: no more will come; `missing`: no such log here."""

    request: int
    offset: int
    data: bytes
    ended: bool = False
    missing: bool = False


class Swept(Struct, frozen=True, tag="swept"):
    """The answer to a `Sweep`: attempts whose output went (or would go), and its bytes on disk."""

    request: int
    attempts: int
    bytes: int


class Dropped(Struct, frozen=True, tag="dropped"):
    """The output of these attempts is gone: the answer to a `DropLogs`, which is repeated after
    each Hello until it comes."""

    keys: list[str]


class Beat(Struct, frozen=True, tag="beat"):
    """A sign of life, answered by `Beaten` with the same number; the first after the `Welcome`."""

    number: int


class ProbeResult(Struct, frozen=True, tag="probe-result"):
    """Problems that this node would have with a launch; empty strings never occur."""

    request: int
    problems: list[str]
    notes: list[str]


class Welcome(Struct, frozen=True, tag="welcome"):
    """Accepts the connection. Commands with an epoch lower than the highest seen are ignored."""

    protocol: int
    version: str
    epoch: int
    node_id: int
    servers: list[str] = []
    """Addresses of all servers that live, to be tried when this one is gone."""
    lease: float = 30.0
    """Seconds without a sign of life after which the server gives up what `Launch.fence` allows.
    The node ends that by itself before: a part of them after it sent what was answered last."""


class Beaten(Struct, frozen=True, tag="beaten"):
    """The server has heard this `Beat`, and leads."""

    number: int


class Start(Struct, frozen=True, omit_defaults=True, tag="start"):
    """Run this, unless its key was ever claimed here. `wait`: not yet, but when the place of an
    earlier attempt of its line falls free; a later `Start` without it gives it a place now."""

    launch: Launch
    wait: bool = False


class Stop(Struct, frozen=True, tag="stop"):
    """End an attempt: SIGTERM, then SIGKILL after `grace` seconds; 0 kills at once, None waits
    for as long as it takes. An unknown key is answered with a `done` report of kind `stopped`."""

    key: str
    grace: float | None
    abort: bool = False


class Retract(Struct, frozen=True, tag="retract"):
    """Give these back if they are still in line. Each is answered with a report: `retracted`, or
    the state of an attempt that has begun meanwhile."""

    keys: list[str]


class Ack(Struct, frozen=True, tag="ack"):
    """Every report up to `seq` is durable on the server."""

    seq: int


class Forget(Struct, frozen=True, tag="forget"):
    """The ends of these attempts are durable on the server: drop their claims (logs stay)."""

    keys: list[str]


class ReadLog(Struct, frozen=True, tag="read-log"):
    """Send up to `limit` bytes of an attempt's output from `offset`, or from the first line
    written at or after `since` (Unix seconds). `wait`: answer only when there is data or the
    end; otherwise answer at once. A negative offset counts from the end."""

    request: int
    key: str
    offset: int = 0
    limit: int = 262_144
    since: float | None = None
    wait: bool = False


class CancelRead(Struct, frozen=True, tag="cancel-read"):
    """The reader is gone: drop a waiting `ReadLog`."""

    request: int


class DropLogs(Struct, frozen=True, tag="drop-logs"):
    """Delete the output of these attempts."""

    keys: list[str]


class Sweep(Struct, frozen=True, tag="sweep"):
    """Remove the output of finished attempts whose end is durable on the server: what is older
    than `age` seconds, and the oldest where all is more than `total` bytes. 0: no limit."""

    request: int
    age: float
    total: int
    dry_run: bool = False


class Probe(Struct, frozen=True, tag="probe"):
    """What would go wrong with this launch here? Changes nothing."""

    request: int
    launch: Launch


class OpenStream(Struct, frozen=True, tag="open-stream"):
    """Somebody wants to talk to the process of an attempt: dial `streams.AGENT_PATH` with this
    id, say `Opened`, and pass bytes on. Nothing is answered on the link."""

    id: str
    key: str
    purpose: Purpose


ToServer = Health | Hello | Report | LogData | ProbeResult | Swept | Dropped | Beat | Flushed
ToAgent = (
    Welcome
    | CheckHealth
    | Flush
    | Start
    | Stop
    | Retract
    | Ack
    | Forget
    | ReadLog
    | CancelRead
    | DropLogs
    | Probe
    | Sweep
    | Beaten
    | OpenStream
)

Bundle = list[ToAgent]
"""What is sent to an agent at one moment travels in one frame: a message, or a list of them."""

encode = msgpack.Encoder().encode
decode_to_server = msgpack_decoder(ToServer)
decode_to_agent = msgpack_decoder(ToAgent)
_decode_frame = msgpack_decoder(ToAgent | Bundle)


def bundle(messages: Sequence[bytes]) -> bytes:
    """One frame for encoded messages, at most 65,535."""
    if len(messages) == 1:
        return messages[0]
    return b"".join((b"\xdc", len(messages).to_bytes(2, "big"), *messages))


def unbundle(frame: bytes) -> Bundle:
    """The messages of a frame. msgspec.MsgspecError."""
    found = _decode_frame(frame)
    return found if isinstance(found, list) else [found]
