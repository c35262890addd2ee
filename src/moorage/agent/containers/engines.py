"""What runs containers on a node: moorage's own start, or an engine that is installed.

An engine is one local process of the keeper's, `podman run` for one, that lives as long as its
container. The container is in control groups below the job's, so its limits, its end and what it
used are those of any job. Names and files of it are the attempt's; `remove` puts away what a kill
may have left of it.
"""

from __future__ import annotations

import os
import resource
import select
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from moorage.agent.containers import requests
from moorage.agent.gpus.devices import NONE, Devices
from moorage.agent.images.store import Image
from moorage.agent.keeper import family
from moorage.agent.keeper.cgroup import Cgroups
from moorage.agent.keeping import SpawnRequest
from moorage.agent.process import WORKDIR, ProcessError
from moorage.agent.sandbox import accounts
from moorage.data.base import Bind
from moorage.data.sources import MOUNTS
from moorage.protocol.agent import Isolation, Launch

OWN = "moorage"
"""The engine that needs none."""
NAMES = (OWN, "podman", "docker")
"""In the order in which they are chosen where nobody says another."""
DIRECTORY = "image"
"""Of an attempt's: what belongs to its container."""
NOTE = "engine"
"""In it: which engine was chosen."""
PROGRAMS = ("/usr", "/bin", "/lib", "/lib64", "/lib32")
"""Where a node has what a first container can run."""
_TRIES, _LAST_STEPS, _PATIENCE = 50, 2.0, 60.0  # the last two: seconds
_LONG = 32 << 10
"""Bytes of a line that engines read."""
ENV = "env"
"""In it: the job's variables."""
_JOIN = (
    'if [ -n "${MOORAGE_JOIN-}" ]; then d=${MOORAGE_JOIN%/*}/engine; '
    'mkdir -p "$d" && echo 0 > "$d/cgroup.procs" || exit 125; unset MOORAGE_JOIN; fi; exec "$@"'
)
"""v2 has no limits on a group that holds processes beside others: the engine gets its own."""


class Engine(Protocol):
    """One kind, on this node."""

    name: str
    joins: bool
    """It makes no control groups: it is in the job's, with all that it starts."""

    def why_not(self) -> str:
        """Empty where it works: a container was started to know. Blocks."""
        ...

    def problem(self, launch: Launch) -> str:
        """Why it cannot run this; empty where it can."""
        ...

    def take(self, image: Image, tell: Callable[[str], None]) -> None:
        """Have what it needs of its own to run the image. Blocks. SourceError."""
        ...

    def command(self, plan: Plan) -> list[str]:
        """The words that run a container in the foreground. Blocks. ProcessError, SourceError."""
        ...

    def remove(self, directory: Path) -> str:
        """Put away what is left of an attempt's container; what could not be. Blocks."""
        ...

    def tidy(self, roots: Path) -> None:
        """Put away what it has of images that are not in `roots` any more. Blocks."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """One container, in the words that all engines share. Bytes."""

    key: str
    directory: Path
    image: Image
    argv: Sequence[str]
    cwd: str
    binds: Sequence[tuple[str, str, bool]]
    """Source, target, read-only; outer targets first."""
    shm: int
    account: accounts.Account
    devices: Sequence[str]
    privileged: bool
    process_memory: int | None
    """What each process may allocate, where no control group limits the job."""
    env: dict[str, str]
    variables: Path
    """A file of lines `NAME=value`."""
    through: Sequence[str]
    """Names of variables that do not fit into it: they are the engine's own."""

    @property
    def place(self) -> Path:
        return self.directory / DIRECTORY


def request(
    engine: Engine,
    launch: Launch,
    image: Image,
    directory: Path,
    binds: Sequence[Bind],
    output: Path,
    isolation: Isolation,
    devices: Devices = NONE,
) -> SpawnRequest:
    """What the keeper must do to run the launch by this engine. Blocks. ProcessError."""
    base = requests.prepare(launch, image, directory, binds, output, isolation, devices)
    assert base.container is not None
    root = base.container["root"]
    try:
        account = accounts.find(base.container["user"], root)
        if account.uid or account.gid:
            _give(account, base.container["own"])
    except accounts.NoSuchUser as error:
        raise ProcessError(str(error)) from error
    env = {"HOME": account.home, **base.env}
    variables, through = _write_variables(directory / DIRECTORY / ENV, env)
    wanted = [(one[1], one[2], one[3]) for one in base.mounts or [] if one[0] == "bind"]
    wanted += _made_for(base.cwd, wanted, directory, root, account)
    plan = Plan(
        key=base.key,
        directory=directory,
        image=image,
        argv=base.argv,
        cwd=base.cwd,
        binds=wanted,
        shm=launch.limits.shm or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2,
        account=account,
        devices=list(filter(os.path.exists, devices.granted(launch.limits.gpus))),
        privileged=base.container["privileged"],
        process_memory=requests.limit_in_script(launch, directory, base),
        env=env,
        variables=variables,
        through=list(through),
    )
    (directory / DIRECTORY / NOTE).write_text(engine.name)
    return msgspec.structs.replace(
        base,
        argv=["/bin/sh", "-c", _JOIN, engine.name, *engine.command(plan)],
        env={**surroundings(), **through, **_mark(base)},
        cwd=base.directory,
        mounts=None,
        container=None,
        engine={"cwd": base.cwd, "joins": engine.joins},
        # An engine denies all but what it is told, and fails below a group that does.
        denied=base.denied if engine.joins else [],
    )


def _mark(base: SpawnRequest) -> dict[str, str]:
    """Where no control group does, this says what an engine leaves running."""
    return {family.MARKER: base.env[family.MARKER]} if base.cgroup is None else {}


def _give(account: accounts.Account, paths: Sequence[str]) -> None:
    """Without root there is one account outside, whoever the job is inside."""
    if os.geteuid() != 0:
        return
    places = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in paths]
    try:
        accounts.give(account, places)
    finally:
        for place in places:
            os.close(place)


def _write_variables(path: Path, env: dict[str, str]) -> tuple[Path, dict[str, str]]:
    """A file for the engine, and those variables that have several lines. ProcessError."""
    several = {
        name: value
        for name, value in env.items()
        if "\n" in value or "\r" in value or len(value) > _LONG
    }
    for name in several:
        if name in surroundings() or name.startswith(("LD_", "DOCKER_", "CONTAINERS_", "_")):
            raise ProcessError(
                f"env.{name}: a container engine cannot pass on several lines, or long ones"
            )
    lines = (f"{name}={value}\n" for name, value in env.items() if name not in several)
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write("".join(lines).encode(errors="surrogateescape"))
    return path, several


def _made_for(
    cwd: str,
    binds: Sequence[tuple[str, str, bool]],
    directory: Path,
    root: str,
    account: accounts.Account,
) -> list[tuple[str, str, bool]]:
    """A directory for the job to start in, where nothing has one: engines make none."""
    work = directory / "work"
    covered = [target for _, target, _ in binds if Path(cwd).is_relative_to(target)]
    if covered and Path(max(covered, key=len)) != WORKDIR:
        return []
    if covered:
        below = work / Path(cwd).relative_to(WORKDIR)
        if not below.resolve().is_relative_to(work.resolve()) or below.is_dir():
            return []
        below.mkdir(parents=True)
        _give(account, [str(below)])
        return []
    if Path(f"{root}{cwd}").is_dir():
        return []
    made = directory / DIRECTORY / "cwd"
    made.mkdir(exist_ok=True)
    _give(account, [str(made)])
    return [(str(made), cwd, False)]


def surroundings() -> dict[str, str]:
    """Variables that an engine itself is run with: none of the job's can change what it does."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    kept = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "CONTAINERS_CONF", "XDG_RUNTIME_DIR")
    return {"PATH": path, "HOME": "/root"} | {k: os.environ[k] for k in kept if k in os.environ}


def installed(name: str) -> str | None:
    """Where its program is."""
    return shutil.which(name, path=surroundings()["PATH"])


def remove_group(agent: str, key: str) -> None:
    """The control groups that an engine has made for a container that no keeper knows, and what
    is left in them: an engine's last steps are nobody's children."""
    with suppress(OSError, RuntimeError):
        cgroups = Cgroups(agent)
        group = cgroups.existing(key)
        group.nested = cgroups.nested(key)
        for _ in range(_TRIES):
            for pid in group.processes():
                _await_end(pid)
            if group.remove():
                break
        cgroups.remove_idle()


def _await_end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        select.select([descriptor], [], [], _LAST_STEPS)
    finally:
        os.close(descriptor)


def field(*parts: str) -> str:
    """One value of comma-separated fields, whatever characters paths have."""
    return ",".join('"' + part.replace('"', '""') + '"' for part in parts)


def options(plan: Plan) -> list[str]:
    """What engines call by the same words."""
    words = ["--env-file", str(plan.variables), "--shm-size", str(plan.shm)]
    for number in plan.account.groups if os.geteuid() == 0 else ():
        words += ["--group-add", str(number)]
    for name in plan.through:
        words += ["--env", name]
    for source, target, read_only in plan.binds:
        parts = ["type=bind", f"src={source}", f"dst={target}"]
        parts += ["ro=true"] if read_only else []
        if source.startswith(f"{plan.directory}/{MOUNTS}/"):
            # Else a bucket that had to be mounted anew would not appear in the container.
            parts.append("bind-propagation=rslave")
        words += ["--mount", field(*parts)]
    for device in plan.devices:
        words += ["--device", device]
    if plan.process_memory is not None:
        words += ["--ulimit", f"data={plan.process_memory}:{plan.process_memory}"]
    return [*words, *(["--privileged"] if plan.privileged else [])]


def ask(words: list[str], given: bytes = b"", whole: bool = False) -> tuple[int, str]:
    """The exit code, and the last line that it said, or all of it. Blocks."""
    try:
        done = subprocess.run(
            words, capture_output=True, env=surroundings(), timeout=_PATIENCE, input=given,
            cwd="/",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    said = (done.stderr if done.returncode else done.stdout).decode(errors="replace").strip()
    return done.returncode, said if whole else said.rpartition("\n")[2]


def ceilings() -> list[str]:
    """Options: limits of processes that may be lowered here, but not raised; podman itself lowers
    the last one."""
    found = []
    for name, kind, most in (
        ("nofile", resource.RLIMIT_NOFILE, 1 << 20),
        ("nproc", resource.RLIMIT_NPROC, 1 << 15),
    ):
        hard = resource.getrlimit(kind)[1]
        value = most if hard == resource.RLIM_INFINITY else min(hard, most)
        found += ["--ulimit", f"{name}={value}:{value}"]
    return found
