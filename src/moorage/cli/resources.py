"""`--cpu --memory --gpu --disk`: what a run reserves, said on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import click

from moorage.cli.prepare import Prepared
from moorage.errors import InvalidInput, Problem
from moorage.specs.places import ELSEWHERE
from moorage.specs.task import Task

F = TypeVar("F", bound=Callable[..., Any])
Wanted = Mapping[str, str | None]
_HELP = {
    "cpu": ("N", "CPUs to reserve: 2, 2..8."),
    "memory": ("SIZE", "8GB.. reserves, ..16GB limits, 16GB does both."),
    "gpu": ("GPU", "GPUs: 1, A100:2, 24GB..:1."),
    "disk": ("SIZE", "Space for scratch: 50GB.. ."),
}


def resource_options(command: F) -> F:
    """Adds the four options; the command gets them as `cpu`, `memory`, `gpu` and `disk`."""
    for name, (metavar, text) in reversed(_HELP.items()):
        command = click.option(f"--{name}", metavar=metavar, help=text)(command)
    return command


def with_resources(prepared: Prepared, wanted: Wanted) -> Prepared:
    """The run with what was given instead of what its file says. InvalidInput."""
    given = {name: text for name, text in wanted.items() if text is not None}
    if not given:
        return prepared
    if prepared.spec.groups:
        fix = "write it in each group"
        said = "a task with groups has the resources of these"
        raise InvalidInput(*(Problem(said, fix, f"--{name}") for name in given))
    from moorage.specs.options import override

    def changed(task: Task) -> Task:
        return override(
            task,
            cpu=given.get("cpu"),
            memory=given.get("memory"),
            gpu=given.get("gpu"),
            disk=given.get("disk"),
        )

    template = None if prepared.template is None else changed(prepared.template)
    fields = {**prepared.fields, **{f"resources.{name}": ELSEWHERE for name in given}}
    return replace(prepared, spec=changed(prepared.spec), template=template, fields=fields)
