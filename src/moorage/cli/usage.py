"""What is said of a command line that cannot be right. Imported only for those."""

from __future__ import annotations

import re

import click

from moorage.cli import otherwords

_TOO_MANY = re.compile(r"Got unexpected extra arguments? \((.*)\)")
_NO_COMMAND = re.compile(r"No such command '(.*?)'.*")
_NEAR = re.compile(r"\.? \(?Did you mean (?:one of: )?([^?]*)\?\)?")


def line(error: click.ClickException) -> str:
    """What is wrong, what may have been meant, and where to read more."""
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    if context is None:
        return f"{_small(message)}; see moorage --help"
    return f"{_small(_plain(error, context, message))}; see {context.command_path} --help"


def _plain(error: click.ClickException, context: click.Context, message: str) -> str:
    if found := _TOO_MANY.fullmatch(message):
        return _too_many(context, found[1])
    if (found := _NO_COMMAND.fullmatch(message)) and isinstance(context.command, click.Group):
        near = otherwords.command(found[1], context.command.commands)
        hint = f" (did you mean {near!r}?)" if near else ""
        return f"{context.command_path} has no command {found[1]!r}{hint}"
    if isinstance(error, click.MissingParameter) and getattr(error.param, "name", "") == "file":
        return f"missing option '-f': {context.command_path} -f FILE"
    message = _NEAR.sub(lambda near: f" (did you mean {near[1].partition(',')[0]}?)", message)
    if isinstance(error, click.NoSuchOption) and any("--" in one for one in _arguments(context)):
        message += "; options of the job's own command stand after --"
    return message


def _too_many(context: click.Context, words: str) -> str:
    """What to say of words that a verb has no use for: options without their dash, or a value
    that the shell took apart."""
    arguments = _arguments(context)
    taken = f"takes {' '.join(arguments)} alone" if arguments else "takes options only"
    fix = "put quotes around a value with spaces"
    return f"{words!r}: nothing was expected there: {context.command_path} {taken}; {fix}"


def _arguments(context: click.Context) -> list[str]:
    return [
        param.make_metavar(context)
        for param in context.command.params
        if isinstance(param, click.Argument)
    ]


def _small(message: str) -> str:
    return message[:1].lower() + message[1:]
