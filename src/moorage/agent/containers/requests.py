"""From a launch, its image and its data to what the keeper starts in a container."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from moorage.agent import durable, hostfile, peers, script
from moorage.agent.claims import key_of
from moorage.agent.gpus.devices import NONE, Devices, rules
from moorage.agent.images.store import Image
from moorage.agent.keeper import family
from moorage.agent.keeping import SpawnRequest
from moorage.agent.process import DEFAULT_PIDS, WORKDIR, Lacking, ProcessError
from moorage.data.base import Bind
from moorage.protocol.agent import Isolation, Launch
from moorage.specs.mounts import HostPath

OWN = "/run/moorage"
"""Where the container sees what the agent made for the job."""
SCRATCH = f"{OWN}/scratch"
HOME = Path("/root")
"""What `~` means in targets and working directories, unless the job sets HOME."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELL = "/bin/sh"
_DIRECTORIES = {"work": 0o755, "scratch": 0o755, "tmp": 0o1777, "vartmp": 0o1777, "image": 0o700}
_MEMORY = "/dev/shm"  # noqa: S108 (the container's)


def prepare(
    launch: Launch,
    image: Image,
    directory: Path,
    binds: Sequence[Bind],
    output: Path,
    isolation: Isolation,
    devices: Devices = NONE,
) -> SpawnRequest:
    """Write the script into the attempt's directory and say what the keeper must do. Idempotent.
    ProcessError where the launch makes no sense with this image."""
    assert launch.container is not None
    if gone := devices.problem(launch.limits.gpus):
        raise Lacking(gone)
    for name, mode in _DIRECTORIES.items():
        path = directory / name
        with suppress(FileExistsError):
            path.mkdir()
        path.chmod(mode)
    argv = arguments(launch, image)
    _write(directory / "command", "", 0o666)
    # The user of the container reads it; of the node, nobody passes the attempt's directory.
    _write(directory / "script", script.compose(launch.commands, f"{OWN}/command"), 0o644)
    hostfile.write(launch, str(directory))
    gate = peers.write(launch, str(directory), f"{OWN}/{peers.NAME}")
    limits = launch.limits
    return SpawnRequest(
        key=key_of(launch),
        directory=str(directory),
        argv=argv,
        env=environment(launch, image, directory, devices),
        cwd=working_directory(launch, image),
        output=str(output),
        mounts=operations(launch, directory, binds),
        container=_wanted(launch, image, directory, binds, isolation),
        cgroup=None
        if isolation.cgroup is not None
        else {"memory": limits.memory, "cpus": limits.cpus, "pids": limits.pids or DEFAULT_PIDS},
        gate=gate,
        denied=rules(devices.denied(limits.gpus)),
        fsyncs=durable.held(launch.mounts, directory),
        max_duration=launch.max_duration,
        grace=launch.stop_duration,
    )


def _wanted(
    launch: Launch, image: Image, directory: Path, binds: Sequence[Bind], isolation: Isolation
) -> dict[str, Any]:
    shared = () if launch.peers is None else (peers.NAME,)
    given = [bind.source for bind in binds if bind.own]
    assert launch.container is not None
    return {
        "root": str(image.root or ""),
        "file": str(image.file or ""),
        "offset": image.offset,
        "user": launch.container.user or image.settings.user,
        "privileged": launch.container.privileged,
        "process_memory": None if isolation.cgroup is None else launch.limits.memory,
        "own": [
            *(str(directory / name) for name in ("work", "scratch", *shared)),
            *(str(path if path.is_dir() else path.parent) for path in given),
        ],
    }


def limit_in_script(launch: Launch, directory: Path, base: SpawnRequest) -> int | None:
    """Let the job's shell limit its processes, where no control group does and it runs one: what
    an engine does before would not get by with little. Else the bytes that are left to limit."""
    assert base.container is not None
    assert launch.container is not None
    memory: int | None = base.container["process_memory"]
    if memory is None or launch.container.entrypoint is not None or not launch.commands:
        return memory
    text = script.compose(launch.commands, f"{OWN}/command", memory)
    _write(directory / "script", text, 0o644)
    return None


def arguments(launch: Launch, image: Image) -> list[str]:
    """What is started: the entrypoint with the commands as its arguments, the commands by a shell
    of the image, or what the image itself says. ProcessError."""
    container, settings = launch.container, image.settings
    assert container is not None
    if container.entrypoint is not None:
        return [*container.entrypoint, *launch.commands]
    if launch.commands:
        return [launch.shell or _SHELL, f"{OWN}/script"]
    if not settings.entrypoint and not settings.cmd:
        raise ProcessError(
            "the image does not say what to run; write `commands:` or an `entrypoint:`"
        )
    return [*settings.entrypoint, *settings.cmd]


def working_directory(launch: Launch, image: Image) -> str:
    """Where the job starts: what it says, or the image's; but where its files are, when it brings
    any to the working directory."""
    brings = any(
        not isinstance(mount, HostPath) and not mount.target.startswith(("/", "~"))
        for mount in launch.mounts
    )
    default = str(WORKDIR) if brings else image.settings.workdir or str(WORKDIR)
    wanted = launch.working_dir
    if wanted is None:
        return default
    if wanted == "~" or wanted.startswith("~/"):
        wanted = str(home_of(launch)) + wanted[1:]
    return os.path.normpath(PurePosixPath(WORKDIR) / wanted)


def home_of(launch: Launch) -> Path:
    """What `~` means, before anybody has looked into the image."""
    return Path(launch.env.get("HOME") or HOME)


def environment(
    launch: Launch, image: Image, directory: Path, devices: Devices = NONE
) -> dict[str, str]:
    """The image's variables, the launch's, and those that only the node knows."""
    own = {}
    for line in image.settings.env:
        name, _, value = line.partition("=")
        own[name] = value
    env = {
        "PATH": _PATH,
        "TMPDIR": SCRATCH,
        **own,
        # Else CUDA would show a job every GPU of the node, also those that are somebody else's.
        **devices.variables(launch.limits.gpus),
        **launch.env,
        **hostfile.variables(launch, f"{OWN}/{hostfile.NAME}"),
        "MOORAGE_SCRATCH": SCRATCH,
        "MOORAGE_WORKDIR": str(WORKDIR),
        family.MARKER: family.mark(str(directory)),
    }
    peers.tell(launch, f"{OWN}/{peers.NAME}", env)
    if "dstack" in launch.compat:
        env.setdefault("DSTACK_WORKING_DIR", str(WORKDIR))
        env.setdefault("DSTACK_REPO_DIR", str(WORKDIR))
    return env


def operations(launch: Launch, directory: Path, binds: Sequence[Bind]) -> list[list[Any]]:
    """Mounts in the container, outer targets before those inside them."""
    wanted: list[tuple[str, str, bool]] = [
        (f"{directory}/tmp", "/tmp", False),  # noqa: S108 (private to the job)
        (f"{directory}/vartmp", "/var/tmp", False),  # noqa: S108
        (f"{directory}/scratch", SCRATCH, False),
        (f"{directory}/command", f"{OWN}/command", False),
        (f"{directory}/script", f"{OWN}/script", True),
    ]
    if all(bind.target != WORKDIR for bind in binds):  # engines refuse two mounts at one place
        wanted.append((f"{directory}/work", str(WORKDIR), False))
    if launch.hosts:
        wanted.append((f"{directory}/{hostfile.NAME}", f"{OWN}/{hostfile.NAME}", True))
    if launch.peers is not None:
        wanted.append((f"{directory}/{peers.NAME}", f"{OWN}/{peers.NAME}", True))
    for bind in sorted(binds, key=lambda bind: len(bind.target.parts)):
        wanted.append((str(bind.source), str(bind.target), bind.read_only))
    return [["tmpfs", _MEMORY, launch.limits.shm], *(["bind", *one] for one in wanted)]


def _write(path: Path, text: str, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(text.encode(errors="surrogateescape"))
        os.fchmod(file.fileno(), mode)
