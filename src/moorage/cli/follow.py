"""Stay with a run: its output here, its exit code ours, Ctrl-C a question."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from moorage.cli.client import Client
from moorage.cli.outcome import exit_code, sentence
from moorage.cli.ranklogs import Merged
from moorage.cli.render import say
from moorage.cli.session import asks
from moorage.protocol.api import RunRef
from moorage.units import format_size

if TYPE_CHECKING:
    from moorage.cli.refusals import Refusals

DETACHED = 0
"""Exit code of a detach that was chosen."""
INTERRUPTED = 130
"""Exit code of one that Ctrl-C forced."""


def copy_output(chunks: Iterable[bytes]) -> None:
    """Bytes of a job to stdout as they come, unchanged."""
    sys.stdout.flush()
    binary = sys.stdout.buffer
    for chunk in chunks:
        binary.write(chunk)
        binary.flush()


def report_gap(lost: int) -> None:
    """The cap on logs dropped the beginning."""
    say(f"the first {format_size(lost)} of this output are gone: it was more than is kept")


def follow(client: Client, run: RunRef, ranks: int = 1, *, choice: bool = False) -> int:
    """Show the output of a run until it has ended; returns its exit code. `choice`: several nodes
    may take it, so that one may refuse it and another be tried.

    Ctrl-C asks whether to detach or to stop the run; a second one detaches, and so does the first
    where nobody can be asked.
    """

    def read(client: Client, rank: int) -> Iterable[bytes]:
        return client.logs(run.id, rank=rank, follow=True, on_gap=report_gap)

    refusals = _refusals(client, run) if choice else None
    several = ranks > 1
    output = Merged(client, ranks, read) if several else read(client, 0)
    while True:
        try:
            copy_output(output)
            view = client.wait(run.id)
            break
        except KeyboardInterrupt:
            answer = _ask(run) if asks() else ""
            if answer == "s":
                client.stop(run.id)
                say(f"stopping {run.name}; Ctrl-C again to detach")
            elif answer != "c":
                say(f"detached; {run.name} goes on: moorage logs -f {run.name}")
                return DETACHED if answer == "d" else INTERRUPTED
    if refusals is not None:
        refusals.end()
    if view.summary.state != "succeeded" or sys.stderr.isatty():
        say(sentence(view))
    return exit_code(view)


def _refusals(client: Client, run: RunRef) -> Refusals:
    from moorage.cli.refusals import Refusals  # most runs have one node to go to

    return Refusals(client, run)


def _ask(run: RunRef) -> str:
    """`d`etach, `s`top or `c`ontinue, which Enter means too; empty after a second Ctrl-C."""
    question = f"{run.name} still runs: [d]etach, [s]top it or [C]ontinue? "
    while True:
        try:
            sys.stderr.write(f"\n{question}")
            sys.stderr.flush()
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            sys.stderr.write("\n")
            return ""
        if not line:
            return ""
        answer = line.strip().lower()[:1] or "c"
        if answer in ("d", "s", "c"):
            return answer
        question = "answer d, s or c: "
