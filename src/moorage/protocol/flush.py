"""What jobs could not upload into their buckets, and its upload later.

An attempt that ends `not-flushed` leaves what is not in its buckets on its node, named by its
key, until a `Flush` succeeds. For that the node asks for the access to its stores as for an
attempt that runs: the server must give it until it has heard of a `Flushed` without a problem.
"""

from __future__ import annotations

from msgspec import Struct


class Flush(Struct, frozen=True, tag="flush"):
    """Server to agent: upload what this attempt left. Answered by one `Flushed`; one that comes
    while another of its key is at work is answered together with that one."""

    request: int
    key: str


class Flushed(Struct, frozen=True, omit_defaults=True, tag="flushed"):
    """Agent to server: all is in the buckets, and nothing of it is on the node any more; or why it
    is not, in one line."""

    request: int
    key: str
    problem: str = ""
    files: list[str] = []
    """What is still missing, as far as it is known: some of many."""
    unknown: bool = False
    """Nothing is kept here under this key."""
