"""A phase of an attempt under way, and what goes wrong in one, in words."""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import TracebackType

from moorage.agent.claims import Claim
from moorage.protocol.agent import PhaseName


class Stopped(Exception):
    """The wish to end came before the process."""


class Progress:
    """A phase under way; `detail` is for the timeline, `at` when it ended if not just now, `known`
    whether an earlier agent ended it. An agent that leaves in its middle does not end it."""

    __slots__ = ("_changed", "_claim", "_phase", "_slow", "at", "detail", "known")

    def __init__(
        self, claim: Claim, changed: Callable[[str, bool], None], phase: PhaseName, slow: bool
    ) -> None:
        self._claim, self._changed, self._phase, self._slow = claim, changed, phase, slow
        self.known = False
        self.detail = ""
        self.at: float | None = None

    def __enter__(self) -> Progress:
        self.known = self._claim.ended(self._phase)  # an earlier agent came further
        if not self.known:
            self._claim.begin(self._phase, at_once=self._slow or self._phase == "run")
            if self._slow:
                self._changed(self._claim.key, False)
        return self

    def __exit__(
        self, _kind: object, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self.known:
            return
        if error is None:
            self._claim.end(self._phase, self.detail, self.at, at_once=self._slow)
        elif isinstance(error, Exception):
            self._claim.end(self._phase, self.detail or reason(error))


def reason(error: Exception) -> str:
    """An error in one line for the user."""
    if isinstance(error, Stopped):
        return "stopped"
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error) or type(error).__name__
    place = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{place}the node's disk is full; make room on it and try again"
    return f"{place}{error.strerror}"
