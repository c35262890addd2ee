"""A bed of hosts for the length of a block:

    with bed_of(3) as bed:
        bed.hosts[0].run("hostname")
        bed.cut(bed.hosts[0])

Skips the test, with the reason, where this machine or user cannot have one.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import pytest

from testbed.cgroups import Groups
from testbed.furnish import Disk, KeyPair, key_pair
from testbed.guardian import clear, directory_of, link_of
from testbed.host import Host
from testbed.needs import lacking
from testbed.shape import Shape
from testbed.switch import Endpoint, Switch, taken

TESTS = Path(__file__).resolve().parents[1]
BOOT = Path(__file__).with_name("boot.sh")
PATIENCE = 60.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@contextmanager
def bed_of(hosts: int | Sequence[Shape] = 1) -> Iterator[Bed]:
    """Hosts h1, h2, ... that answer ssh; nothing of them is left afterwards."""
    reason = lacking()
    if reason:
        pytest.skip(reason)
    shapes = [Shape()] * hosts if isinstance(hosts, int) else list(hosts)
    with ExitStack() as stack:
        bed = Bed(shapes, stack)
        bed.set_up()
        yield bed


class Bed:
    """Hosts on one switch. `here` is the test's side of it: the address where a server that the
    hosts are to reach may listen, and an end for `cut_one_way` and `partition`.

    Every method returns when what it says is so. Threads may call them."""

    def __init__(self, shapes: Sequence[Shape], stack: ExitStack) -> None:
        self._lock = RLock()
        self._control, theirs = socket.socketpair()
        stack.enter_context(self._control)
        self._control.settimeout(PATIENCE)
        self._lines = stack.enter_context(self._control.makefile("rb"))
        with theirs:
            self.guardian = self._start_guardian(theirs)
        self.number = int(self._receive()["number"])
        stack.callback(self._tear_down)
        self.directory = directory_of(self.number)
        """Of the test's side: `key`, `known_hosts`, `ssh_config`, one log a host."""
        self._groups = Groups(link_of(self.number))
        self._switch = Switch(self.number, self.guardian.pid)
        self.here = self._switch.here
        self.key = self.directory / "key"
        self.known_hosts = self.directory / "known_hosts"
        self._disks = Path(f"/proc/{self.guardian.pid}/root") / self._disk("").relative_to("/")
        self.hosts = [self._host(index, shape) for index, shape in enumerate(shapes, 1)]

    def _start_guardian(self, control: socket.socket) -> subprocess.Popen[bytes]:
        avoid = ",".join(map(str, sorted(taken())))
        apart = ["unshare", "--net", "--mount", "--propagation", "private"]
        program = [sys.executable, "-m", "testbed.guardian"]
        return subprocess.Popen(
            [*apart, *program, str(control.fileno()), str(os.getpid()), avoid],
            pass_fds=[control.fileno()],
            stdin=subprocess.DEVNULL,
            env={"PATH": PATH, "PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,  # an interrupt at the terminal is for the test alone
        )

    def _disk(self, host: str) -> Path:
        return self.directory / "disks" / host

    def _host(self, index: int, shape: Shape) -> Host:
        name = f"h{index}"
        endpoint = Endpoint(name, self._switch.address(index), name)
        host = Host(endpoint, shape, self.directory, self._disks / name / "disk" / "upper")
        host.groups = self._groups.of_host(name)
        return host

    def set_up(self) -> None:
        """Furnish and boot all hosts; once."""
        self._switch.set_up()
        client = key_pair()
        own = {host.name: key_pair() for host in self.hosts}
        self._write_keys(client, own)
        self._mount_disks()
        etc_hosts = "".join(f"{e.address} {e.name}\n" for e in [*self.hosts, self.here])
        mounts = [f"{h.kind} {h.place} {h.options}" for h in self._groups.hierarchies]
        for host in self.hosts:
            limits = host.shape
            self._groups.make(host.name, memory=limits.memory, cpus=limits.cpus, pids=limits.pids)
            disk = Disk(self._disks / host.name, limits)
            disk.furnish(host.name, etc_hosts, client, own[host.name])
            disk.cgroups(mounts)
        self.start(*self.hosts)

    def _write_keys(self, client: KeyPair, own: dict[str, KeyPair]) -> None:
        self.key.touch(mode=0o600)
        self.key.write_text(client.private)
        self.key.with_suffix(".pub").write_text(f"{client.public}\n")
        lines = [f"{host.name},{host.address} {own[host.name].public}\n" for host in self.hosts]
        self.known_hosts.write_text("".join(lines))
        self.ssh_config(self.directory / "ssh_config")

    def _mount_disks(self) -> None:
        commands = []
        for host in self.hosts:
            disk = self._disk(host.name)
            (self._disks / host.name / "disk").mkdir(parents=True)
            commands.append(f"mount -t tmpfs -o size={host.shape.disk} tmpfs {disk}/disk")
        enter = ["nsenter", f"--mount=/proc/{self.guardian.pid}/ns/mnt"]
        subprocess.run([*enter, "sh", "-euc", "\n".join(commands)], check=True)

    def ssh_config(self, path: Path) -> Path:
        """Write a configuration for `ssh -F` that knows all hosts."""
        path.write_text("".join(host.ssh_entry() for host in self.hosts))
        return path

    def start(self, *hosts: Host) -> None:
        """Boot hosts that are down, with the disks and addresses they had, and another boot id.
        AssertionError, with the log, where one does not come up."""
        with self._lock:
            for host in hosts:
                assert not host.up, f"{host.name} is up"
                self._groups.reset(host.name)
                Disk(self._disks / host.name, host.shape).boot_id()
                self._send(boot=host.name, argv=self._boot(host), log=str(self.log(host)))
            while not all(host.up for host in hosts):
                message = self._receive()
                self._note(message)
                ended = [host for host in hosts if host.name == message.get("ended")]
                assert not ended, self.log(ended[0]).read_text()
            for host in hosts:
                self._groups.settle(host.name, host.outer)
                self._switch.plugged(host.port, host.outer)

    def _boot(self, host: Host) -> list[str]:
        where = [str(self.guardian.pid), host.name, str(self._disk(host.name))]
        cable = [host.address, self._switch.hardware_address(self.hosts.index(host) + 1)]
        die = ["setpriv", "--pdeathsig", "KILL"]
        return [*die, "sh", str(BOOT), *where, *cable, "--", *map(str, host.groups)]

    def kill(self, *hosts: Host) -> None:
        """The power fails: all processes end at once, nothing more is sent, the disk stays."""
        with self._lock:
            for host in hosts:
                assert host.up, f"{host.name} is down"
                self._switch.unplug(host.port)
                self._groups.kill(host.name)
            while any(host.up for host in hosts):
                self._note(self._receive())
            for host in hosts:
                self._groups.reset(host.name)

    def cut(self, *hosts: Host) -> None:
        """Nothing reaches these hosts, and nothing comes from them; links seem to be up."""
        others = [*self.hosts, self.here]
        pairs = [(host, other) for host in hosts for other in others if other is not host]
        self._block(pairs + [(b, a) for a, b in pairs])

    def cut_one_way(self, sender: Endpoint, receiver: Endpoint) -> None:
        """What `sender` sends does not reach `receiver`; the other way works."""
        self._block([(sender, receiver)])

    def partition(
        self, some: Endpoint | Sequence[Endpoint], others: Endpoint | Sequence[Endpoint]
    ) -> None:
        """Nothing passes between any of the one and any of the others, either way."""
        first = [some] if isinstance(some, Endpoint) else some
        second = [others] if isinstance(others, Endpoint) else others
        pairs = [(a, b) for a in first for b in second]
        self._block(pairs + [(b, a) for a, b in pairs])

    def _block(self, directions: list[tuple[Endpoint, Endpoint]]) -> None:
        with self._lock:
            self._switch.block(*directions)

    def heal(self, *endpoints: Endpoint) -> None:
        """Undo cuts, partitions and losses of these; without arguments, of all."""
        with self._lock:
            self._switch.heal(*(endpoints or [*self.hosts, self.here]))

    def loss(self, host: Host, probability: float) -> None:
        """Each packet to or from a host is lost with that probability, 0 to 1."""
        with self._lock:
            self._switch.lose(host, probability)

    def rate(self, host: Host, rate: str | None) -> None:
        """Limit a host's link each way, such as "100mbit"; None: as fast as it goes."""
        with self._lock:
            self._switch.limit(host.port, host.outer, rate)

    def freeze(self, *hosts: Host) -> None:
        """All processes stop where they are; the kernel still answers pings and accepts."""
        for host in hosts:
            self._groups.freeze(host.name, True)

    def thaw(self, *hosts: Host) -> None:
        for host in hosts:
            self._groups.freeze(host.name, False)

    def log(self, host: Host) -> Path:
        """What the host's boot and sshd said."""
        return self.directory / f"{host.name}.log"

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def wait_down(self, host: Host, timeout: float = PATIENCE) -> None:
        """Until a host has ended on its own account. TimeoutError."""
        deadline = time.monotonic() + timeout
        with self._lock:
            while host.up:
                self._note(self._receive(max(deadline - time.monotonic(), 0.001)))

    def _note(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self[message["ready"]].outer = message["pid"]
        else:
            host = self[message["ended"]]
            host.outer = 0
            # The kernel takes its time; the next boot needs the name.
            self._switch.unplug(host.port)

    def _send(self, **order: object) -> None:
        self._control.sendall(json.dumps(order).encode() + b"\n")

    def _receive(self, timeout: float = PATIENCE) -> dict[str, Any]:
        self._control.settimeout(timeout)
        line = self._lines.readline()
        assert line, f"the guardian of the test bed ended: {self.guardian.wait(PATIENCE)}"
        message: dict[str, Any] = json.loads(line)
        return message

    def _tear_down(self) -> None:
        self._control.shutdown(socket.SHUT_WR)
        code = self.guardian.wait(PATIENCE)
        if code:
            clear(self.number)
        assert code == 0, f"the guardian of the test bed ended with {code}"
