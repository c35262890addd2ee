"""From what the user wrote to a run that can be planned: the file read, local paths found."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.errors import InvalidInput, Problem
from moorage.specs.mounts import Files, Mount, Repo
from moorage.specs.places import Places, locate
from moorage.specs.task import Task

if TYPE_CHECKING:
    from moorage.specs.fleetfile import LoadedFleet

STDIN = "-"
Placed = tuple[str, int, int]
"""Field, line and column."""
_MOUNT = re.compile(r"mounts\[(\d+)\](?:\.\w+)?: (.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run as its author means it, before anything is uploaded."""

    spec: Task
    base: Path
    """What relative paths of local files are relative to."""
    dialect: str = "native"
    source: str = ""
    """The text of the file; empty where there was none."""
    file: str = ""
    warnings: Sequence[Problem] = ()
    inherited: frozenset[str] = frozenset()
    """Variables whose values came from the environment and are not shown."""
    places: Sequence[Placed] = ()
    """Field, line and column of each mount."""
    fields: Places = field(default_factory=dict)
    """Line and column of each field of the file."""
    template: Task | None = None
    """The spec to show, with `${{ env.* }}` as written; None: the spec itself."""

    @property
    def shown(self) -> Task:
        """What may be shown: without values from the environment."""
        return self.spec if self.template is None else self.template

    def local(self, mount: Mount) -> Path | None:
        """The local file or directory that a mount uploads; None for other mounts."""
        if not isinstance(mount, Files | Repo) or mount.source is None:
            return None
        return self.path(mount.source)

    def path(self, source: str) -> Path:
        """Where a local path of the spec is."""
        # abspath keeps a link at the end: the scan decides what that means
        return Path(os.path.abspath(self.base / os.path.expanduser(source)))  # noqa: PTH100, PTH111

    def located(self, text: str) -> Problem:
        """What the server says of the run, with its place in the file."""
        if (found := _MOUNT.fullmatch(text)) is not None:
            placed = int(found[1]) < len(self.places)  # an option has none, and the words name it
            return self.problem(int(found[1]), found[2]) if placed else Problem(found[2])
        return locate(text, self.fields, self.file)

    def problem(self, number: int, message: str, fix: str = "") -> Problem:
        """Something wrong with the mount at a position of the spec, with its place in the file."""
        if number >= len(self.places):
            return Problem(message, fix, f"mounts[{number}]", self.file)
        name, line, column = self.places[number]
        return Problem(message, fix, name, self.file, line, column)


def without_mount(text: str) -> str:
    """What the server says of a mount, without its number."""
    found = _MOUNT.fullmatch(text)
    return text if found is None else found[2]


def read_file(
    path: str,
    *,
    name: str | None = None,
    env: Sequence[str] = (),
    args: Sequence[str] | None = (),
) -> Prepared:
    """The run of a file, or of standard input for `-`. InvalidInput with every problem in it.

    `args=None` leaves `${{ run.args }}` in it, to be shown.
    """
    from moorage.specs.load import load  # YAML: 30 ms that `run` does without

    shown = "standard input" if path == STDIN else path
    read = partial(
        load, _text(path), file=shown, environ=os.environ, args=args, overrides=env, name=name
    )
    loaded = read()
    refers = "${{" in loaded.source and "env." in loaded.source
    return Prepared(
        loaded.spec,
        Path.cwd() if path == STDIN else Path(path).absolute().parent,
        loaded.dialect,
        loaded.source,
        shown,
        loaded.warnings,
        loaded.inherited,
        loaded.places,
        loaded.fields,
        read(keep_env=True).spec if refers else None,
    )


def read_fleet(path: str) -> LoadedFleet | None:
    """The fleet of a file; None where it is something else, or standard input, of which only
    tasks are read. InvalidInput with every problem in it."""
    if path == STDIN:
        return None
    text = _text(path)
    if "fleet" not in text:
        return None
    from moorage.specs.fleetfile import is_fleet, load_fleet

    return load_fleet(text, file=path, environ=os.environ) if is_fleet(text) else None


def require_plain(
    name: str | None,
    env: Sequence[str],
    args: Sequence[str],
    resources: Mapping[str, str | None],
) -> None:
    """InvalidInput where an option was given that only tasks have."""
    wanted = ((f"--{field}", text) for field, text in resources.items())
    given = (("-n", name), ("-e", env), ("--", args), *wanted)
    wrong = [Problem("a fleet has no use for it", field=option) for option, it in given if it]
    if wrong:
        raise InvalidInput(*wrong)


def _text(path: str) -> str:
    try:
        data = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text (byte {error.start})"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    raise InvalidInput(Problem(reason, field=f"-f {path}"))
