"""`moorage run`: one command as a run, without a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import click

from moorage.cli.home import elsewhere
from moorage.cli.launch import launch
from moorage.cli.prepare import Prepared
from moorage.cli.render import printable, say
from moorage.cli.resources import resource_options
from moorage.cli.session import connect
from moorage.errors import InvalidInput, Problem
from moorage.specs.options import task_from_command

_FIRST_WORDS = 20
_UPLOAD = "a file for `moorage apply` uploads what it names under `files:`"


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "-v", "--volume", "volumes", multiple=True, metavar="SRC:DST[:ro]",
    help="A directory of the node, and where the job sees it.",
)  # fmt: skip
@click.option(
    "-e", "--env", multiple=True, metavar="K[=V]", help="A variable; bare: as it is here."
)
@click.option(
    "--image", metavar="IMAGE", help="Container image: name:tag, docker-archive:/FILE, /DIRECTORY."
)
@click.option("-u", "--user", metavar="USER[:GROUP]", help="Who the job is in the container.")
@resource_options
@click.option("-n", "--name", help="Name of the run; the server picks one otherwise.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait; print its number.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- CMD...")
def run(
    volumes: tuple[str, ...], env: tuple[str, ...], image: str | None, user: str | None,
    name: str | None, detach: bool, command: tuple[str, ...], **resources: str | None,
) -> int:  # fmt: skip
    """Run one command, without a file.

    It starts in an empty directory of its own; -v lets it see yours. The output comes here, and
    the exit code is the command's. Ctrl-C asks whether to detach or to stop it. Without a command,
    an image runs its own. Options stand before the command.

    \b
    Examples:
      moorage run -- echo hello
      moorage run -v .:/workflow --cpu 4 --memory 8GB -- python3 train.py
      moorage run --image python:3.12 -- python -V
      moorage run --image hello-world            what the image runs by itself
      moorage run -d -n nightly -e TOKEN -v /data:/data:ro -- /data/report.sh
    """
    task = task_from_command(
        command,
        env=_variables(env),
        volumes=[_here(volume) for volume in volumes],
        name=name,
        image=image,
        user=user,
        cpu=resources["cpu"],
        memory=resources["memory"],
        gpu=resources["gpu"],
        disk=resources["disk"],
    )
    if unseen := _unseen(command, volumes):
        way = "-v .:/workflow shows it this one" if elsewhere() is None else _UPLOAD
        note = f"{unseen} is a file here, but the job starts in an empty directory; {way}"
        say(f"warning: {printable(note)}")
    with connect(node=True) as client:
        return launch(client, Prepared(task, Path.cwd()), detach=detach, yes=True, brief=True)


def _unseen(command: Sequence[str], volumes: Sequence[str]) -> str:
    """A relative path in the command that is a file here, and none where the job starts."""
    if any(volume.split(":")[1:2] in (["/workflow"], ["."]) for volume in volumes):
        return ""
    words = [word for word in command[:_FIRST_WORDS] if word and not word.startswith(("/", "-"))]
    programs = [word for word in command[:1] if "/" not in word and shutil.which(word)]
    return next((word for word in words if word not in programs and Path(word).is_file()), "")


def _variables(pairs: Sequence[str]) -> dict[str, str]:
    """What -e gives; a bare name has the value it has here."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals and name not in os.environ:
            fix = f"export {name}, or write -e {name}=value"
            raise InvalidInput(Problem(f"{name} is not set in your environment", fix, "-e"))
        found[name] = value if equals else os.environ[name]
    return found


def _here(volume: str) -> str:
    """`.` and `~` at the beginning of a source mean what they mean in the shell."""
    source, colon, rest = volume.partition(":")
    if not colon or source[:1] not in (".", "~"):
        return volume
    # abspath and not resolve: a symbolic link is the node's to follow
    return f"{os.path.abspath(os.path.expanduser(source))}:{rest}"  # noqa: PTH100, PTH111
