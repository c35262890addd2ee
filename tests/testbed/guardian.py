"""The process that holds a bed, and removes it when the test's process lets go or dies.

It lives in a mount and a network namespace of its own: the disks of the hosts are mounted only
there, and the switch is there. Whatever kills it therefore ends nearly all of the bed: the hosts
by their parent-death signal, disks, switch and links with the namespaces. Only empty control
groups and a directory could stay; the test removes those, or the next bed that takes this number.

Messages are lines of JSON on a socket: `{"boot": host, "argv": [...], "log": path}` in,
`{"number": n}`, `{"ready": host, "pid": n}` and `{"ended": host, "code": n}` out. End of file is
the end of the bed.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from testbed.cgroups import Groups

BEDS = 512
PR_SET_CHILD_SUBREAPER = 36
READY = b"Server listening on"
"""What sshd says on its error output as soon as it accepts connections."""


def link_of(number: int) -> str:
    """The interface on the test's side. Its name is the claim on the bed's number."""
    return f"moorage-bed{number}"


def directory_of(number: int) -> Path:
    """Keys, logs and mount points of a bed."""
    return Path("/run") / link_of(number)


def numbers(test: int) -> list[int]:
    """Those that a process may take, the first one first. Each begins elsewhere, so that what one
    looks for after its bed has gone is not a bed that another has made there meanwhile."""
    first = test * 97 % BEDS
    return [(first + more) % BEDS for more in range(BEDS)]


def clear(number: int) -> None:
    """Remove what does not end with the guardian's process. TimeoutError."""
    Groups(link_of(number)).remove()
    shutil.rmtree(directory_of(number), ignore_errors=True)


def reap(options: int = 0) -> None:
    """Take leave of children, a host's process 1 among them: what started it ends as soon."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


class Guardian:
    """One bed's."""

    def __init__(self, control: socket.socket, test: int, avoid: set[int]) -> None:
        self._control = control
        self._test = test
        self._avoid = avoid
        self._hosts: dict[str, tuple[subprocess.Popen[bytes], BinaryIO]] = {}
        self._waiting = selectors.DefaultSelector()
        self._received = b""
        self._number = -1
        self._groups: Groups | None = None

    def serve(self) -> None:
        """Until the test's end of the socket is closed, or its process has ended."""
        # The socket alone is not enough: a fork of the test's process would keep it open.
        test = os.pidfd_open(self._test)
        try:
            self._claim()
            self._waiting.register(self._control, selectors.EVENT_READ, self._order)
            self._waiting.register(test, selectors.EVENT_READ, lambda: False)
            while all(key.data() for key, _ in self._waiting.select()):
                pass
        finally:
            self._remove()
            os.close(test)

    def _claim(self) -> None:
        for number in numbers(self._test):
            if number in self._avoid:
                continue
            link = ["ip", "link", "add", "name", "uplink", "type", "veth", "peer", "name"]
            made = _quiet(*link, link_of(number), "netns", str(self._test))
            if made.returncode == 0:
                break
            if "exists" not in made.stderr:
                raise SystemExit(made.stderr)
        else:
            raise SystemExit(f"{BEDS} test beds are in use")
        self._number = number
        clear(number)
        self._groups = Groups(link_of(number))
        self._groups.make_bed()
        directory_of(number).mkdir(mode=0o700)
        disks = directory_of(number) / "disks"
        disks.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disks)], check=True)
        self._say(number=number)

    def _say(self, **message: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._control.sendall(json.dumps(message).encode() + b"\n")

    def _order(self) -> bool:
        try:
            data = self._control.recv(65536)
        except ConnectionResetError:  # it was killed with messages unread
            return False
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            self._boot(order["boot"], order["argv"], Path(order["log"]))
        return bool(data)

    def _boot(self, host: str, argv: list[str], path: Path) -> None:
        log = path.open("ab", buffering=0)
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.PIPE
        )
        self._hosts[host] = process, log
        assert process.stderr
        os.set_blocking(process.stderr.fileno(), False)
        ended = os.pidfd_open(process.pid)
        self._waiting.register(process.stderr, selectors.EVENT_READ, lambda: self._heard(host))
        self._waiting.register(ended, selectors.EVENT_READ, lambda: self._ended(host, ended))

    def _heard(self, host: str) -> bool:
        if host not in self._hosts:  # its end was reported together with its last words
            return True
        process, log = self._hosts[host]
        assert process.stderr
        data = process.stderr.read(65536)
        if data == b"":
            self._waiting.unregister(process.stderr)
        elif data:
            log.write(data)
            if READY in data:
                self._say(ready=host, pid=process.pid)
        return True

    def _ended(self, host: str, pidfd: int) -> bool:
        self._waiting.unregister(pidfd)
        os.close(pidfd)
        process, log = self._hosts.pop(host)
        assert process.stderr
        if process.stderr in self._waiting.get_map():
            self._waiting.unregister(process.stderr)
        log.write(process.stderr.read() or b"")
        process.stderr.close()
        log.close()
        self._say(ended=host, code=process.wait())
        reap(os.WNOHANG)
        return True

    def _remove(self) -> None:
        if self._number < 0:
            return
        assert self._groups
        self._groups.kill()
        for process, _ in self._hosts.values():
            process.kill()
        reap()
        _quiet("umount", "--recursive", "--lazy", str(directory_of(self._number) / "disks"))
        clear(self._number)
        # Last, because it gives the number away.
        _quiet("ip", "link", "del", "uplink")


def _quiet(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def main() -> None:
    """Arguments: the socket's file descriptor, the test's process, numbers not to be used."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1):
        raise SystemExit("orphans of hosts would stay as zombies")
    control = socket.socket(fileno=int(sys.argv[1]))
    avoid = {int(number) for number in sys.argv[3].split(",") if number}
    Guardian(control, int(sys.argv[2]), avoid).serve()


if __name__ == "__main__":
    main()
