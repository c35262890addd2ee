"""What callers see of a host: how it is reached, what is known of it, what can be done there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from msgspec import Struct

from moorage.errors import Unavailable

HostKey = Literal["strict", "accept-new"]
Init = Literal["system", "user", ""]
Engine = Literal["podman", "docker", "apptainer"]


class HostProblem(Unavailable):
    """Something about a host, as a user reads it. `str()` is `cause; fix`, one line."""

    code = "host"

    def __init__(self, cause: str, fix: str = "", *, passing: bool = False) -> None:
        """`passing`: may be over when it is tried again (refused, timeout); otherwise somebody
        has to change something first (a key, a package, space)."""
        super().__init__(f"{cause}; {fix}" if fix else cause)
        self.cause, self.fix, self.passing = cause, fix, passing


class Jump(Struct, frozen=True, forbid_unknown_fields=True):
    """A host on the way. Empty fields are as the user's own ssh configuration says."""

    hostname: str
    port: int = 0
    user: str = ""
    identity_file: str = ""


class HostConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one host of a fleet is reached. Paths are of the machine and account of the server;
    empty fields are as the user's own ssh configuration says."""

    fleet: str
    num: int
    hostname: str
    port: int = 0
    user: str = ""
    identity_file: str = ""
    jumps: tuple[Jump, ...] = ()
    """In the order they are passed, the nearest to the server first."""
    network: str = ""
    """CIDR among whose addresses the host's internal one is looked for."""
    internal_ip: str = ""
    host_key: HostKey = "strict"

    @property
    def node(self) -> str:
        """The name of its node."""
        return f"{self.fleet}-{self.num}"


class Cannot(Struct, frozen=True):
    """Something that will not work on a host."""

    what: str
    """One of: agent, root, cgroups, mounts, supervision, containers, gpus, clock."""
    why: str
    fix: str = ""


class PythonFound(Struct, frozen=True):
    """An interpreter over there."""

    path: str
    version: tuple[int, int]


class HostFacts(Struct, frozen=True, kw_only=True):
    """What a check found. Sizes in bytes, times in seconds; plain enough for a JSON column."""

    hostname: str
    user: str
    privilege: Literal["root", "sudo", ""]
    """How the agent gets root: the login has it, sudo gives it without a password, not at all."""
    os: str
    """`PRETTY_NAME` of its os-release."""
    kernel: str
    arch: str
    libc: str
    """`glibc 2.36`, `musl`, or empty."""
    pythons: tuple[PythonFound, ...]
    python: str
    """The one that will run the agent; empty where none can (then `cannot` has `agent`)."""
    directory: str
    """Where the agent lives."""
    disk_free: int
    """For files of the agent's user, there."""
    memory: int
    cpus: int
    addresses: tuple[str, ...]
    """IPv4 and IPv6 of its interfaces, but for loopback and link-local ones."""
    clock_offset: float
    """Its clock minus ours."""
    clock_error: float
    """The offset may be wrong by so much: half the round trip."""
    cgroups: Literal["v1", "v2", "hybrid", ""]
    cgroups_writable: bool
    """The agent can make cgroups of its own."""
    mount_namespaces: bool
    init: Init
    """The systemd that may keep the agent: the system's, the user's (lingering), or none."""
    engines: dict[str, str]
    """Version of each container engine by name: podman, docker, apptainer."""
    gpu_tools: tuple[str, ...]
    """nvidia-smi, amd-smi, xpu-smi, tt-smi: what is there and answers."""
    reaches: tuple[str, ...]
    """Which of the addresses asked for it can connect to, and trusts."""
    dials: tuple[str, ...] = ()
    """Addresses of servers that its agent was given; empty: none, or a tunnel."""
    options: tuple[str, ...] = ()
    """What its agent was told besides."""
    node: str = ""
    """Whose agent is there; empty: none is."""
    installed: str = ""
    """Digest of the bundle that `current` names."""
    running: str = ""
    """Digest of the bundle of the agent that runs; empty where none does, or is just beginning."""
    cannot: tuple[Cannot, ...] = ()

    def refusal(self) -> HostProblem | None:
        """Why no agent can be installed; None where one can."""
        for lack in self.cannot:
            if lack.what == "agent":
                return HostProblem(lack.why, lack.fix)
        return None


class Bundle(Struct, frozen=True):
    """Our package and what it needs, as a file."""

    digest: str
    path: Path
    size: int
    """Bytes to be sent."""
    python: tuple[int, int]
    arch: str
    glibc: tuple[int, int]
    """The oldest that its compiled parts run with."""


class Enrolment(Struct, frozen=True, kw_only=True):
    """What makes an agent this node's. Holds a secret: not to be printed."""

    node: str
    token: str
    urls: tuple[str, ...]
    """Addresses of servers that the host can reach; empty: through a tunnel."""
    authority: str = ""
    """Whose certificates these servers show (PEM); empty: what the host's system trusts."""
    others: tuple[str, ...] = ()
    """Nodes whose agents are not to be replaced by this one's."""
    options: tuple[str, ...] = ()
    """More arguments of the agent: `--log-limit`, bytes."""

    def __repr__(self) -> str:
        return f"Enrolment(node={self.node!r}, urls={self.urls!r})"


class Knocked(NamedTuple):
    """What came of a knock at a host's door."""

    there: bool
    again: float
    """Seconds after which the next one is due."""


class Host(Protocol):
    """One host. At most one call at a time, but for `tunnel`, which may run beside any. Each may
    raise HostProblem, be cancelled and be repeated; each reconnects by itself."""

    config: HostConfig

    async def check(self, urls: Sequence[str] = (), authority: str = "") -> HostFacts:
        """Look at the host in one round trip, changing nothing; `urls` are of servers, of which
        it is found out which can be reached from there, with a certificate of that `authority`
        (PEM; empty: one that the host's system trusts). What does not work there is in
        `cannot`, no error."""

    async def install(self, facts: HostFacts, bundle: Bundle) -> None:
        """Put the bundle there unless it is there, complete or not at all. Starts nothing."""

    async def start(self, facts: HostFacts, bundle: Bundle, enrolment: Enrolment) -> None:
        """From now on keep exactly this agent running, also over a reboot where the host has
        systemd; one of another bundle or enrolment is replaced, its jobs go on. Returns when the
        agent's process runs, before it has connected."""

    async def stop(self, facts: HostFacts) -> None:
        """End the agent and keep it so; jobs go on under the keeper."""

    async def remove(self, facts: HostFacts) -> None:
        """Leave nothing: agent, keeper, jobs, cgroups, mounts, unit, files. Where nothing is
        left already, nothing happens."""

    async def tail(self, facts: HostFacts) -> list[str]:
        """The last lines that the agent wrote to its log: why it does not connect."""

    async def tunnel(
        self, facts: HostFacts, server: tuple[str, int], told: Callable[[str], None]
    ) -> None:
        """Until cancelled, lead a port of the host's loopback to `server`, which is reached from
        here, and tell the agent which port. Reopened when it breaks, with growing pauses.
        `told("")` when it stands, `told(reason)` when it broke."""

    async def answers(self) -> Knocked | None:
        """Whether the host is there, asked with little effort: its sshd greets. None where that
        cannot be told. Takes some seconds at most."""

    async def close(self) -> None:
        """Let go of the connection."""
