"""In place of Apptainer, which no package here brings: takes the options of `apptainer exec` that
moorage uses, as its documentation says them, and runs the program in a root made so. An option
that it does not know is an error. Needs root."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
BIND, REC, SLAVE, RDONLY, REMOUNT = 0x1000, 0x4000, 1 << 19, 1, 0x20


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    words = (source.encode(), target.encode(), kind.encode() if kind else None)
    if LIBC.mount(*words, ctypes.c_ulong(flags), data.encode()) != 0:
        sys.exit(f"FATAL: cannot mount {source} at {target}: {os.strerror(ctypes.get_errno())}")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--silent", action="store_true")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("exec", allow_abbrev=False)
    for flag in ("--contain", "--cleanenv", "--no-home", "--nv", "--rocm", "--writable-tmpfs"):
        run.add_argument(flag, action="store_true", required=flag in ("--contain", "--cleanenv"))
    for name in ("--env-file", "--pwd", "--overlay", "--drop-caps", "--no-mount"):
        run.add_argument(name)
    run.add_argument("--bind", action="append", default=[])
    run.add_argument("image")
    run.add_argument("argv", nargs=argparse.REMAINDER)
    return parser.parse_args()


def variables(path: str | None) -> dict[str, str]:
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    if path is not None:
        show = ["/bin/sh", "-c", 'set -a; . "$1"; /usr/bin/env -0', "sh", path]
        told = subprocess.run(show, env={}, stdout=subprocess.PIPE, check=True).stdout
        pairs = (os.fsdecode(line).partition("=") for line in told.split(b"\0"))
        env |= {name: text for name, _, text in pairs if name not in ("", "PWD", "_")}
    return env


def place(spec: str, root: str) -> None:
    source, target, *more = spec.split(":")
    here = root + target
    if Path(source).is_dir():
        Path(here).mkdir(parents=True, exist_ok=True)
    else:
        Path(here).parent.mkdir(parents=True, exist_ok=True)
        Path(here).touch()
    mount(source, here, None, BIND | REC)
    if more == ["ro"]:
        mount("none", here, None, BIND | REMOUNT | RDONLY)


def enter(given: argparse.Namespace) -> None:
    assert LIBC.unshare(0x20000) == 0
    mount("none", "/", None, REC | SLAVE)
    layer = given.overlay
    if layer is None:
        layer = "/mnt"
        mount("tmpfs", layer, "tmpfs", 0)
    for name in ("upper", "work", "root"):
        Path(layer, name).mkdir(exist_ok=True)
    root = f"{layer}/root"
    parts = f"lowerdir={given.image},upperdir={layer}/upper,workdir={layer}/work"
    mount("overlay", root, "overlay", 0, parts)
    for name in ("proc", "sys", "dev", "tmp"):
        Path(root, name).mkdir(exist_ok=True)
    mount("/proc", f"{root}/proc", None, BIND | REC)
    mount("/sys", f"{root}/sys", None, BIND | REC)
    mount("tmpfs", f"{root}/dev", "tmpfs", 0)
    nodes = [Path("/dev", name) for name in ("null", "zero", "full", "random", "urandom", "tty")]
    for node in [*nodes, *(Path("/dev").glob("nvidia*") if given.nv else ())]:
        place(f"{node}:{node}", root)
    for spec in sorted(given.bind, key=lambda spec: spec.split(":")[1].count("/")):
        place(spec, root)
    os.chroot(root)
    os.chdir(given.pwd or "/")


def main() -> None:
    given = options()
    if not Path(given.image).is_dir():
        sys.exit("FATAL: this stand-in runs directories only")
    env = variables(given.env_file)
    env["APPTAINER_CONTAINER"] = given.image
    lost = [name.removeprefix("CAP_").lower() for name in (given.drop_caps or "").split(",")]
    enter(given)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # its starter hands them on, and we are told apart
    path = next(
        (f"{p}/{given.argv[0]}" for p in ["", *env["PATH"].split(":")]
         if os.access(f"{p}/{given.argv[0]}", os.X_OK)), given.argv[0],
    )  # fmt: skip
    pid = os.fork()
    if pid == 0:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for name in filter(None, lost):
            assert LIBC.prctl(24, CAPABILITIES.index(name), 0, 0, 0) == 0
        try:
            os.execve(path, given.argv, env)
        except OSError as error:
            os.write(2, f"FATAL: {given.argv[0]}: {error.strerror}\n".encode())
        os._exit(255)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os._exit(128 - code if code < 0 else code)


_NAMES = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap "
    "linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner "
    "sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice "
    "sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap "
    "mac_override mac_admin syslog wake_alarm block_suspend audit_read "
)
CAPABILITIES = _NAMES.split()
"""By number, as the kernel counts them."""


if __name__ == "__main__":
    main()
