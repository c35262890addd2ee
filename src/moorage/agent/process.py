"""The agent's side of a process: from a launch and its data to a request that the keeper can carry
out. What became of it is told by `verdict.py`."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from moorage.agent import family, script, words
from moorage.agent.inventory import find_python
from moorage.agent.keeping import SpawnRequest
from moorage.agent.mountpoints import remove_made
from moorage.agent.verdict import outcome, usage
from moorage.data.base import Bind
from moorage.ids import AttemptKey, JobId
from moorage.protocol.agent import Isolation, Launch

__all__ = ["ProcessError", "outcome", "prepare", "remove_made", "usage", "workdir"]

WORKDIR = Path("/workflow")
DEFAULT_PIDS = 32_768
"""Processes and threads that a job may have when it says nothing: against fork bombs only."""
_DIRECTORIES = {"work": 0o755, "scratch": 0o755, "tmp": 0o1777, "vartmp": 0o1777}
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProcessError(Exception):
    """This launch cannot become a process here; one line for the user."""


def workdir(directory: Path, isolation: Isolation) -> Path:
    """Where the job sees its working directory: `/workflow`, or `work/` of the attempt itself
    where there is no mount namespace."""
    return WORKDIR if isolation.mounts is None else directory / "work"


def prepare(
    launch: Launch, directory: Path, binds: Sequence[Bind], output: Path, isolation: Isolation
) -> SpawnRequest:
    """Write `script` and `bin/` into the attempt's directory and say what the keeper must do.

    `binds` are those of the data sources; the working directory, the private /tmp, /var/tmp and
    /dev/shm and the scratch directory are added here, and made where they are missing.
    Idempotent. ProcessError where the node cannot do what is asked.
    """
    for name, mode in _DIRECTORIES.items():
        path = directory / name
        path.mkdir(exist_ok=True)
        path.chmod(mode)
    view = workdir(directory, isolation)
    shell = find_shell(launch.shell)
    if launch.python is not None:
        _link_python(launch.python, directory / "bin")
    alone = launch.limits.memory if isolation.cgroup is not None else None
    text = script.compose(launch.commands, directory / "command", alone)
    _write_private(directory / "script", text)
    others = [bind for bind in binds if bind.target != view]
    mounts = None
    if isolation.mounts is None:
        mounts = _operations(launch, directory, others)
    else:
        for bind in others:
            _link_bind(bind, view)
    limits = launch.limits
    env = environment(launch, directory, view, shell)
    return SpawnRequest(
        key=str(AttemptKey(JobId(launch.job), launch.attempt, launch.rank)),
        directory=str(directory),
        argv=[shell, str(directory / "script")],
        direct=_direct(launch, shell, env, alone),
        env=env,
        cwd=str(_working_directory(launch, directory, view, others)),
        output=str(output),
        mounts=mounts,
        cgroup=None
        if isolation.cgroup is not None
        else {
            "memory": limits.memory,
            "cpus": limits.cpus,
            "pids": limits.pids or DEFAULT_PIDS,
        },
        max_duration=launch.max_duration,
        grace=launch.stop_duration,
    )


def _direct(
    launch: Launch, shell: str, env: dict[str, str], process_memory: int | None
) -> list[str] | None:
    """The words of the only command, where a shell would do no more than execute them."""
    bash = launch.shell is None and Path(shell).name == "bash"
    if not bash or len(launch.commands) != 1 or process_memory is not None:
        return None
    return words.plain(launch.commands[0]) if words.undisturbed(env) else None


def find_shell(wanted: str | None) -> str:
    """Path of the shell that runs the commands; bash when it may be chosen. ProcessError."""
    for name in [wanted] if wanted else ["bash", "sh"]:
        found = shutil.which(name)
        if found is not None:
            return found
    raise ProcessError(f"shell: {wanted or 'sh'} is not installed; install it or change `shell:`")


def environment(launch: Launch, directory: Path, view: Path, shell: str) -> dict[str, str]:
    """All variables of the process: the launch's, and those that only the node knows."""
    account = _account()
    home = account.pw_dir if account else str(directory / "scratch")
    name = account.pw_name if account else str(os.geteuid())
    scratch = str(directory / "scratch")
    env = {
        "HOME": home,
        "USER": name,
        "LOGNAME": name,
        "SHELL": shell,
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "PATH": os.environ.get("PATH", _DEFAULT_PATH),
        "TMPDIR": scratch,
        # Else CUDA would show a job every GPU of the node, also those that are somebody else's.
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, launch.limits.gpus)),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        **launch.env,
        "MOORAGE_SCRATCH": scratch,
        "MOORAGE_WORKDIR": str(view),
        family.MARKER: family.mark(str(directory)),
    }
    if launch.python is not None:
        env["PATH"] = f"{directory / 'bin'}:{env['PATH']}"
    if "dstack" in launch.compat:
        env.setdefault("DSTACK_WORKING_DIR", str(view))
        env.setdefault("DSTACK_REPO_DIR", str(view))
    return env


def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        return None


def _operations(launch: Launch, directory: Path, binds: Sequence[Bind]) -> list[list[object]]:
    """Mount operations, outer targets before those inside them."""
    wanted = [
        Bind(directory / "tmp", Path("/tmp")),  # noqa: S108 (private to the job)
        Bind(directory / "vartmp", Path("/var/tmp")),  # noqa: S108
        Bind(directory / "work", WORKDIR),
        *sorted(binds, key=lambda bind: len(bind.target.parts)),
    ]
    memory = Path("/dev/shm")  # noqa: S108
    operations: list[list[object]] = [["tmpfs", str(memory), launch.limits.shm]]
    operations += [["bind", str(b.source), str(b.target), b.read_only] for b in wanted]
    hidden = directory.resolve()
    if any(hidden.is_relative_to(covered) for covered in (memory, *(b.target for b in wanted))):
        # Something covers the attempt's own directory (a home below /tmp, a volume at /root): the
        # script and the scratch directory must stay where their paths say.
        operations.append(["bind", str(hidden), str(hidden), False])
    return operations


def _link_bind(bind: Bind, view: Path) -> None:
    """Without a mount namespace, a link in the working directory is all that can be offered."""
    if bind.source == bind.target:
        return
    if bind.read_only:
        raise ProcessError(
            f"{bind.target}: this node has no mount namespaces, so read-only cannot be kept; "
            "remove read_only or use another node"
        )
    if not bind.target.is_relative_to(view):
        raise ProcessError(
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
        raise ProcessError(f"this node has no Python {version}; install it or change `python:`")
    directory.mkdir(mode=0o755, exist_ok=True)
    for name in ("python", "python3"):
        link = directory / name
        link.unlink(missing_ok=True)
        link.symlink_to(found)


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
