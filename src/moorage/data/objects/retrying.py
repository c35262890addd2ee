"""How often a store is asked again that does not answer, or answers 5xx."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

_FEW = 3
_MANY = 10_000
"""The time ends them."""
_SHORT = 10.0
"""Seconds of patience up to which nobody wants more than a few tries."""
_PAUSE = 2.0
"""Seconds between two tries at most. obstore chooses each at random, up to a multiple of the one
before: with its usual 15 s and ten tries a fetch could stand still that long after a store was
back, and could also be over in two seconds."""


def retries(patience: float) -> Any:
    """obstore's settings: a store that is away for so many seconds is waited for."""
    return {
        "max_retries": _FEW if patience <= _SHORT else _MANY,
        "retry_timeout": timedelta(seconds=patience),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=_PAUSE),
            "base": 3,
        },
    }
