"""All attempts of this node: begun, stopped, picked up after a restart, forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress

from moorage.agent.claims import Claim, Claims
from moorage.agent.stage import Attempt, Node, reason
from moorage.ids import AttemptKey, JobId
from moorage.protocol.agent import Held, Launch, Outcome

log = logging.getLogger("moorage.agent")


class Attempts:
    """`tell` reports what is no claim here: an end without a beginning."""

    def __init__(self, claims: Claims, node: Node, tell: Callable[[Held], None]) -> None:
        self._claims = claims
        self._node = node
        self._tell = tell
        self._live: dict[str, Attempt] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def recover(self, left: list[Claim], running: dict[str, int]) -> None:
        """Go on with what earlier agents left; `running` is what the keeper has."""
        for claim in left:
            if claim.state != "done":
                attempt = Attempt(claim, self._node)
                self._begin(claim.key, attempt, attempt.resume(claim.key in running))

    def start(self, launch: Launch) -> None:
        """Claim and run; where it was claimed before, say what became of it."""
        key = str(AttemptKey(JobId(launch.job), launch.attempt, launch.rank))
        try:
            claim = self._claims.take(launch)
        except OSError as error:
            message = reason(error)
            log.error("%s cannot be claimed: %s", key, message)
            outcome = Outcome("phase-failed", phase="claim", message=message)
            self._tell(Held(key, "done", outcome=outcome))
            return
        if claim is None:
            self._node.changed(key, True)
            return
        with suppress(OSError):  # the walk will meet it again
            # Before the next message is looked at, which may ask for the output.
            self._node.logs.open(key)
        attempt = Attempt(claim, self._node)
        self._begin(key, attempt, attempt.walk())

    def stop(self, key: str, grace: float | None, abort: bool) -> None:
        """End an attempt; one that is unknown here has ended already, as far as can be told."""
        attempt = self._live.get(key)
        if attempt is not None:
            attempt.stop(grace, abort)
        elif self._claims.get(key) is not None:
            self._node.changed(key, True)
        else:
            outcome = Outcome("stopped", message="not known to its node")
            self._tell(Held(key, "done", outcome=outcome))

    def forget(self, keys: list[str]) -> None:
        """The server knows these ends for good."""
        for key in keys:
            self._claims.forget(key)

    def held(self, key: str) -> Held | None:
        """The present state of a claim."""
        claim = self._claims.get(key)
        return None if claim is None else claim.held()

    async def leave(self) -> None:
        """Let go of everything; processes and records stay for the next agent."""
        tasks, live = list(self._tasks.values()), list(self._live.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for attempt in live:
            attempt.let_go()
        self._claims.close()

    def _begin(self, key: str, attempt: Attempt, way: Coroutine[None, None, None]) -> None:
        self._live[key] = attempt
        task = asyncio.create_task(way, name=key)
        self._tasks[key] = task
        task.add_done_callback(lambda _task: self._over(key))

    def _over(self, key: str) -> None:
        task = self._tasks.pop(key)
        del self._live[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: cannot be brought to its end", key, exc_info=error)
