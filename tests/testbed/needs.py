"""Whether this machine and user can have a test bed."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from testbed.cgroups import hierarchies

PROGRAMS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "/usr/sbin/sshd": "openssh-server",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "sudo": "sudo",
}
TRIAL = """
ip link add name a0 type veth peer name b0
ip link add name c0 type bridge
echo 'add table bridge t; add chain bridge t f { type filter hook forward priority 0; }' | nft -f -
mount -t tmpfs tmpfs /mnt
mkdir /mnt/u /mnt/w /mnt/r
mount -t overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w overlay /mnt/r
"""


@cache
def lacking() -> str:
    """Why not, in words; empty: it can."""
    if os.geteuid():
        return "a test bed needs root"
    missing = {package for name, package in PROGRAMS.items() if shutil.which(name) is None}
    if missing:
        return f"a test bed needs these packages: {', '.join(sorted(missing))}"
    unified = [h.place for h in hierarchies() if h.kind == "cgroup2"]
    if not unified:
        return "a test bed needs the cgroup v2 hierarchy mounted, beside v1 or alone"
    if not _can_kill(unified[0]):
        return "a test bed needs a writable cgroup v2 hierarchy with cgroup.kill (Linux 5.14)"
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--propagation", "private"]
    command = [*apart, "sh", "-euc", TRIAL]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no namespaces, bridge, nftables or overlay here: {tried.stderr.strip()}"
    return ""


def _can_kill(place: Path) -> bool:
    trial = place / f"moorage-trial-{os.getpid()}"
    try:
        trial.mkdir()
    except OSError:
        return False
    try:
        return (trial / "cgroup.kill").exists()
    finally:
        trial.rmdir()
