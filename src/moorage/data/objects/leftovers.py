"""How much the uploads in parts take that nobody has finished: no listing shows it, and it is
billed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorage.data.objects.errors import StoreProblem
from moorage.protocol.stores import Unfinished

if TYPE_CHECKING:
    from moorage.data.objects.unfinished import Uploads

_THREADS = 8
_MOST = 200
"""Uploads whose parts are asked for, with a request for each."""


def leftovers(uploads: Uploads, path: str = "") -> Unfinished | None:
    """Those to a path and below it; None where there are none, or the store does not tell. Those
    that are under way are among them."""
    from concurrent.futures import ThreadPoolExecutor

    try:
        found = uploads.below(path) if uploads.known else []
    except StoreProblem:
        return None
    if not found:
        return None
    size: int | None = None
    if len(found) <= _MOST:
        try:
            with ThreadPoolExecutor(min(_THREADS, len(found)), "parts") as threads:
                size = sum(threads.map(uploads.size, found))
        except StoreProblem:
            pass  # some are finished by now
    return Unfinished(len(found), min(one.began for one in found), size)
