"""Parameters that several routes share."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

LARGEST = 2**53
"""Beyond any number that occurs; within what JSON and every database carry."""

Ref = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description="A run's number, or its name (the newest run of that name)",
    ),
]
Since = Annotated[int, Meta(ge=0, le=LARGEST, description="Number of the last event known")]
Limit = Annotated[int, Meta(ge=1, le=1000, description="How many at most")]
Flag = Annotated[int, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Seconds = Annotated[float, Meta(ge=0, le=1e12)]


class RunPath(Struct, frozen=True, forbid_unknown_fields=True):
    """Names a run."""

    ref: Ref
