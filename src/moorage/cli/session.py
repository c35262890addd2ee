"""What verbs share: a connected client, runs named on the command line, JSON on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import msgspec

from moorage.cli import autostart
from moorage.cli.client import Client
from moorage.cli.home import elsewhere, from_home, home_directory, is_alive
from moorage.cli.render import printable, say
from moorage.cli.streams import decode_events
from moorage.cli.transport import HUSH
from moorage.errors import InvalidInput, MoorageError, NotFound, Problem, Unreachable
from moorage.protocol.api import FINAL_STATES, RunSummary
from moorage.units import BadValue, parse_duration

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

NODE_PATIENCE = 10.0
"""Seconds of silence after which a new server is used without a node."""


def connect(*, node: bool = False) -> Client:
    """A client of the configured server; without one, this machine's is started if need be, and
    with `node` its node waited for."""
    if elsewhere() is not None:
        return talking(Client())
    home = home_directory()
    address = from_home(home)
    if address is not None and is_alive(address.pid):
        client = talking(Client(home=home))
        try:
            client.connect()
        except Unreachable:
            client.close()
        else:
            return client
    address, started = autostart.ensure(home)
    if started:
        autostart.announce(address)
    client = talking(Client(home=home))
    if started and node:
        await_node(client)
    return client


def talking(client: Client) -> Client:
    """The same, which tells the user where the server is silent for long."""

    def tell() -> None:
        place = client.transport.address.place
        say(f"the server on {place} has not answered for {HUSH:.0f} s; waiting")

    client.transport.on_silence = tell
    return client


def await_node(client: Client) -> None:
    """A new server answers a second before its node does; a plan would find no node."""
    news = {"follow": True}
    try:
        with client.transport.stream("/v1/events", query=news, patience=NODE_PATIENCE) as stream:
            if any(node.state == "up" for node in client.nodes()):
                return
            for event in decode_events(stream):
                if event.kind == "node.up":
                    return
    except Unreachable:
        return  # the plan says that there is no node


@contextmanager
def naming(client: Client, ref: str) -> Iterator[None]:
    """NotFound for a run gets the nearest name that exists."""
    try:
        yield
    except NotFound as error:
        nearest = _nearest(client, ref)
        if nearest in ("", ref) or "did you mean" in str(error):
            raise
        raise NotFound(f"{error}; did you mean {nearest}?") from None


def _nearest(client: Client, ref: str) -> str:
    from difflib import get_close_matches

    try:
        names = {run.name for run in client.page().runs}
    except MoorageError:
        return ""
    return next(iter(get_close_matches(ref, sorted(names), n=1)), "")


def complete_runs(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Names of runs for the shell; none where no server answers: completion starts nothing."""
    address = elsewhere() or from_home(home_directory())
    if address is None:
        return []
    try:
        with Client(address=address) as client:
            if ctx.info_name == "stop":
                runs = list(client.runs(active=True))
            else:
                runs = client.page().runs
    except MoorageError:
        return []
    if ctx.info_name == "delete":
        runs = [run for run in runs if run.state in FINAL_STATES]
    return sorted({run.name for run in runs if run.name.startswith(begun)})


def complete_files(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Tells the shell to complete names of files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(begun, type="file")]


def print_json(value: Any) -> None:
    """A document on stdout: indented for people on a terminal, one line in a pipe."""
    data = msgspec.json.encode(value)
    if sys.stdout.isatty():
        data = msgspec.json.format(data, indent=2)
    sys.stdout.write(data.decode() + "\n")


def print_lines(lines: list[str]) -> None:
    """Lines on stdout, in one write."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def print_fields(fields: Mapping[str, str], width: int = 10) -> None:
    """What there is to say of one thing, a line each; what is empty is left out."""
    lines = [f"{word:<{width}}{text}" for word, text in fields.items() if text]
    print_lines([printable(line) for line in lines])


def seconds(text: str, option: str) -> float:
    """A duration given to an option; InvalidInput names the option."""
    try:
        return parse_duration(text)
    except BadValue as error:
        raise InvalidInput(Problem(str(error), field=option)) from None


def asks() -> bool:
    """Is there somebody at a terminal who can answer?"""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, *, default: bool = False) -> bool:
    """Ask on the terminal, beside the result; the end of input is a no."""
    sys.stderr.write(f"{question} [{'Y/n' if default else 'y/N'}] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        sys.stderr.write("\n")
        return False
    word = answer.strip().lower()
    return default if not word else word in ("y", "yes")


class WholeNumber(click.IntRange):
    """A number in a range, called what people call it in errors."""

    name = "whole number"


class RunName(click.types.StringParamType):
    """The number or the name of a run."""

    name = "run"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuses an empty one: a shell variable that is not set, most often."""
        if not value.strip():
            self.fail("the name of a run is empty", param, ctx)
        return value


def named_runs(client: Client, refs: Sequence[str]) -> tuple[list[RunSummary], list[NotFound]]:
    """The runs that exist, each once, and the complaints about the others."""
    found: dict[int, RunSummary] = {}
    missing = []
    for ref in refs:
        try:
            with naming(client, ref):
                summary = client.run(ref).summary
        except NotFound as error:
            missing.append(error)
        else:
            found[summary.id] = summary
    return list(found.values()), missing


def report(errors: Sequence[MoorageError]) -> int:
    """Say what went wrong with some of several runs; returns the exit code of the first."""
    for error in errors:
        say(f"error: {error}")
    return errors[0].exit_code if errors else 0


file_option = click.option(
    "-f", "--file", required=True, metavar="FILE", help="The file; - is stdin.",
    shell_complete=complete_files,
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
run_argument = click.argument("run", type=RunName(), shell_complete=complete_runs)
runs_argument = click.argument(
    "runs", nargs=-1, required=True, type=RunName(), shell_complete=complete_runs
)
yes_option = click.option(
    "-y", "--yes", is_flag=True, help="Do not ask; without a terminal, nothing asks."
)
