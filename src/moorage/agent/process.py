"""The agent's side of a process: from a launch and its data to a request that the keeper can carry
out. What became of it is told by `verdict.py`."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from moorage.agent import durable, hostfile, peers, script, words
from moorage.agent.claims import key_of
from moorage.agent.gpus.devices import NONE, Devices, rules
from moorage.agent.keeper import family
from moorage.agent.keeping import SpawnRequest
from moorage.agent.node.inventory import find_python
from moorage.agent.sandbox.mountpoints import remove_made
from moorage.agent.verdict import outcome, usage
from moorage.data.base import Bind, NotHere
from moorage.protocol.agent import Isolation, Launch

__all__ = ["ProcessError", "outcome", "prepare", "remove_made", "usage", "workdir"]

WORKDIR = Path("/workflow")
DEFAULT_PIDS = 32_768
"""Processes and threads that a job may have when it says nothing: against fork bombs only."""
_SHORT = 16_384
"""Characters of a script that certainly fit into one word (32 pages)."""
_DIRECTORIES = {"work": 0o755, "scratch": 0o755, "tmp": 0o1777, "vartmp": 0o1777}
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProcessError(Exception):
    """This launch cannot become a process here; one line for the user."""


class Lacking(ProcessError, NotHere):
    """The same, because of what this node lacks: another may well do."""


def workdir(directory: Path, isolation: Isolation) -> Path:
    """Where the job sees its working directory: `/workflow`, or `work/` of the attempt itself
    where there is no mount namespace."""
    return WORKDIR if isolation.mounts is None else directory / "work"


def prepare(
    launch: Launch,
    directory: Path,
    binds: Sequence[Bind],
    output: Path,
    isolation: Isolation,
    devices: Devices = NONE,
) -> SpawnRequest:
    """Fill the attempt's directory and say what the keeper must do.

    `binds` are those of the data sources; the working directory, the private /tmp, /var/tmp and
    /dev/shm and the scratch directory are added here, and made where they are missing.
    Idempotent. ProcessError where the node cannot do what is asked.
    """
    if gone := devices.problem(launch.limits.gpus):
        raise Lacking(gone)
    _make_directories(str(directory))
    view = workdir(directory, isolation)
    shell = find_shell(launch.shell)
    if launch.python is not None:
        _link_python(launch.python, directory / "bin")
    mounts = None
    if isolation.mounts is None:
        mounts = _operations(launch, directory, binds)
    else:
        for bind in binds:
            _link_bind(bind, view)
    env = environment(launch, directory, view, shell, devices)
    hostfile.write(launch, str(directory))
    gate = peers.write(launch, str(directory), f"{directory}/{peers.NAME}")
    argv, direct = _command(launch, directory, shell, env, isolation)
    return SpawnRequest(
        key=key_of(launch),
        directory=str(directory),
        argv=argv,
        direct=direct,
        env=env,
        cwd=str(_working_directory(launch, directory, view, binds)),
        output=str(output),
        mounts=mounts,
        cgroup=_limits(launch) if isolation.cgroup is None else None,
        gate=gate,
        denied=rules(devices.denied(launch.limits.gpus)),
        fsyncs=durable.held(launch.mounts, directory),
        max_duration=launch.max_duration,
        grace=launch.stop_duration,
    )


def _make_directories(directory: str) -> None:
    hidden = _umask()
    for name, mode in _DIRECTORIES.items():
        path = f"{directory}/{name}"
        try:
            os.mkdir(path, mode)
            if not mode & hidden:
                continue
        except FileExistsError:
            pass
        os.chmod(path, mode)


@lru_cache(maxsize=1)
def _umask() -> int:
    """What new files are made without; everything, where the kernel does not say (before 4.7)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o777


def _limits(launch: Launch) -> dict[str, float | None]:
    limits = launch.limits
    pids = limits.pids or DEFAULT_PIDS
    return {"memory": limits.memory, "cpus": limits.cpus, "pids": pids}


def _command(
    launch: Launch, directory: Path, shell: str, env: dict[str, str], isolation: Isolation
) -> tuple[list[str], list[str] | None]:
    """What the shell is started with; and the words of the only command, where the shell would do
    no more than execute them. It is needed then only where they are no program here, so that it
    is not worth a file: it gets its script as a word, and says the same in the same words."""
    place = f"{directory}/script"
    process_memory = launch.limits.memory if isolation.cgroup is not None else None
    text = script.compose(launch.commands, f"{directory}/command", process_memory)
    bash = launch.shell is None and os.path.basename(shell) == "bash"
    if bash and len(launch.commands) == 1 and process_memory is None and words.undisturbed(env):
        direct = words.plain(launch.commands[0])
        if direct is not None and len(text) < _SHORT:
            return [shell, "-c", text, place], direct
    _write_private(place, text)
    return [shell, place], None


def find_shell(wanted: str | None) -> str:
    """Path of the shell that runs the commands; bash when it may be chosen. ProcessError."""
    for name in [wanted] if wanted else ["bash", "sh"]:
        found = _which(name, os.environ.get("PATH"))
        if found is not None and not os.access(found, os.X_OK):  # it was, when it was found
            found = shutil.which(name)
        if found is not None:
            return found
    raise Lacking(f"shell: {wanted or 'sh'} is not installed; install it or change `shell:`")


@lru_cache(maxsize=64)
def _which(name: str, path: str | None) -> str | None:
    return shutil.which(name, path=path)


def environment(
    launch: Launch, directory: Path, view: Path, shell: str, devices: Devices = NONE
) -> dict[str, str]:
    """All variables of the process: the launch's, and those that only the node knows."""
    account = _account()
    scratch = f"{directory}/scratch"
    home = account.pw_dir if account else scratch
    name = account.pw_name if account else str(os.geteuid())
    env = {
        "HOME": home,
        "USER": name,
        "LOGNAME": name,
        "SHELL": shell,
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "PATH": os.environ.get("PATH", _DEFAULT_PATH),
        "TMPDIR": scratch,
        # Else CUDA would show a job every GPU of the node, also those that are somebody else's.
        **devices.variables(launch.limits.gpus),
        **launch.env,
        **hostfile.variables(launch, f"{directory}/{hostfile.NAME}"),
        "MOORAGE_SCRATCH": scratch,
        "MOORAGE_WORKDIR": str(view),
        family.MARKER: family.mark(str(directory)),
    }
    if launch.python is not None:
        env["PATH"] = f"{directory}/bin:{env['PATH']}"
    peers.tell(launch, f"{directory}/{peers.NAME}", env)
    if "dstack" in launch.compat:
        env.setdefault("DSTACK_WORKING_DIR", str(view))
        env.setdefault("DSTACK_REPO_DIR", str(view))
    return env


@lru_cache(maxsize=1)
def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        return None


def _operations(launch: Launch, directory: Path, binds: Sequence[Bind]) -> list[list[object]]:
    """Mount operations, outer targets before those inside them."""
    wanted = [
        (f"{directory}/tmp", "/tmp", False),  # noqa: S108 (private to the job)
        (f"{directory}/vartmp", "/var/tmp", False),  # noqa: S108
        (f"{directory}/work", str(WORKDIR), False),  # covered by a bind that takes its place
    ]
    for bind in sorted(binds, key=lambda bind: len(bind.target.parts)):
        wanted.append((str(bind.source), str(bind.target), bind.read_only))
    memory = "/dev/shm"  # noqa: S108
    operations: list[list[object]] = [["tmpfs", memory, launch.limits.shm]]
    operations += [["bind", *one] for one in wanted]
    hidden = f"{_real(str(directory.parent))}/{directory.name}"
    if any(_within(hidden, covered) for covered in (memory, *(target for _, target, _ in wanted))):
        # Something covers the attempt's own directory (a home below /tmp, a volume at /root): the
        # script and the scratch directory must stay where their paths say.
        operations.append(["bind", hidden, hidden, False])
    return operations


@lru_cache(maxsize=8)
def _real(directory: str) -> str:
    return os.path.realpath(directory)


def _within(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top.rstrip('/')}/")


def _link_bind(bind: Bind, view: Path) -> None:
    """Without a mount namespace, a link in the working directory is all that can be offered."""
    if bind.source == bind.target:
        return
    if bind.read_only:
        raise Lacking(
            f"{bind.target}: this node has no mount namespaces, so read-only cannot be kept; "
            "remove read_only or use another node"
        )
    if bind.target == view:
        raise Lacking(
            f"{bind.target}: this node has no mount namespaces, so nothing can take the place of "
            "the working directory; name a place below it"
        )
    if not bind.target.is_relative_to(view):
        raise Lacking(
            f"{bind.target}: this node has no mount namespaces, so data can appear only in the "
            "working directory; use a relative path"
        )
    with suppress(FileNotFoundError):
        if bind.target.is_symlink():
            bind.target.unlink()
        elif bind.target.is_dir():
            bind.target.rmdir()
    try:
        bind.target.parent.mkdir(parents=True, exist_ok=True)
        bind.target.symlink_to(bind.source)
    except OSError as error:
        raise ProcessError(f"{bind.target}: {error.strerror}") from error


def _working_directory(launch: Launch, directory: Path, view: Path, binds: Sequence[Bind]) -> Path:
    """As the job sees it; made in `work/` when it is missing there. The keeper says so when one
    that lies anywhere else does not exist."""
    if launch.working_dir is None and not binds:
        return view
    text = launch.working_dir or "."
    path = Path(text).expanduser() if text.startswith("~") else Path(text)
    wanted = Path(os.path.normpath(view / path))
    covered = any(wanted.is_relative_to(bind.target) for bind in binds)
    if wanted.is_relative_to(view) and not covered:
        (directory / "work" / wanted.relative_to(view)).mkdir(parents=True, exist_ok=True)
    return wanted


def _link_python(version: str, directory: Path) -> None:
    found = find_python(version)
    if found is None:
        raise Lacking(f"this node has no Python {version}; install it or change `python:`")
    directory.mkdir(mode=0o755, exist_ok=True)
    for name in ("python", "python3"):
        link = directory / name
        link.unlink(missing_ok=True)
        link.symlink_to(found)


def _write_private(path: str, text: str) -> None:
    content = text.encode(errors="surrogateescape")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        if file.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
