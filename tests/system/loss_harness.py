"""A server whose nodes are hosts of a test bed, jobs there that leave signs of their work, and
what can happen to a host.

Each job writes down twenty times a second that it is at work, by the clock that all hosts share,
on the disk of its host, which can be read while that is away.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from moorage import Client
from moorage.protocol.api import AttemptView, RunView
from moorage.specs.instances import Instance
from moorage.specs.resources import Cpu, Range, Resources
from moorage.specs.retry import OnNodeLoss
from moorage.specs.task import Task
from system.cli_harness import Command
from testbed.bed import Bed, bed_of
from testbed.host import Host
from testbed.shape import Shape

LEASE = 6.0
SLACK = 6.0
"""Seconds that a busy machine may take longer."""
WAKES = 2.0
"""Seconds that a machine which stood still may take until its keeper runs again, and ends what is
fenced; until then that may run. It is milliseconds where there is a core for each."""
FLEET = """\
type: fleet
name: lab
ssh_config:
  identity_file: {key}
  host_key: accept-new
  hosts: [{hosts}]
"""
WORK = (
    'exec python3 -S -c "import time, os\nwhile True:\n try:\n'
    "  open('/root/{name}', 'a').write(os.environ['MOORAGE_ATTEMPT'] + ' ' + str(time.time())"
    " + chr(10)); os.write(1, b'.')\n except OSError: pass\n time.sleep(0.05)\""
)
"""Its pause is the work: nobody waits for it. It does not mind a full disk."""
_OF_ATTEMPT = r".*/[0-9]+\.[0-9]+\.[0-9]+"
_SIGN = re.compile(r"^\0*(\d+) (\d{10}\.\d+)$", re.MULTILINE)
"""Lines torn by a full disk or the end of a machine do not count."""
Fault = Callable[[Bed, Host], None]
EATER = "held = []\nwhile True: held.append(bytearray(1 << 20))"
"""Takes all memory there is, until it is killed."""


def eat(_: Bed, host: Host) -> None:
    """Something outside of all jobs has taken all memory, three times."""
    for _ in range(3):
        host.inside("python3", "-S", "-c", EATER, check=False)


def kill_own(_: Bed, host: Host) -> None:
    """Agent and keeper end at once, as by the kernel where memory is full."""
    host.inside("pkill", "-KILL", "-f", "moorage.agent.(keeper.)?main")


def fill(_: Bed, host: Host) -> None:
    """Not a byte is left of its disk."""
    host.inside("sh", "-c", "cat /dev/zero >/var/filler", check=False)


def empty(_: Bed, host: Host) -> None:
    """There is room again."""
    host.inside("rm", "/var/filler")


def _reboot(bed: Bed, host: Host) -> None:
    bed.kill(host)
    bed.start(host)


def _nothing(bed: Bed, host: Host) -> None:
    """It is over by itself."""


FAULTS: dict[str, tuple[Fault, Fault]] = {
    "cut": (lambda bed, host: bed.cut(host), lambda bed, host: bed.heal(host)),
    "deaf": (lambda bed, host: bed.cut_one_way(bed.here, host), lambda bed, _: bed.heal()),
    "mute": (lambda bed, host: bed.cut_one_way(host, bed.here), lambda bed, _: bed.heal()),
    "frozen": (lambda bed, host: bed.freeze(host), lambda bed, host: bed.thaw(host)),
    "killed": (lambda bed, host: bed.kill(host), lambda bed, host: bed.start(host)),
}
"""Those that take a node away: what begins and what ends them."""
TROUBLES: dict[str, tuple[Fault, Fault]] = {
    "rebooted": (_reboot, _nothing),
    "full": (fill, empty),
    "memory": (eat, _nothing),
    "agent": (kill_own, _nothing),
    "lossy": (lambda bed, host: bed.loss(host, 0.2), lambda bed, host: bed.heal(host)),
    "slow": (lambda bed, host: bed.rate(host, "64kbit"), lambda bed, host: bed.rate(host, None)),
}
"""Those that leave it there, or give it back at once."""


class Lab:
    """A server, and the hosts of its fleet as the nodes lab-0, lab-1 and so on."""

    def __init__(self, bed: Bed, moorage: Command) -> None:
        self.bed, self.moorage = bed, moorage
        self.hosts = {f"lab-{n}": host for n, host in enumerate(bed.hosts)}
        self.seen = 0

    @property
    def client(self) -> Client:
        address = json.loads((self.moorage.home / "server.json").read_text())
        return Client(address["url"], address["token"], self.moorage.home)

    def begin(
        self, name: str, policy: OnNodeLoss | None, nodes: Sequence[str], ranks: int = 1
    ) -> int:
        """Submit a job for these nodes, and wait until all of it is at work."""
        task = Task(
            name=name,
            nodes=ranks,
            commands=[WORK.format(name=name)],
            on_node_loss=policy,
            instances=[Instance(name=node) for node in nodes],
            resources=Resources(cpu=Cpu(Range(0.1, 0.1))),
        )
        with self.client as client:
            (run,) = client.submit(task)
            self.works(run.id, 1)
        return run.id

    def works(self, run: int, attempt: int) -> None:
        """Wait until this attempt has written down that it is at work."""
        self.follow(lambda: self.view(run).summary.state == "running")
        with self.client as client:
            next(iter(client.logs(run, attempt=attempt, follow=True)))

    @contextmanager
    def only(self, *nodes: str) -> Iterator[None]:
        """Nothing is placed elsewhere."""
        others = [node for node in self.hosts if node not in nodes]
        with self.client as client:
            for node in others:
                client.drain(node)
            try:
                yield
            finally:
                for node in others:
                    client.resume(node)

    def attempts(self, run: int) -> list[AttemptView]:
        """Of its only job."""
        return self.view(run).jobs[0].attempts

    def view(self, run: int) -> RunView:
        with self.client as client:
            return client.run(run)

    def follow(self, true: Callable[[], object]) -> None:
        """Look again after each event until it is true. Events are counted from before the first
        look: one that came between the two would be missed, and may have been the last."""
        since = self.newest()
        if true():
            return
        with self.client as client:
            for _ in client.events(since=since, follow=True):
                if true():
                    return

    def events(self, since: int, node: str) -> dict[str, float]:
        """When the first of each kind came."""
        found: dict[str, float] = {}
        with self.client as client:
            number = next(one.id for one in client.nodes() if one.name == node)
            for event in client.events(since=since):
                if (event.kind.startswith("node.") and number == event.node) or event.node == node:
                    found.setdefault(event.kind, event.at)
        return found

    def newest(self) -> int:
        with self.client as client:
            for event in client.events(since=self.seen):
                self.seen = event.seq
        return self.seen

    def state(self, node: str) -> str:
        with self.client as client:
            return next(one.state for one in client.nodes() if one.name == node)

    def work(self, name: str) -> dict[tuple[str, int], list[float]]:
        """When there were signs of work, by node and attempt."""
        found: dict[tuple[str, int], list[float]] = {}
        for node, host in self.hosts.items():
            file = host.disk / "root" / name
            text = file.read_text() if file.exists() else ""
            for attempt, at in _SIGN.findall(text):
                found.setdefault((node, int(attempt)), []).append(float(at))
        return found

    def stop(self, *runs: int) -> None:
        with self.client as client:
            for run in runs:
                client.stop(run, abort=True)
                client.wait(run, 60)

    def doubled(self, name: str, *, woken: float = float("inf")) -> list[str]:
        """Attempts that were at work when a later one was; what a host that stood still does in
        the instants after it was `woken` does not count."""
        work = self.work(name)
        found = []
        for (node, attempt), signs in work.items():
            last = max((at for at in signs if not woken <= at < woken + WAKES), default=0.0)
            later = [s[0] for (_, other), s in work.items() if other > attempt]
            found += [f"{name}.{attempt} on {node}"] if later and min(later) <= last else []
        return found

    def left(self, node: str) -> list[str]:
        """What there is on a host of jobs, once all are over. A last one shows that it has been
        told to forget the others: messages to a node keep their order."""
        with self.client as client:
            (last,) = client.submit(Task(commands=["true"], instances=[Instance(name=node)]))
            client.wait(last.id, 60)
        own = f"{self.view(last.id).jobs[0].id}.1.0"
        inside = self.hosts[node].inside
        work = inside("pgrep", "-af", "MOORAGE_ATTEMPT", check=False).stdout
        files = "ls -d /var/lib/moorage/*/home/agent/attempts/* 2>/dev/null; true"
        attempts = inside("sh", "-c", files).stdout
        # Groups of others may go while it looks, which it then complains of.
        find = ("find", "/sys/fs/cgroup", "-type", "d", "-regex", _OF_ATTEMPT)
        groups = inside(*find, check=False).stdout
        table = inside("cat", "/proc/1/mountinfo").stdout.splitlines()
        mounts = [point for line in table if "/attempts/" in (point := line.split()[4])]
        found = [*(work + attempts + groups).splitlines(), *mounts]
        return [line for line in found if not line.endswith(f"/{own}")]


@contextmanager
def lab_of(shapes: Sequence[Shape], directory: Path, lease: float = LEASE) -> Iterator[Lab]:
    """A lab for the length of a block."""
    home = directory / "home"
    home.mkdir(mode=0o700)
    (home / "config.yml").write_text(f"node_lease: {lease:g}s\n")
    with bed_of(shapes) as bed:
        moorage = Command(home)
        try:
            hosts = ", ".join(host.address for host in bed.hosts)
            (directory / "fleet.yml").write_text(FLEET.format(key=bed.key, hosts=hosts))
            applied = moorage("apply", "-y", "-f", str(directory / "fleet.yml"))
            assert applied.code == 0, applied.err
            yield Lab(bed, moorage)
        finally:
            bed.heal()
            moorage("fleet", "delete", "lab", "-y", "--force")
            moorage.end()
