"""What would go wrong with a launch on this node? Looks, and changes nothing."""

from __future__ import annotations

from pathlib import Path

from moorage.agent.containers.runtime import Containers
from moorage.agent.node.inventory import find_python
from moorage.agent.process import ProcessError, find_shell, workdir
from moorage.agent.supply import Supply, home_of
from moorage.data.base import Place, hides
from moorage.protocol.agent import Isolation, Launch
from moorage.specs.mounts import HostPath, Mount


def probe(
    launch: Launch,
    attempts: Path,
    supply: Supply,
    isolation: Isolation,
    containers: Containers | None = None,
) -> tuple[list[str], list[str]]:
    """Problems that would end the attempt, and notes worth reading. May block on a slow disk."""
    problems: list[str] = []
    notes: list[str] = []
    for number, mount in enumerate(launch.mounts):
        wrong, worth_saying = supply.problems(mount)
        problems += [f"mounts[{number}]: {text}" for text in wrong]  # so that its line is found
        notes += worth_saying
    if launch.container is not None:  # what else there is, only the image knows
        problems += containers.problems(launch) if containers is not None else []
        return _once(problems), _once(notes + _limit_notes(launch, isolation.cgroup))
    try:
        find_shell(launch.shell)
    except ProcessError as error:
        problems.append(str(error))
    if launch.python is not None and find_python(launch.python) is None:
        problems.append(
            f"python: {launch.python} is not installed; install it or change `python:`"
        )
    # Any place does: it is only looked at, to know what lies inside the working directory.
    directory = attempts / "probe"
    view = workdir(directory, isolation)
    place = Place(directory, directory / "work", home_of(launch), view)
    problems += _directory_problems(launch, place)
    problems += _hiding_problems(launch, place)
    if isolation.mounts is not None:
        problems += _mount_problems(launch, place, isolation.mounts)
        if launch.limits.shm is not None:
            notes.append(f"resources.shm_size: not enforced; {isolation.mounts}")
    notes += _limit_notes(launch, isolation.cgroup)
    return _once(problems), _once(notes)


def _directory_problems(launch: Launch, place: Place) -> list[str]:
    """`working_dir` is made where it lies in the job's own directory; elsewhere it must be."""
    if launch.working_dir is None:
        return []
    wanted = place.target(launch.working_dir)
    covered = [mount for mount in launch.mounts if wanted.is_relative_to(_target(mount, place))]
    seen = [mount for mount in covered if isinstance(mount, HostPath)]
    if wanted.is_relative_to(place.workdir) or len(seen) < len(covered):
        return []
    if seen:
        mount = max(seen, key=lambda mount: len(_target(mount, place).parts))
        wanted = Path(mount.source or "/") / wanted.relative_to(_target(mount, place))
        if not Path(mount.source or "/").exists():
            return []  # the mount's own problem, or made for the job
    if wanted.is_dir():
        return []
    return [f"working_dir: {launch.working_dir} does not exist on this node; create it there"]


def _mount_problems(launch: Launch, place: Place, why: str) -> list[str]:
    """Without a mount namespace, data can only appear inside the working directory."""
    found = []
    for mount in launch.mounts:
        target = _target(mount, place)
        if isinstance(mount, HostPath) and Path(mount.source) == target:
            continue
        if isinstance(mount, HostPath) and mount.read_only:
            found.append(f"{mount.target}: read_only cannot be kept here; {why}")
        elif not target.is_relative_to(place.workdir):
            found.append(f"{mount.target}: only relative paths can be offered here; {why}")
    return found


def _hiding_problems(launch: Launch, place: Place) -> list[str]:
    volumes = [_target(mount, place) for mount in launch.mounts if isinstance(mount, HostPath)]
    targets = [_target(mount, place) for mount in launch.mounts if not isinstance(mount, HostPath)]
    inside = (place.workdir, *volumes)
    return [hides(t) for t in targets if not any(t.is_relative_to(path) for path in inside)]


def _limit_notes(launch: Launch, why: str | None) -> list[str]:
    limits = launch.limits
    notes: list[str] = []
    if why is None:
        return notes
    if limits.memory is not None:
        notes.append(f"resources.memory: limits each process, not the whole job; {why}")
    if limits.cpus is not None:
        notes.append(f"resources.cpu: not enforced; {why}")
    return notes


def _target(mount: Mount, place: Place) -> Path:
    return place.target(mount.target)


def _once(lines: list[str]) -> list[str]:
    return [line for line in dict.fromkeys(lines) if line]
