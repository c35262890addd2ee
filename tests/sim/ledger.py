"""What really happened, whatever server and agents believe: the judge of start-once.

Nodes tell it when a claim is taken, a process starts or dies, an attempt is clean. It breaks the
run of the simulation at the first thing that must not be.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from moorage.ids import AttemptKey
from moorage.protocol.agent import Launch


class Broken(AssertionError):
    """A promise does not hold. `promise` is its name: shrinking keeps to the same one."""

    def __init__(self, promise: str, detail: object) -> None:
        super().__init__(f"{promise}: {str(detail)[:400]}")
        self.promise = promise


class Ledger:
    """`capacity`: CPUs of each node, by name."""

    def __init__(self, capacity: dict[str, float]) -> None:
        self.capacity = capacity
        self.starts: Counter[str] = Counter()
        """Real starts of processes, by attempt."""
        self.succeeded: set[str] = set()
        """Attempts whose process ended by itself with code 0."""
        self.shaken: set[str] = set()
        """Attempts that met a crash or a reboot: only these may be `lost`."""
        self._open: defaultdict[int, dict[str, str]] = defaultdict(dict)
        """Claims that are not over, by job: key and node. Those of one attempt may be beside each
        other, each on a node of its own."""
        self.lapsed: set[str] = set()
        """Nodes of which a lease has ended."""
        self._cpus: defaultdict[str, float] = defaultdict(float)
        self._gpus: defaultdict[str, set[int]] = defaultdict(set)

    def claimed(self, node: str, key: str, launch: Launch) -> None:
        """No other attempt of the job may be anywhere, and the node must have the room."""
        earlier = self._open[launch.job]
        ranks = [AttemptKey.parse(other) for other in earlier]
        if any(rank.attempt != launch.attempt for rank in ranks) or node in earlier.values():
            raise Broken("one live attempt a job", f"{key} began on {node} beside {earlier}")
        earlier[key] = node
        self._cpus[node] += float(launch.env["MOORAGE_CPUS"])
        if self._cpus[node] > self.capacity[node] + 1e-6:
            raise Broken("no node is given away twice", f"{self._cpus[node]} CPUs run on {node}")
        gpus = set(launch.limits.gpus)
        if gpus & self._gpus[node]:
            raise Broken("no node is given away twice", f"GPUs {gpus} of {node} are in use")
        self._gpus[node] |= gpus

    def fenced(self, key: str) -> None:
        """Its node has killed it, or will before anything else: the next attempt may begin. What
        it took of the node is not free yet."""
        number = AttemptKey.parse(key).job
        self._open[number].pop(key, None)
        if not self._open[number]:
            del self._open[number]

    def spawned(self, key: str) -> None:
        self.starts[key] += 1
        if self.starts[key] > 1:
            raise Broken("an attempt starts once", f"{key} was started again")

    def over(self, node: str, key: str, launch: Launch) -> None:
        """Nothing of it is left on the node."""
        self.fenced(key)
        self._cpus[node] -= float(launch.env["MOORAGE_CPUS"])
        self._gpus[node] -= set(launch.limits.gpus)
