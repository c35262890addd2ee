"""`moorage run`: one command as a run, without a file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from moorage.cli.launch import launch
from moorage.cli.prepare import Prepared
from moorage.cli.session import connect, yes_option
from moorage.errors import InvalidInput, Problem
from moorage.interpolate import escape
from moorage.specs.load import load

OPTIONS = {
    "volumes": "-v",
    "resources.cpu": "--cpu",
    "resources.memory": "--memory",
    "resources.gpu": "--gpu",
}
"""Which option a field of the document came from."""


@click.command(context_settings={"ignore_unknown_options": False})
@click.option(
    "-v",
    "--volume",
    "volumes",
    multiple=True,
    metavar="SRC:DST[:ro]",
    help="A directory of the node, and where the job sees it.",
)
@click.option(
    "-e", "--env", multiple=True, metavar="K[=V]", help="A variable; bare: as it is here."
)
@click.option("--cpu", metavar="N", help="CPUs to reserve: 2, 2..8.")
@click.option("--memory", metavar="SIZE", help="Memory: 8GB.., ..16GB (a limit), 16GB (both).")
@click.option("--gpu", metavar="GPU", help="GPUs: 1, A100:2, 24GB:1.")
@click.option("-n", "--name", help="Name of the run; the server picks one otherwise.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait for it.")
@yes_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def run(
    volumes: tuple[str, ...], env: tuple[str, ...], cpu: str | None, memory: str | None,
    gpu: str | None, name: str | None, detach: bool, yes: bool, command: tuple[str, ...],
) -> int:  # fmt: skip
    """Run one command, without a file.

    It starts in an empty directory of its own; -v lets it see yours. Attached, the output comes
    here and the exit code is the command's. Ctrl-C asks whether to detach or stop.

    \b
    Examples:
      moorage run -- echo hello
      moorage run -v .:/code --cpu 4 --memory 8GB -- python3 /code/train.py
      moorage run -d -n nightly -e TOKEN -v /data:/data:ro -- /data/report.sh
    """
    resources = {"cpu": cpu, "memory": memory, "gpu": gpu}
    document = {
        "type": "task",
        "commands": [escape(shlex.join(command))],
        "volumes": [_here(volume) for volume in volumes],
        "resources": {key: value for key, value in resources.items() if value is not None},
    }
    prepared = read_document(document, env=env, name=name)
    with connect() as client:
        return launch(client, prepared, detach=detach, yes=yes, brief=True)


def read_document(
    document: dict[str, Any], *, env: Sequence[str] = (), name: str | None = None
) -> Prepared:
    """The run that a document made of options describes; problems name the option."""
    text = msgspec.json.encode({key: value for key, value in document.items() if value}).decode()
    try:
        loaded = load(text, file="", environ=os.environ, overrides=env, name=name)
    except InvalidInput as error:
        raise InvalidInput(*(_at_option(problem) for problem in error.problems)) from None
    return Prepared(
        loaded.spec, "native", "", [_at_option(p) for p in loaded.warnings], Path.cwd()
    )


def _at_option(problem: Problem) -> Problem:
    field = problem.field.partition("[")[0]
    option = OPTIONS.get(field, OPTIONS.get(".".join(field.split(".")[:2]), problem.field))
    return problem._replace(field=option, file="", line=0, column=0)


def _here(volume: str) -> str:
    """`.` and `~` at the beginning of a source mean what they mean in the shell."""
    source, colon, rest = volume.partition(":")
    if not colon or not source or source[0] not in "./~":
        return volume
    # abspath and not resolve: a symbolic link is the node's to follow
    return f"{os.path.abspath(os.path.expanduser(source))}:{rest}"  # noqa: PTH100, PTH111
