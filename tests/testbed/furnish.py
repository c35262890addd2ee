"""A host's disk before its first boot: what differs from the machine that lies below it.

Everything here writes into the upper directory of an overlay. A directory marked opaque hides
what the machine has in that place and stays an ordinary, writable directory of the host.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from testbed.shape import ACCOUNT, DEVICES, Shape

CHECKOUT = Path(__file__).resolve().parents[2]
UID = 4242
SUBORDINATE = "200000:65536"
HIDDEN = ("/root", "/home", "/etc/ssh", "/var/tmp", "/var/lib/moorage")
PYTHONS = ("/usr/bin", "/usr/local/bin", "/opt/python/bin")
"""Where one may be besides the places on the test's own PATH, which `Host.inside` passes on."""
# The key exchange is the one that needs least time: a login takes half as long as with sshd's own.
SSHD = """\
PidFile none
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 200
Subsystem sftp internal-sftp
HostKey /etc/ssh/ssh_host_ed25519_key
KexAlgorithms curve25519-sha256
"""


UNIT = """\
[Service]
RuntimeDirectory=sshd
ExecStart=/usr/sbin/sshd -D -e
StandardError=file:/run/testbed
Restart=always
KillMode=process
"""
MASKED = (
    "getty.target",
    "systemd-logind.service",
    "systemd-udevd.service",
    # These would change the machine's kernel.
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "systemd-binfmt.service",
    "systemd-random-seed.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
)


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key in OpenSSH's formats."""

    private: str
    public: str


def key_pair() -> KeyPair:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return KeyPair(private.decode(), public.decode())


class Disk:
    """The writable layer of one host; `directory` as the test's process sees it."""

    def __init__(self, directory: Path, shape: Shape) -> None:
        self.upper = directory / "disk" / "upper"
        self._directory = directory
        self._shape = shape

    def furnish(self, name: str, hosts: str, client: KeyPair, own: KeyPair) -> None:
        """Make everything; `hosts` is /etc/hosts, `client` may log in, `own` is the host's."""
        for path in (self.upper, self._directory / "disk" / "work", self._directory / "root"):
            path.mkdir(parents=True)
        self.upper.chmod(0o755)
        for hidden in [*HIDDEN, str(CHECKOUT)]:
            self._hide(Path(hidden))
        self.write("/etc/hostname", f"{name}\n")
        self.write("/etc/hosts", f"127.0.0.1 localhost\n{hosts}")
        self.write("/etc/resolv.conf", "# no name server is reachable\n")
        self.write("/etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444)
        self.write("/etc/ssh/sshd_config", SSHD)
        self.write("/etc/ssh/ssh_host_ed25519_key", own.private, 0o600)
        self._accounts(client)
        if self._shape.systemd:
            self._units()
        if not self._shape.python:
            self._remove_pythons()
        self._lists()
        if self._shape.free is not None:
            self._fill(self._shape.free)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file of the host, in place of the machine's."""
        at = self._parent(Path(path)) / Path(path).name
        at.touch(mode=mode)
        at.write_text(text)
        at.chmod(mode)

    def _parent(self, path: Path) -> Path:
        """The directory for a path, with the modes and owners of the machine's."""
        made = self.upper
        for part in reversed(path.parents[:-1]):
            made = self.upper / part.relative_to("/")
            if not made.exists():
                made.mkdir()
                if part.exists():
                    like = part.stat()
                    os.chown(made, like.st_uid, like.st_gid)
                    made.chmod(stat.S_IMODE(like.st_mode))
        return made

    def _hide(self, path: Path) -> None:
        inside = self._parent(path / "any")
        os.setxattr(inside, "trusted.overlay.opaque", b"y")

    def _accounts(self, client: KeyPair) -> None:
        home = f"/home/{ACCOUNT}"
        lines = {
            "passwd": f"{ACCOUNT}:x:{UID}:{UID}::{home}:/bin/bash",
            "group": f"{ACCOUNT}:x:{UID}:",
            "shadow": f"{ACCOUNT}:*:19000:0:99999:7:::",
            "subuid": f"{ACCOUNT}:{SUBORDINATE}",
            "subgid": f"{ACCOUNT}:{SUBORDINATE}",
        }
        for name, line in lines.items():
            there = Path("/etc") / name
            text = there.read_text() if there.exists() else ""
            self.write(f"/etc/{name}", f"{text}{line}\n", 0o640 if name == "shadow" else 0o644)
        if self._shape.sudo:
            self.write("/etc/sudoers.d/testbed", f"{ACCOUNT} ALL=(ALL) NOPASSWD: ALL\n", 0o440)
        for owner, where in ((0, "/root"), (UID, home)):
            self.write(f"{where}/.ssh/authorized_keys", f"{client.public}\n", 0o600)
            top = self.upper / where.lstrip("/")
            for path in (top, top / ".ssh", top / ".ssh" / "authorized_keys"):
                os.chown(path, owner, owner)
                path.chmod(0o600 if path.is_file() else 0o700)

    def _units(self) -> None:
        """No service of the machine but those that systemd itself must have."""
        units = Path("/etc/systemd/system")
        self._hide(units)
        self._hide(Path("/etc/init.d"))
        self.write(f"{units}/testbed-sshd.service", UNIT)
        wanted = self.upper / units.relative_to("/") / "multi-user.target.wants"
        wanted.mkdir()
        (wanted / "testbed-sshd.service").symlink_to("../testbed-sshd.service")
        for masked in MASKED:
            (wanted.parent / masked).symlink_to("/dev/null")

    def _remove_pythons(self) -> None:
        places = {Path(name).resolve() for name in (*PYTHONS, *os.get_exec_path())}
        hidden = [Path(name) for name in (*HIDDEN, str(CHECKOUT))]
        for directory in places:
            if any(directory.is_relative_to(path) for path in hidden):
                continue
            for path in directory.glob("python*"):
                removed = self._parent(path) / path.name
                os.mknod(removed, stat.S_IFCHR)  # with number 0:0, as the overlay marks it

    def _lists(self) -> None:
        """What init.sh reads: directories and devices to show."""
        binds: list[str] = []
        if self._shape.checkout:
            # Links of a virtual environment lead to an interpreter that may be in a hidden place.
            binds = [str(CHECKOUT), str(Path(sys.base_prefix).resolve())]
            binds = [path for path in binds if path not in ("/usr", "/usr/local")]
        for path in binds:
            self._parent(Path(path) / "any")
        self._list("binds", binds)
        self._list("devices", [f"/dev/{name}" for name in DEVICES] + [*self._shape.devices])

    def _list(self, name: str, lines: list[str]) -> None:
        (self._directory / name).write_text("".join(f"{line}\n" for line in lines))

    def boot_id(self) -> None:
        """Another boot."""
        self._list("boot_id", [str(uuid.uuid4())])

    def cgroups(self, lines: list[str]) -> None:
        """The hierarchies to mount: kind, place, options."""
        self._list("cgroups", lines)

    def _fill(self, free: int) -> None:
        there = shutil.disk_usage(self.upper)
        filler = self.upper / "var" / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(there.free - free, 1))
