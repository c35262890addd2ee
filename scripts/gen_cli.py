"""Write docs/reference/cli.md from the commands themselves; a test checks that it is fresh."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click

from moorage.cli.main import VERBS, moorage

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"
WIDTH = 96
INTRODUCTION = """\
# The command

Generated from the command by `scripts/gen_cli.py`; do not edit. Every page is also printed by
`moorage VERB --help`.

A RUN is the number or the name of a run; a name means the newest run that has it. Results go to
standard output, everything else to standard error. On a terminal, tables are fitted to its width
and coloured; in a pipe nothing is cut and nothing is coloured. Every error is one line,
`moorage: error: ...`, and several problems are one line each.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## moorage\n", _help(moorage, "moorage")]
    for name in VERBS:
        word = name.replace("-", "_")
        verb = getattr(import_module(f"moorage.cli.{word}"), word)
        parts += _sections(verb, f"moorage {name}")
    return "\n".join(parts)


def _sections(command: click.Command, path: str) -> Iterator[str]:
    yield f"## {path}\n"
    yield _help(command, path)
    if isinstance(command, click.Group):
        for name, sub in command.commands.items():
            yield f"### {path} {name}\n"
            yield _help(sub, f"{path} {name}")


def _help(command: click.Command, path: str) -> str:
    context = click.Context(
        command, None, path, terminal_width=WIDTH, help_option_names=["-h", "--help"]
    )
    text = command.get_help(context)
    return "```text\n" + "\n".join(line.rstrip() for line in text.splitlines()) + "\n```\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
