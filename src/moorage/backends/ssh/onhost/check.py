"""Look at this machine, change nothing, and say what there is."""

from __future__ import annotations

import ctypes
import glob
import os
import platform
import pwd
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from moorage.backends.ssh.onhost import place

PATIENCE = 8.0
"""Seconds for any tool that is asked for its version."""
_REACH = 3.0
_ENGINES = ("podman", "docker", "apptainer")
_GPU_TOOLS = {
    "nvidia-smi": ["-L"],
    "amd-smi": ["version"],
    "xpu-smi": ["-v"],
    "tt-smi": ["-v"],
}
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_PYTHONS = re.compile(r"python3\.(\d+)")
_MORE_PYTHONS = (
    "/opt/*/bin",
    "~/.local/bin",
    "~/.pyenv/versions/*/bin",
    "~/.local/share/uv/python/*/bin",
    "~/miniconda3/bin",
    "~/miniforge3/bin",
)
_ASK = "import sys, asyncio, ctypes, sqlite3, ssl, zlib; print(*sys.version_info[:2])"


def main(arguments: dict[str, Any], _stream: BinaryIO) -> dict[str, Any]:
    """Everything, in one answer. `server`: its id; `urls`: servers to try, with certificates of
    the `authority`; `python`: version
    that is wanted first."""
    if not sys.platform.startswith("linux"):
        raise RuntimeError("the host runs %s" % platform.system(), "an agent needs Linux")
    began = time.time()
    with ThreadPoolExecutor(16) as pool:
        asked = [(url, arguments["authority"]) for url in arguments["urls"]]
        reached = list(pool.map(_reaches, asked))
        engines = list(pool.map(_version, _ENGINES))
        tools = list(pool.map(_answers, _GPU_TOOLS))
    privilege = _privilege()
    pythons = _pythons()
    directory = place.directory(arguments["server"], privilege)
    return {
        "hostname": socket.gethostname(),
        "user": _user(),
        "privilege": privilege,
        "os": _os_name(),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "libc": _libc(),
        "pythons": [{"path": path, "version": version} for path, version in pythons],
        "python": _working(pythons, tuple(arguments["python"])),
        "directory": directory,
        "disk_free": _free(directory),
        "memory": _memory(),
        "cpus": len(os.sched_getaffinity(0)),
        "addresses": interface_addresses(),
        "time": (began, time.time()),
        "cgroups": _cgroups(),
        "cgroups_writable": _may_make_cgroups(privilege),
        "mount_namespaces": _may_mount(),
        "init": _init(privilege),
        "engines": {name: found for name, found in zip(_ENGINES, engines) if found},
        "gpu_tools": [name for name, there in zip(_GPU_TOOLS, tools) if there],
        "gpus": bool(glob.glob("/dev/nvidia[0-9]*") or glob.glob("/dev/kfd")),
        "reaches": [url for url, there in zip(arguments["urls"], reached) if there],
        **place.state(directory),
    }


def _run(argv: list[str]) -> str | None:
    """What a program prints; None where it is not there, fails or hangs."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def _privilege() -> str:
    if os.geteuid():
        return ""
    return "sudo" if int(os.environ.get("SUDO_UID", "0")) else "root"


def _user() -> str:
    return pwd.getpwuid(int(os.environ.get("SUDO_UID", os.geteuid()))).pw_name


def _reaches(asked: tuple[str, str]) -> bool:
    """Whether a server answers there, whose certificate is of the authority: another machine may
    have the same address in another network."""
    url, authority = asked
    parts = urlsplit(url)
    try:
        trusting = ssl.create_default_context(cadata=authority or None)
        host = parts.hostname or ""
        connection = socket.create_connection((host, parts.port or 443), _REACH)
        with connection, trusting.wrap_socket(connection, server_hostname=host):
            return True
    except (OSError, ValueError):
        return False


def _version(name: str) -> str:
    path = shutil.which(name)
    found = _run([path, "--version"]) if path else None
    number = re.search(r"\d+(\.\d+)+", found or "")
    return number.group() if number else ""


def _answers(name: str) -> bool:
    path = shutil.which(name)
    return path is not None and _run([path, *_GPU_TOOLS[name]]) is not None


def _pythons() -> list[tuple[str, tuple[int, int]]]:
    """Path and version, by their names; the system's own first."""
    places = os.environ.get("PATH", "").split(":")
    for pattern in _MORE_PYTHONS:
        places += sorted(glob.glob(os.path.expanduser(pattern)))
    found = {os.path.realpath(sys.executable): (sys.version_info[0], sys.version_info[1])}
    for directory in dict.fromkeys(places):
        try:
            names = sorted(os.listdir(directory or "."))
        except OSError:
            continue
        for name in names:
            match = _PYTHONS.fullmatch(name)
            if match and os.path.basename(directory) != "shims":
                path = os.path.realpath(os.path.join(directory, name))
                found.setdefault(path, (3, int(match.group(1))))
    return list(found.items())


def _working(pythons: list[tuple[str, tuple[int, int]]], wanted: tuple[int, ...]) -> str:
    """The first of that version that starts and has what an agent needs; empty: none."""
    for path, version in pythons:
        if version == wanted:
            answer = (_run([path, "-I", "-S", "-c", _ASK]) or "").split()
            if answer == [str(number) for number in wanted]:
                return path
    return ""


def _os_name() -> str:
    for line in place.read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip("\"'")
    return platform.system()


def _libc() -> str:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").strip()
    except (OSError, ValueError):
        return "musl" if glob.glob("/lib/ld-musl-*") else ""


def _free(directory: str) -> int:
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    there = os.statvfs(directory)
    return there.f_bavail * there.f_frsize


def _memory() -> int:
    for line in place.read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def interface_addresses() -> list[str]:
    """Of this machine, without those that only itself or its link can use."""
    found = re.findall(r"\binet6? ([0-9a-f.:]+)", _run(["ip", "-o", "address"]) or "")
    if not found:
        found = (_run(["hostname", "-I"]) or "").split()
    local = ("127.", "::1", "fe80:", "169.254.")
    return [address for address in dict.fromkeys(found) if not address.startswith(local)]


def _hierarchies() -> dict[str, str]:
    """Mount point of each kind of cgroup: a controller's, or "" of version 2."""
    found: dict[str, str] = {}
    for line in place.read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        if kind == "cgroup2":
            found.setdefault("", before.split(" ")[4])
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, before.split(" ")[4])
    return found


def _cgroups() -> str:
    found = _hierarchies()
    if not found:
        return ""
    if "" not in found:
        return "v1"
    return "hybrid" if "memory" in found else "v2"


def _may_make_cgroups(privilege: str) -> bool:
    found = _hierarchies()
    top = found.get("memory", found.get(""))
    if top is None:
        return False
    if privilege:
        # Root may, unless all is mounted read-only, as containers have it.
        return not os.statvfs(top).f_flag & os.ST_RDONLY
    return os.access(top, os.W_OK)


def _may_mount() -> bool:
    """Tried in a child: what it enters ends with it."""
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        flags = _CLONE_NEWNS if os.geteuid() == 0 else _CLONE_NEWNS | _CLONE_NEWUSER
        os._exit(0 if libc.unshare(flags) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


def _init(privilege: str) -> str:
    """Which systemd would keep a unit of ours running, also with nobody logged in."""
    if not os.path.isdir("/run/systemd/system") or shutil.which("systemctl") is None:
        return ""
    if privilege:
        return "system"
    if not os.path.exists("/var/lib/systemd/linger/" + _user()):
        return ""
    environment = place.user_bus()
    return "user" if os.path.exists(environment["XDG_RUNTIME_DIR"] + "/systemd") else ""
