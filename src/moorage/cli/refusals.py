"""While a run is followed: which nodes refused it, and why, so that nobody wonders why it starts
late or somewhere else."""

from __future__ import annotations

import threading
from collections import Counter

from moorage.cli.client import Client
from moorage.cli.render import printable, say
from moorage.errors import MoorageError
from moorage.protocol.api import Event, RunRef

SHOWN = 3
"""Nodes that are named for one reason."""
_PATIENCE = 2.0
"""Seconds in which the last of them is known after the run has ended."""


class Refusals:
    """Tells each on stderr, on a thread and a connection of its own, which end with the run, or
    with the program where nobody follows any more."""

    def __init__(self, client: Client, run: RunRef) -> None:
        self._client = client
        self._run = run
        self._told: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """The run has ended: wait until all is told."""
        self._thread.join(_PATIENCE)

    def _watch(self) -> None:
        try:
            with Client(home=self._client.home) as own:
                for event in own.events(since=0, run=self._run.id, follow=True):
                    if event.kind == "job.refused":
                        self._tell(event)
                    elif event.kind == "run.ended":
                        return
        except MoorageError:
            return  # whoever follows the output meets the same, and says it

    def _tell(self, event: Event) -> None:
        why = event.data.get("message", "")
        self._told[why] += 1
        if self._told[why] <= SHOWN:
            then = event.data.get("then", "trying others")
            say(printable(f"node {event.node} refuses {self._run.name}: {why}; {then}"))
        elif self._told[why] == SHOWN + 1:
            more = f"moorage events --run {self._run.name}"
            say(f"more nodes refuse {self._run.name} for the same reason; all of them: {more}")
