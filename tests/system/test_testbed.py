"""The test bed itself: what it promises to tests of many hosts."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.bed import Bed, bed_of
from testbed.cgroups import Groups
from testbed.guardian import directory_of, link_of
from testbed.host import Host
from testbed.shape import ACCOUNT, Shape

pytestmark = pytest.mark.root

MIB = 1 << 20
SOON = 0.25
"""Seconds after which an answer is taken to be missing: too short only makes a test pass."""
PATIENCE = 30.0
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with bed_of(
        [
            Shape(),
            # Not the one without Python: the checkout is shown with its interpreter.
            Shape(ACCOUNT, sudo=True, checkout=True, memory=64 * MIB, cpus=0.5, pids=200),
            Shape(user=ACCOUNT, python=False, disk=64 * MIB, free=2 * MIB),
        ]
    ) as made:
        yield made


@pytest.fixture(autouse=True)
def whole_again(bed: Bed) -> Iterator[None]:
    yield
    bed.heal()
    for host in bed.hosts:
        bed.rate(host, None)
        if not host.up:
            bed.start(host)


def answers(host: Host, timeout: float = PATIENCE) -> bool:
    """Whether sshd greets the test within that many seconds."""
    try:
        with socket.create_connection((host.address, 22), timeout) as connection:
            connection.settimeout(timeout)
            return connection.recv(4) == b"SSH-"
    except TimeoutError:
        return False


def reaches(sender: Host, receiver: Host, timeout: float = PATIENCE) -> bool:
    """Whether a greeting from the one to the other is answered."""
    ask = f"exec 3<>/dev/tcp/{receiver.address}/22 && read -r -n 4 -u 3"
    done = sender.inside("timeout", str(timeout), "bash", "-c", ask, check=False)
    return done.returncode == 0


def forwarding() -> list[str]:
    paths = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"]
    tables = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    return [*(Path(path).read_text() for path in paths if Path(path).exists()), tables.stdout]


def test_each_host_has_its_own_name_files_and_groups(bed: Bed) -> None:
    ids = set()
    for host in bed.hosts:
        name, machine = host.inside("cat", "/etc/hostname", "/etc/machine-id").stdout.split()
        assert name == host.name == host.inside("hostname").stdout.strip()
        ids.add(machine)
        groups = host.inside("cat", "/proc/1/cgroup").stdout.splitlines()
        assert {line.split(":")[2] for line in groups} <= {"/", "/init"}
        assert host.inside("ls", "-A", "/tmp", "/var/tmp").stdout == "/tmp:\n\n/var/tmp:\n"
    assert len(ids) == len(bed.hosts)
    first, second, _ = bed.hosts
    first.inside("sh", "-c", "echo mine >/etc/moorage-test")
    assert (first.disk / "etc/moorage-test").read_text() == "mine\n"
    assert second.inside("ls", "/etc/moorage-test", check=False).returncode
    assert not Path("/etc/moorage-test").exists()


def test_the_network_has_the_bed_and_nothing_else(bed: Bed) -> None:
    known = bed.hosts[0].inside("tail", "-n+2", "/etc/hosts").stdout
    assert [tuple(line.split()) for line in known.splitlines()] == [
        (end.address, end.name) for end in [*bed.hosts, bed.here]
    ]
    with socket.create_server((bed.here.address, 0)) as server:
        port = server.getsockname()[1]
        bed.hosts[2].inside("bash", "-c", f"exec 3<>/dev/tcp/here/{port}")
        server.accept()[0].close()
    assert "default" not in bed.hosts[0].inside("ip", "route").stdout


def test_accounts(bed: Bed) -> None:
    first, second, third = bed.hosts
    assert first.run("id", "-un").stdout == "root\n"
    both = second.run("sh", "-c", "id -un; sudo -n id -un").stdout
    assert both == f"{ACCOUNT}\nroot\n"
    refused = third.run("sh", "-c", "sudo -n true; ls /root", check=False).stderr
    assert "password is required" in refused
    assert "Permission denied" in refused


def test_a_configuration_for_ssh(bed: Bed, tmp_path: Path) -> None:
    config = bed.hosts[1].ssh_config(tmp_path / "one")
    command = ["ssh", "-F", str(config), bed.hosts[1].address, "hostname"]
    assert subprocess.check_output(command, text=True) == "h2\n"
    everything = bed.ssh_config(tmp_path / "all")
    jump = ["ssh", "-F", str(everything), "-J", "h2", "h1", "hostname"]
    assert subprocess.check_output(jump, text=True) == "h1\n"


def test_the_developers_tree_is_hidden_unless_asked_for(bed: Bed) -> None:
    first, second, third = bed.hosts
    assert third.inside("ls", "-A", str(TESTS.parent)).stdout == ""
    assert first.inside("ls", "-A", str(TESTS.parent)).stdout == ""
    assert first.inside("ls", "-A", "/root").stdout == ".ssh\n"
    package = "import moorage; print(moorage.__path__[0])"
    shown = second.inside(sys.executable, "-c", package).stdout
    assert shown.strip() == str(TESTS.parent / "src" / "moorage")
    write = second.inside("touch", str(TESTS / "x"), check=False)
    assert "Read-only" in write.stderr


def test_a_host_without_python_and_one_with(bed: Bed) -> None:
    assert bed.hosts[0].inside("python3", "-c", "print(1)").stdout == "1\n"
    assert bed.hosts[2].inside("sh", "-c", "command -v python3", check=False).stdout == ""


def test_a_nearly_full_disk(bed: Bed) -> None:
    third = bed.hosts[2]
    write = ["dd", "if=/dev/zero", "of=/big", "bs=1M"]
    assert "No space left" in third.inside(*write, "count=4", check=False).stderr
    third.inside(*write, "count=1")


def test_limits_hold_for_the_whole_host(bed: Bed) -> None:
    second = bed.hosts[1]
    big = "x = bytearray(200 << 20)"
    assert second.inside("python3", "-c", big, check=False).returncode == -signal.SIGKILL
    many = (
        "trap 'kill $all' EXIT; for n in $(seq 300); do sleep 60 >&- 2>&- & all=\"$all $!\"; done"
    )
    assert "ork" in second.inside("sh", "-c", many, check=False).stderr


def test_orphans_are_reaped(bed: Bed) -> None:
    first = bed.hosts[0]
    with socket.create_server((bed.here.address, 0)) as server:
        port = server.getsockname()[1]
        # The orphan's end of the connection closes when it ends; its parent is gone by then.
        first.run(
            "bash", "-c", f"(exec 3<>/dev/tcp/{bed.here.address}/{port}; read -u 3) >&- 2>&- &"
        )
        with server.accept()[0] as connection:
            connection.sendall(b"end\n")
            assert connection.recv(1) == b""
        # Its files are closed before it can be reaped.
        deadline = time.monotonic() + PATIENCE
        states = ["Z"]
        while any(state.startswith("Z") for state in states):
            assert time.monotonic() < deadline
            states = first.inside("ps", "-eo", "stat").stdout.split()


def test_cut_and_heal(bed: Bed) -> None:
    first, second, third = bed.hosts
    bed.cut(first)
    assert not answers(first, SOON)
    assert not reaches(second, first, SOON)
    assert answers(second)
    assert reaches(second, third)
    bed.heal(first)
    assert answers(first)
    assert reaches(first, second)


def test_cut_one_way(bed: Bed) -> None:
    first, second, third = bed.hosts
    bed.cut_one_way(first, second)
    assert not reaches(second, first, SOON)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((bed.here.address, 0))
        listener.settimeout(PATIENCE)
        port = listener.getsockname()[1]
        bed.cut_one_way(bed.here, third)
        third.inside("bash", "-c", f"echo hello >/dev/udp/{bed.here.address}/{port}")
        assert listener.recv(10) == b"hello\n"
        assert not answers(third, SOON)
    assert reaches(third, first)


def test_partition(bed: Bed) -> None:
    first, second, third = bed.hosts
    bed.partition(first, [second, bed.here])
    assert not reaches(first, second, SOON)
    assert not answers(first, SOON)
    assert reaches(first, third)
    assert reaches(second, third)
    bed.heal()
    assert reaches(first, second)


def test_freeze_and_thaw(bed: Bed) -> None:
    first = bed.hosts[0]
    bed.freeze(first)
    assert not answers(first, SOON)
    bed.thaw(first)
    assert answers(first)


def test_kill_is_silent_and_start_is_another_boot(bed: Bed) -> None:
    first = bed.hosts[0]
    boot = first.inside("cat", "/proc/sys/kernel/random/boot_id").stdout
    first.run(
        "sh", "-c", "echo kept >/root/disk; echo lost >/tmp/memory; setsid sleep 1000 >&- 2>&- &"
    )
    with socket.create_connection((first.address, 22)) as connection:
        assert connection.recv(4) == b"SSH-"
        connection.setblocking(False)
        bed.freeze(first)  # frozen hosts can lose their power too
        bed.kill(first)
        left = connection.recv(4096)
        with pytest.raises(BlockingIOError):  # neither FIN nor RST
            connection.recv(1)
        assert left
        assert not answers(first, SOON)
        assert (first.disk / "root/disk").read_text() == "kept\n"
        bed.start(first)
    seen = first.inside(
        "sh", "-c", "cat /proc/sys/kernel/random/boot_id /root/disk; ls -A /tmp; ps ax"
    )
    again, kept, *rest = seen.stdout.splitlines()
    assert (kept, again != boot.strip()) == ("kept", True)
    assert not any("memory" in line or "sleep 1000" in line for line in rest)
    assert float(first.inside("cat", "/proc/uptime").stdout.split()[0]) < 60


def test_a_cut_host_boots_behind_the_cut(bed: Bed) -> None:
    first = bed.hosts[0]
    bed.cut(first)
    bed.kill(first)
    bed.start(first)
    assert not answers(first, SOON)
    bed.heal()
    assert answers(first)


def test_a_host_that_ends_itself(bed: Bed) -> None:
    first = bed.hosts[0]
    first.inside(
        "python3", "-c", "import ctypes; ctypes.CDLL(None).reboot(0x1234567)", check=False
    )
    bed.wait_down(first)
    bed.start(first)
    assert answers(first)


def test_rate(bed: Bed) -> None:
    first = bed.hosts[0]
    size = 2 * MIB
    bed.rate(first, "40mbit")
    began = time.monotonic()
    assert len(first.run("head", "-c", str(size), "/dev/zero").stdout) == size
    slow = time.monotonic() - began
    assert slow > 0.8 * size * 8 / 40e6
    with pytest.raises(ValueError, match="100mbit"):
        bed.rate(first, "fast")


def test_loss(bed: Bed) -> None:
    second = bed.hosts[1]
    assert answers(second)  # from now on they know each other's hardware address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((bed.here.address, 0))
        port = listener.getsockname()[1]
        bed.loss(second, 0.5)
        to = f"('{bed.here.address}', {port})"
        send = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        # The kernel delivers in its own time: what comes last says so, once at least.
        send += f"for word in [b'x'] * 200 + [b'end'] * 64: s.sendto(word, {to})"
        second.inside("python3", "-c", send)
        listener.settimeout(PATIENCE)
        arrived, ended = 0, False
        while arrived <= 40 or not ended:
            if listener.recv(3) == b"end":
                ended = True
            else:
                arrived += 1
    assert arrived < 160
    with pytest.raises(ValueError, match="between 0 and 1"):
        bed.loss(second, 2)


def links_protection() -> list[str]:
    """Settings of the machine's kernel that Debian's systemd changes."""
    return [path.read_text() for path in sorted(Path("/proc/sys/fs").glob("protected_*"))]


@pytest.mark.skipif(
    not Path("/lib/systemd/systemd").exists(), reason="systemd is not installed here"
)
def test_systemd_as_process_1() -> None:
    before = links_protection()
    with bed_of([Shape(systemd=True)]) as bed:
        (host,) = bed.hosts
        assert host.run("systemctl", "is-system-running", "--wait").stdout == "running\n"
        bed.kill(host)
        bed.start(host)
        assert host.run("systemd-run", "--wait", "--pipe", "echo", "hello").stdout == "hello\n"
    assert links_protection() == before


def left_of(number: int) -> list[Path]:
    """What a bed may not leave."""
    link = link_of(number)
    places = [directory_of(number), Path("/sys/class/net") / link, *Groups(link).of_bed()]
    return [path for path in places if path.exists()]


def test_two_beds_at_once_and_nothing_left(bed: Bed) -> None:
    before = forwarding()
    with bed_of() as other:
        assert other.number != bed.number
        assert other.hosts[0].address not in {host.address for host in bed.hosts}
        assert answers(other.hosts[0])
        assert answers(bed.hosts[0])
        outer = other.hosts[0].outer
        assert len(left_of(other.number)) > 2
        with socket.create_connection((other.hosts[0].address, 22)):
            began = time.monotonic()
            other.freeze(other.hosts[0])
    assert time.monotonic() - began < PATIENCE
    assert left_of(other.number) == []
    assert not Path(f"/proc/{outer}").exists()
    assert forwarding() == before
    # What else runs here mounts and unmounts meanwhile.
    assert str(directory_of(other.number)) not in Path("/proc/mounts").read_text()


CHILD = """
import signal
from testbed.bed import bed_of
with bed_of() as bed:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(bed.number, bed.guardian.pid, bed.hosts[0].pid, flush=True)
    signal.pause()
"""


@contextmanager
def child() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process with a bed of its own: the bed's number, its guardian and its host."""
    command = [sys.executable, "-c", CHILD]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout
        yield process, [int(word) for word in process.stdout.readline().split()]
        process.kill()


def kill_and_wait(victim: int, ending: int) -> None:
    """kill -9 for a process; until another has ended."""
    ended = os.pidfd_open(ending)
    try:
        os.kill(victim, signal.SIGKILL)
        assert select.select([ended], [], [], 30)[0]
    finally:
        os.close(ended)


@pytest.mark.usefixtures("bed")
def test_nothing_is_left_of_a_killed_test() -> None:
    with child() as (process, (number, guardian, host)):
        kill_and_wait(process.pid, guardian)
        assert left_of(number) == []
        assert not Path(f"/proc/{host}").exists()


@pytest.mark.usefixtures("bed")
def test_a_killed_guardian_takes_the_hosts_along() -> None:
    with child() as (process, (number, guardian, host)):
        kill_and_wait(guardian, host)
        process.send_signal(signal.SIGINT)
        process.wait(30)
        # The link goes with the guardian's namespace, whenever the kernel comes to that.
        assert [path for path in left_of(number) if path.parent.name != "net"] == []
