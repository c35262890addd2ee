"""Nodes that go away, on hosts of their own: each is found within its lease, its jobs do what
their task says, and two attempts of a job are never at work at the same time.

Each job writes down twenty times a second that it is at work, by the clock that all hosts share,
on the disk of its host, which can be read while that is away.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from moorage import Client
from moorage.protocol.api import RunView
from moorage.specs.instances import Instance
from moorage.specs.resources import Cpu, Range, Resources
from moorage.specs.retry import OnNodeLoss
from moorage.specs.task import Task
from system.cli_harness import Command
from testbed.bed import Bed, bed_of
from testbed.host import Host

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

LEASE = 6.0
SLACK = 2.0
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
    'exec python3 -S -c "import time, os\nwhile True:\n'
    " open('/root/{name}', 'a').write(os.environ['MOORAGE_ATTEMPT'] + ' ' + str(time.time())"
    " + chr(10)); os.write(1, b'.'); time.sleep(0.05)\""
)
"""Its pause is the work: nobody waits for it."""
Fault = Callable[[Bed, Host], None]
FAULTS: dict[str, tuple[Fault, Fault]] = {
    "cut": (lambda bed, host: bed.cut(host), lambda bed, host: bed.heal(host)),
    "deaf": (lambda bed, host: bed.cut_one_way(bed.here, host), lambda bed, _: bed.heal()),
    "mute": (lambda bed, host: bed.cut_one_way(host, bed.here), lambda bed, _: bed.heal()),
    "frozen": (lambda bed, host: bed.freeze(host), lambda bed, host: bed.thaw(host)),
    "killed": (lambda bed, host: bed.kill(host), lambda bed, host: bed.start(host)),
}


class Lab:
    """A server, and the hosts of its fleet as the nodes lab-0 and lab-1."""

    def __init__(self, bed: Bed, moorage: Command) -> None:
        self.bed, self.moorage = bed, moorage
        self.hosts = {f"lab-{n}": host for n, host in enumerate(bed.hosts)}
        self.seen = 0

    @property
    def client(self) -> Client:
        address = json.loads((self.moorage.home / "server.json").read_text())
        return Client(address["url"], address["token"])

    def begin(self, name: str, policy: OnNodeLoss | None, nodes: list[str]) -> int:
        task = Task(
            name=name,
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
            for line in file.read_text().splitlines() if file.exists() else ():
                attempt, _, at = line.partition(" ")
                found.setdefault((node, int(attempt.replace("\0", ""))), []).append(float(at))
        return found

    def stop(self, *runs: int) -> None:
        with self.client as client:
            for run in runs:
                client.stop(run, abort=True)
                client.wait(run, 60)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("loss")
    home = directory / "home"
    home.mkdir(mode=0o700)
    (home / "config.yml").write_text(f"node_lease: {LEASE:g}s\n")
    with bed_of(2) as bed:
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


@pytest.mark.parametrize("fault", FAULTS)
def test_a_node_that_goes_away_is_found_and_nothing_is_doubled(lab: Lab, fault: str) -> None:
    strike, mend = FAULTS[fault]
    again = lab.begin(f"again-{fault}", "restart", ["lab-0", "lab-1"])
    (first,) = lab.view(again).jobs[0].attempts
    node, other = first.node, "lab-1" if first.node == "lab-0" else "lab-0"
    stays = lab.begin(f"stays-{fault}", None, [node])
    fails = lab.begin(f"fails-{fault}", "lost", [node])
    since, began = lab.newest(), time.time()
    strike(lab.bed, lab.hosts[node])
    try:
        lab.follow(lambda: lab.view(fails).summary.state == "failed")
        lab.follow(lambda: len(lab.view(again).jobs[0].attempts) == 2)
        lab.works(again, 2)
        told = lab.events(since, node)
        away = lab.view(stays)
        assert lab.state(node) == "lost"
        assert node in away.jobs[0].waits_for
    finally:
        woken = time.time()
        mend(lab.bed, lab.hosts[node])
    lab.follow(lambda: lab.state(node) == "up")
    back = time.time()
    assert told["node.down"] - began < LEASE + SLACK
    assert LEASE * 0.8 < told["node.lost"] - began < LEASE * 1.5 + SLACK
    lab.follow(lambda: lab.view(again).jobs[0].attempts[0].state == "done")
    work = lab.work(f"again-{fault}")
    assert set(work) == {(node, 1), (other, 2)}
    last, following = work[node, 1], work[other, 2][0]
    if fault == "frozen":
        late = [at for at in last if at >= woken]
        print(f"{fault}: at work for {late[-1] - woken if late else 0:.3f} s after it woke")
        assert not late or late[-1] < woken + WAKES, "its keeper did not end it"
        last = [at for at in last if at < woken]
    assert last[-1] < following, (last[-1], following, "two attempts at work at once")
    _the_rest(lab, fault, node, stays, fails)
    print(f"{fault}: down {told['node.down'] - began:.1f} s, lost {told['node.lost'] - began:.1f}")
    print(f"  last work {last[-1] - began:.1f}, next {following - began:.1f}, back")
    print(f"  {back - began:.1f}")
    lab.stop(again, stays)
    left = lab.hosts[node].inside("pgrep", "-f", f"root/[a-z]*-{fault}", check=False)
    assert left.stdout == "", left


def _the_rest(lab: Lab, fault: str, node: str, stays: int, fails: int) -> None:
    """What waited has run on, but for a machine that was rebooted; what failed is over."""
    assert lab.view(fails).summary.reason == "lost"
    assert set(lab.work(f"fails-{fault}")) == {(node, 1)}
    if fault == "killed":
        lab.follow(lambda: lab.view(stays).summary.state == "failed")
        assert lab.view(stays).summary.reason == "lost"
    else:
        assert lab.view(stays).summary.state == "running"
    assert set(lab.work(f"stays-{fault}")) == {(node, 1)}
