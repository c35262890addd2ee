"""All attempts of this node: begun, in line, stopped, picked up after a restart, forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress

from moorage.agent.claims import Claim, Claims, key_of
from moorage.agent.lines import Lines
from moorage.agent.progress import reason
from moorage.agent.stage import Attempt, Node
from moorage.protocol.agent import Held, Launch, Outcome

log = logging.getLogger("moorage.agent")

_SHORT = 2  # jobs in a line that is about to run out


class Attempts:
    """`tell` reports what is no claim here: an end without a beginning; `hurry` lets reports go
    at once; `lasts` says whether the node's lease does."""

    def __init__(
        self,
        claims: Claims,
        node: Node,
        tell: Callable[[Held], None],
        hurry: Callable[[], None],
        lasts: Callable[[], bool] = lambda: True,
    ) -> None:
        self._claims = claims
        self._node = node
        self._tell = tell
        self._hurry = hurry
        self._lasts = lasts
        self._lines = Lines()
        self._refused: dict[str, Held] = {}
        """Ends without a claim, until the server knows them: a Start that was on its way to one
        in line must not begin what was told to be over."""
        self._live: dict[str, Attempt] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def recover(self, left: list[Claim], running: dict[str, int]) -> None:
        """Go on with what earlier agents left; `running` is what the keeper has."""
        for claim in left:
            if claim.state != "done":
                attempt = Attempt(claim, self._node, self._hand_over)
                attempt.fenced = True  # as its keeper may believe
                self._begin(claim.key, attempt, attempt.resume(claim.key in running))

    def start(self, launch: Launch, wait: bool = False) -> None:
        """Claim and run, or stand in line; where it was claimed before, say what became of it."""
        key = key_of(launch)
        if self._claims.get(key) is not None:
            self._node.changed(key, True)
        elif key in self._refused:
            self._tell(self._refused[key])
        elif wait:
            self._lines.join(launch)
        else:
            self._lines.leave(key)
            self._claim(key, launch)

    def retract(self, keys: list[str]) -> None:
        """Give back what is in line still; say how the others are."""
        for key in keys:
            if not self._lines.leave(key) and self._claims.get(key) is not None:
                self._node.changed(key, True)
            else:
                self._tell(Held(key, "retracted"))

    def stop(self, key: str, grace: float | None, abort: bool) -> None:
        """End an attempt; one that is unknown here has ended already, as far as can be told."""
        attempt = self._live.get(key)
        if attempt is not None:
            attempt.stop(grace, abort)
        elif self._claims.get(key) is not None:
            self._node.changed(key, True)
        else:
            message = "" if self._lines.leave(key) else "not known to its node"
            outcome = Outcome("aborted" if abort else "stopped", message=message)
            self._tell(Held(key, "done", outcome=outcome))

    def forget(self, keys: list[str]) -> None:
        """The server knows these ends for good."""
        for key in keys:
            self._claims.forget(key)
            self._refused.pop(key, None)

    def fall(self) -> None:
        """The lease is over: the server may give away what stands in line here, and what is
        fenced."""
        self._lines = Lines()
        for attempt in self._live.values():
            attempt.fall()

    def settle(self, keys: Iterable[str]) -> None:
        """The server knows for good that these have begun: one that came out of a line is no
        longer fenced, unless its task wants that."""
        free = [key for key in keys if key in self._live and self._live[key].settle()]
        if free:
            self._node.processes.unfence(free)

    def all_held(self) -> list[Held]:
        """The full inventory, for `Hello`. Nothing that was sent before it is on its way still:
        what could not be claimed may be tried again if the server never heard of it."""
        self._refused.clear()
        return [*self._claims.held(), *self._lines.held()]

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

    def _claim(self, key: str, launch: Launch, fenced: bool = False) -> bool:
        """False where it has come to its end at once."""
        try:
            claim = self._claims.take(launch)
        except OSError as error:
            message = reason(error)
            log.error("%s cannot be claimed: %s", key, message)
            outcome = Outcome("phase-failed", phase="claim", message=message, here=True)
            self._refused[key] = Held(key, "done", outcome=outcome)
            self._tell(self._refused[key])
            return False
        if claim is None:
            self._node.changed(key, True)
            return False
        with suppress(OSError):  # the walk will meet it again
            # Before the next message is looked at, which may ask for the output.
            self._node.logs.open(key)
        attempt = Attempt(claim, self._node, self._hand_over)
        attempt.fenced = attempt.fenced or fenced
        self._begin(key, attempt, attempt.walk())
        return True

    def _hand_over(self, ended: Claim) -> None:
        """The place of an attempt that is `done` goes to the next in its line. Called in the step
        that tells of the end, so that one report tells both."""
        line = "" if ended.launch is None else ended.launch.line
        while line and self._lasts() and (launch := self._lines.first(line)) is not None:
            key = key_of(launch)
            # Until the server knows, it may believe that this one still waits.
            if self._claim(key, launch, fenced=True):
                self._node.changed(key, True)
                break
        if self._lines.waiting(line) <= _SHORT:
            self._hurry()

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
