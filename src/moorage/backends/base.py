"""Where nodes come from. A backend makes agents run somewhere; they dial in by themselves, and
the engine knows them only from then on."""

from __future__ import annotations

from typing import Protocol


class Backend(Protocol):
    """One source of nodes, level-triggered: whatever it finds, it works towards what should be.

    Nothing here needs to be durable. A new server finds the nodes of the one before it and goes
    on with them; it never makes a second agent for a node that has one.
    """

    async def run(self, url: str) -> None:
        """Keep the nodes connected to the server at `url` until cancelled. Replaces agents that
        end, with growing pauses; never raises for a node that cannot be had, but logs why."""

    async def stop(self) -> None:
        """After `run` was cancelled: let the agents end in good order, within two seconds. Jobs
        go on under their keepers."""
