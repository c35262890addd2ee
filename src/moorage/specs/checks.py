"""What a value must be like, whoever wrote it: a file, an option, or a program that posts a spec.

The single checks return the value in its normal form, or raise `BadValue`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import PurePosixPath
from types import MappingProxyType

from msgspec import structs

from moorage.errors import Problem
from moorage.specs import container
from moorage.specs.gang import ranks
from moorage.specs.mounts import Bucket, Files, HostPath, Mount, Repo
from moorage.specs.resources import Resources
from moorage.specs.task import Task
from moorage.units import BadValue

WORKDIR = PurePosixPath("/workflow")
"""The working directory as jobs see it."""
MAX_PATH = 4096
LARGEST = 2.0**53
"""Of any number in a spec: beyond all that occurs, and exact on its way to the node."""
FORBIDDEN_TARGETS = ("/proc", "/sys", "/dev")
MOST_NODES = 4096
"""Ranks of one job."""
NAME_PATTERN = "^[a-z][a-z0-9-]{1,40}$"
VARIABLE_PATTERN = "^[A-Za-z_][A-Za-z0-9_]*$"
TAG_PATTERN = r"^[_\-a-zA-Z0-9]{1,60}$"
TAG_VALUE_PATTERN = r"^[a-zA-Z0-9 .:/=_\-+@]{0,256}$"


def check_name(text: str) -> str:
    """A run's name."""
    if not _matches(NAME_PATTERN, text):
        raise BadValue(
            text,
            "a run name",
            "use 2 to 41 lowercase letters, digits and dashes, starting with a letter",
        )
    return text


def check_group_name(text: str) -> str:
    """The name of a group of nodes."""
    if not _matches(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,59}$", text):
        fix = "use 1 to 60 letters, digits, _, . and -"
        raise BadValue(text, "the name of a group", fix)
    return text


def check_variable(text: str) -> str:
    """The name of an environment variable."""
    if not _matches(VARIABLE_PATTERN, text):
        raise BadValue(text, "a variable name", "use letters, digits and _, not first a digit")
    return text


def check_tag(text: str) -> str:
    """A tag's key."""
    if not _matches(TAG_PATTERN, text):
        raise BadValue(text, "a tag name", "use 1 to 60 letters, digits, - and _")
    return text


def check_tag_value(text: str) -> str:
    """A tag's value."""
    if not _matches(TAG_VALUE_PATTERN, text):
        raise BadValue(text, "a tag value", "use up to 256 letters, digits, spaces and .:/=_-+@")
    return text


def check_shell(text: str) -> str:
    """A shell for `commands`."""
    if text not in ("sh", "bash") and not text.startswith("/"):
        raise BadValue(text, "a shell", "write sh, bash, or an absolute path")
    return text


def check_python(text: str) -> str:
    """A Python version, `3.11`."""
    if not _matches(r"^3\.(9|[1-9][0-9])$", text):
        raise BadValue(text, "a Python version", "write 3.9 or later, as in 3.11")
    return text


def check_cron(text: str) -> str:
    """Five cron fields that fire some day."""
    from datetime import datetime  # only schedules pay for cronsim

    from cronsim import CronSim, CronSimError

    fix = "write minute, hour, day of month, month and day of week, as in '0 3 * * 1-5'"
    if len(text.split()) != 5:
        raise BadValue(text, "a cron expression of five fields", fix)
    try:
        next(CronSim(text, datetime(2024, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        part = str(error).removeprefix("Bad ") or "date"
        raise BadValue(text, f"a cron expression: its {part} is wrong", fix) from None
    return text


def check_working_dir(text: str) -> str:
    """Where commands start: absolute, below the home, or below the working directory."""
    if ".." in _path(text).parts:
        raise BadValue(text, "a working directory", "write it without '..'")
    return text


def check_volume_source(text: str) -> str:
    """A path on the node."""
    path = _path(text)
    if not path.is_absolute():
        fix = (
            "begin it with /; ${{ env.HOME }} is your home"
            if text[:1] == "~"
            else "begin it with /"
        )
        raise BadValue(text, "an absolute path on the node", fix)
    if ".." in path.parts:
        raise BadValue(text, "a path on the node", "write it without '..'")
    return _clean(path)


def check_volume_target(text: str) -> str:
    """Where a volume appears in the job."""
    path = _path(text)
    if not path.is_absolute():
        raise BadValue(text, "an absolute path in the job", "begin it with /")
    if ".." in path.parts:
        raise BadValue(text, "a path in the job", "write it without '..'")
    return _allowed(text, path)


def check_target(text: str) -> str:
    """Where files or a repository appear in the job; what leaves the working directory by `..`
    becomes absolute."""
    if text.startswith("~"):
        if text != "~" and not text.startswith("~/"):
            raise BadValue(text, "a path in the job", "~ stands for the job's own home only")
        if ".." in _path(text).parts:
            raise BadValue(text, "a path in the job", "write it without '..'")
        return _clean(_path(text))
    inside = _without_dots(_path(text))
    if inside is not None:
        return _allowed(text, inside)
    absolute = _without_dots(WORKDIR / text)
    if absolute is None:
        raise BadValue(text, "a path in the job", "it leads above the root directory")
    return _allowed(text, absolute)


def clashes(mounts: Sequence[Mount]) -> list[tuple[int, int, str]]:
    """Pairs of mounts that cannot both have their target, the later one first, with the reason.

    Volumes and buckets are mounted, and do not lie in each other. Files and repositories are
    written: where no bucket is, and into what a mount of another kind shows.
    """
    found = []
    at: dict[tuple[str, PurePosixPath], int] = {}
    above: dict[PurePosixPath, int] = {}
    for number, mount in enumerate(mounts):
        kind, path = _GROUPS[type(mount)], _seen(mount.target)
        if (kind, path) in at:
            message = f"two mounts have the target {mount.target}"
            found.append((number, at[kind, path], message))
            continue
        at[kind, path] = number
        if kind != _MOUNTED:
            continue
        hidden = [at[kind, parent] for parent in path.parents if (kind, parent) in at]
        for earlier in hidden or ([above[path]] if path in above else []):
            found.append((number, earlier, _nested(mounts[earlier], mount)))
        for parent in path.parents:
            above.setdefault(parent, number)
    return found + _into_buckets(mounts)


_MOUNTED = "mounted"
_GROUPS: Mapping[type[Mount], str] = MappingProxyType(
    {Files: "files", Repo: "repo", HostPath: _MOUNTED, Bucket: _MOUNTED}
)


def _nested(one: Mount, other: Mount) -> str:
    kinds = {type(one), type(other)}
    what = {HostPath: "volumes", Bucket: "buckets"}.get(kinds.pop()) if len(kinds) == 1 else None
    return f"the {what or 'mounts'} at {one.target} and {other.target} lie in each other"


def _into_buckets(mounts: Sequence[Mount]) -> list[tuple[int, int, str]]:
    """Files and repositories whose target is a bucket's, or lies in one."""
    buckets = {_seen(m.target): n for n, m in enumerate(mounts) if isinstance(m, Bucket)}
    found = []
    for number, mount in enumerate(mounts) if buckets else ():
        if isinstance(mount, HostPath | Bucket):
            continue
        path = _seen(mount.target)
        for other in (buckets[place] for place in (path, *path.parents) if place in buckets):
            bucket = mounts[other].target
            message = f"{mount.target} would be written into the bucket at {bucket}"
            found.append((max(number, other), min(number, other), message))
    return found


def check_task(task: Task) -> list[Problem]:
    """What is wrong with a spec that no loader has seen; empty when it may run."""
    problems = []
    singles = [
        ("name", check_name, [task.name] if task.name is not None else []),
        ("shell", check_shell, [task.shell] if task.shell is not None else []),
        ("python", check_python, [task.python] if task.python is not None else []),
        ("image", container.check_image, [task.image] if task.image is not None else []),
        ("user", container.check_user, [task.user] if task.user is not None else []),
        ("entrypoint", container.check_entrypoint, [task.entrypoint] if task.entrypoint else []),
        ("working_dir", check_working_dir, [task.working_dir] if task.working_dir else []),
        ("env", check_variable, list(task.env)),
        ("tags", check_tag, list(task.tags)),
        ("tags", check_tag_value, list(task.tags.values())),
        ("schedule.cron", check_cron, task.schedule.cron if task.schedule else []),
    ]
    for mount in task.mounts:
        if isinstance(mount, HostPath):
            kept = mount.source and "/" not in mount.source and mount.source not in (".", "..")
            source = [] if kept else [mount.source]
            singles.append(("volumes", check_volume_source, source))
            singles.append(("volumes", check_volume_target, [mount.target]))
        elif isinstance(mount, Bucket):
            singles.append(("file_mounts", check_target, [mount.target]))
        else:
            field = "files" if isinstance(mount, Files) else "repos"
            singles.append((field, check_target, [mount.target]))
    for field, check, values in singles:
        for value in values:
            try:
                check(value)
            except BadValue as error:
                problems.append(Problem(str(error), field=field))
    if any(isinstance(mount, Bucket) for mount in task.mounts):
        from moorage.specs.buckets import bucket_problems  # kinds of stores: 10 ms

        problems += bucket_problems(task.mounts)
    problems += _plain_problems(task)
    problems += _resource_problems(task.resources)
    if not problems:
        problems = [Problem(message, field="mounts") for _, _, message in clashes(task.mounts)]
    return problems


def _plain_problems(task: Task) -> Iterator[Problem]:
    if not task.groups and not task.commands and task.image is None:
        yield Problem("there is nothing to run", "add a command", "commands")
    yield from _rank_problems(task)
    for field, message, fix in container.clashes(structs.asdict(task)):
        yield Problem(message, fix, field)
    if not 0 <= task.priority <= 100:
        yield Problem(f"{task.priority} is not from 0 to 100", field="priority")
    for one in task.instances:
        if bool(one.name) == bool(one.hostname):
            yield Problem("name a node by name or by hostname", field="instances")
    if task.schedule is not None and not task.schedule.cron:
        yield Problem("at least one cron expression is needed", field="schedule.cron")
    if task.max_duration == 0:
        yield Problem("the duration must be above zero", field="max_duration")
    for field, seconds in (
        ("max_duration", task.max_duration),
        ("stop_duration", task.stop_duration),
        ("retry.duration", task.retry.duration if task.retry else None),
    ):
        if seconds is not None and not 0 <= seconds <= LARGEST:
            yield Problem("not a duration of zero or more", field=field)
    for field, texts in (
        ("commands", task.commands),
        ("working_dir", [task.working_dir]),
        ("image", [task.image, task.entrypoint]),
        ("env", list(task.env.values())),
        ("mounts", [text for mount in task.mounts for text in structs.astuple(mount)]),
    ):
        if any(isinstance(text, str) and "\0" in text for text in texts):
            yield Problem("the text contains a NUL character", field=field)


def _rank_problems(task: Task) -> Iterator[Problem]:
    if not 1 <= ranks(task) <= MOST_NODES or any(group.nodes < 1 for group in task.groups):
        yield Problem(f"not a number of nodes from 1 to {MOST_NODES}", field="nodes")
    if not task.groups:
        return
    if task.nodes != 1 or task.commands or task.resources != Resources():
        fix = "write nodes, commands and resources in each group"
        yield Problem("a task with groups has only what these have", fix, "groups")
    if len({group.name for group in task.groups}) < len(task.groups):
        yield Problem("two groups have one name", field="groups")
    for group in task.groups:
        if not group.commands and task.image is None:
            yield Problem(f"group {group.name} has nothing to run", "add a command", "groups")
        if any("\0" in text for text in group.commands):
            yield Problem("the text contains a NUL character", field="groups")
        yield from _resource_problems(group.resources)


def _resource_problems(resources: Resources) -> Iterator[Problem]:
    counts = resources.gpu.count if resources.gpu else None
    for name, span in (
        ("cpu", resources.cpu.count),
        ("memory", resources.memory),
        ("disk", resources.disk),
        ("gpu", counts),
    ):
        if span is None:
            continue
        low = span.min if span.min is not None else 1
        high = span.max if span.max is not None else LARGEST
        if not 0 < low <= LARGEST or not 0 < high <= LARGEST or (span.min and low > high):
            yield Problem(
                "not a range of numbers above zero and up to 2^53", field=f"resources.{name}"
            )
    if resources.shm_size is not None and not 0 < resources.shm_size <= LARGEST:
        yield Problem("the size must be above zero, and at most 2^53", field="resources.shm_size")


def is_repo_url(text: str) -> bool:
    """Whether a repository is named by a URL rather than by a local path."""
    return "://" in text or re.match(r"[\w.-]+@[\w.-]+:", text) is not None


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern.removeprefix("^").removesuffix("$"), text) is not None


def _path(text: str) -> PurePosixPath:
    if len(text) > MAX_PATH:
        raise BadValue(text, f"a path of at most {MAX_PATH} characters")
    return PurePosixPath(text)


def _allowed(text: str, path: PurePosixPath) -> str:
    seen = WORKDIR / path
    if str(seen) in ("/", "//"):
        raise BadValue(text, "a target", "nothing can be mounted over the root directory")
    for top in FORBIDDEN_TARGETS:
        if seen.is_relative_to(top):
            raise BadValue(text, "a target", f"nothing can be mounted at or below {top}")
    return _clean(path)


def _clean(path: PurePosixPath) -> str:
    text = str(path)
    return text[1:] if text.startswith("//") else text


def _without_dots(path: PurePosixPath) -> PurePosixPath | None:
    """The path with `..` resolved by name; None where it leads above its beginning."""
    parts: list[str] = []
    for part in path.parts:
        if part != "..":
            parts.append(part)
        elif parts and parts[-1] != "/":
            parts.pop()
        else:
            return None
    return PurePosixPath(*parts)


def _seen(target: str) -> PurePosixPath:
    """The target as comparable with others; a home is a name of its own."""
    path = PurePosixPath(_clean(PurePosixPath(target)))
    return path if target.startswith("~") else WORKDIR / path
