"""The `moorage` command: finds the verb, imports it alone, turns errors into lines and exit codes.

`moorage --help` imports no verb, so the one-line summaries stand here; a test compares them with
the verbs' own.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

import click

from moorage.cli.ending import Ended
from moorage.errors import InvalidInput, MoorageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

VERBS: dict[str, str] = {
    "apply": "Run what a file describes, or connect the machines of a fleet.",
    "plan": "Show what `apply` would do; changes nothing.",
    "run": "Run one command, without a file.",
    "ps": "List runs.",
    "show": "Show all about one run.",
    "logs": "Print the output of a run.",
    "attach": "Follow a run, with its ports on this machine.",
    "exec": "Run a command in a running job.",
    "ssh": "Open a shell in a running job by ssh.",
    "ssh-config": "Let ssh, scp and rsync know runs by name.",
    "proxy": "Connect ssh to a run, on stdin and stdout.",
    "wait": "Wait until runs have ended.",
    "stop": "Stop runs.",
    "retry": "Submit a run that has ended once more.",
    "delete": "Delete finished runs and their output.",
    "events": "List what happened, or watch it.",
    "node": "The machines that run jobs.",
    "fleet": "Machines that are reached by ssh.",
    "store": "The object stores that buckets are in.",
    "storage": "Buckets that runs use, and what is in them.",
    "server": "The server of this machine.",
    "schema": "Print the JSON Schema of a kind of file.",
    "completion": "Print the completion script of a shell.",
}
EXIT_CODES = """\
Exit codes: `apply`, `run`, `retry`, `wait` and `logs -f` end with the job's own code (128 + N
after signal N); otherwise 0 done, 1 failed, 2 bad input, 3 not found, 4 no permission, 5 no server
answers, 130 interrupted."""
ENVIRONMENT = """\
Environment: MOORAGE_HOME (default ~/.moorage) holds the server of this machine, which the first
command starts; MOORAGE_URL and MOORAGE_TOKEN name another one; NO_COLOR turns colours off;
MOORAGE_DEBUG=1 shows where an error comes from."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What becomes of output that goes into a file."""
INTERRUPTED = 130
BROKEN_PIPE = 141


class _Unread(Exception):
    """The reader of the pipe that stdout is has left."""


class Verbs(click.Group):
    """Imports the module of a verb when the verb is used."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that was named; where there is none, the nearest that exists."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            from moorage.cli import otherwords

            nearest = otherwords.verb(args[0], VERBS)
            hint = f" (did you mean {nearest!r}?)" if nearest else ""
            raise click.UsageError(f"there is no verb {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """The verb's result. `_Unread` for a broken pipe, which click would take for a failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _Unread from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of a first reading."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb; its module is `cli/NAME.py` and the command in it has the same name, with `_`
        for `-`."""
        if cmd_name not in VERBS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(import_module(f"moorage.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs for the Tab key, without importing them."""
        from click.shell_completion import CompletionItem

        options = click.Command.shell_complete(self, ctx, incomplete)
        verbs = [
            CompletionItem(name, help=summary)
            for name, summary in VERBS.items()
            if name.startswith(incomplete)
        ]
        return options + verbs

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        import moorage

        click.echo(f"moorage {moorage.__version__}")
        ctx.exit()


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    epilog=f"{EXIT_CODES}\n\n{ENVIRONMENT}",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Print the version.",
)  # fmt: skip
@click.pass_context
def moorage(ctx: click.Context) -> None:
    """Run AI and HPC workloads on the machines you have, with their data.

    \b
    Examples:
      moorage run -- nvidia-smi              run a command on a node
      moorage apply -f train.yml             run what a file describes
      moorage ps                             see what runs
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code."""
    _open_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except (BrokenPipeError, _Unread):
        _write_no_more()
        code = BROKEN_PIPE
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _write_no_more()
        _complain(f"the output cannot be written: {error.strerror}")
        code = 1
    sys.exit(code)


def _open_streams() -> None:
    """Where the caller has closed one (`>&-`), what is said there goes nowhere, and not into the
    next file that is opened."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r+"))


def _write_no_more() -> None:
    """Not at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = moorage.main(arguments, prog_name="moorage", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.message)  # `moorage node` is answered as `moorage` is
        return 0
    except click.ClickException as error:
        return _usage(error)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Ended as error:
        with suppress(OSError):  # its terminal may be gone
            _complain(str(error))
        return error.exit_code
    except _Unread:
        raise
    except MoorageError as error:
        return _failed(error)
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in _FULL and error.filename is None
        if full or _debugging():
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        _complain(f"internal error: {reason} (MOORAGE_DEBUG=1 shows where)")
        return 1
    return code if isinstance(code, int) else 0


def _failed(error: MoorageError) -> int:
    if _debugging():
        raise error
    if isinstance(error, InvalidInput):
        for problem in error.problems:
            _complain(str(problem))
    else:
        first, *more = str(error).splitlines() or [type(error).__name__]
        _complain(first)
        for line in more:
            print(line, file=sys.stderr)
    return error.exit_code


def _usage(error: click.ClickException) -> int:
    from moorage.cli.usage import line  # only wrong commands pay for it

    _complain(line(error))
    return 2


def _complain(line: str) -> None:
    print(f"moorage: error: {line}", file=sys.stderr)


def _debugging() -> bool:
    return os.environ.get("MOORAGE_DEBUG") == "1"
