"""The data of an attempt: all its mounts prepared, and released again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from moorage.agent import durable
from moorage.agent.containers import requests
from moorage.data.base import Bind, Handle, NotHere, Place, SourceError
from moorage.data.buckets import BucketSource
from moorage.data.sources import Sources, in_order
from moorage.protocol.agent import Launch
from moorage.specs.mounts import Mount

Numbered = tuple[int, Mount]


class Supply:
    """Prepares mounts with the node's sources; what may block runs in threads."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def problems(self, mount: Mount) -> tuple[list[str], list[str]]:
        """What would go wrong with this mount here, and what is worth saying."""
        wrong, notes = self._sources.of(mount).problems(mount)
        return [*wrong, *filter(None, [durable.problem(mount)])], notes

    async def prepare(
        self, mounts: Sequence[Mount], place: Place, wanted: Callable[[], bool]
    ) -> tuple[list[Bind], str]:
        """Binds for all mounts, in the order in which they must be made, and what was fetched.

        Volumes come first, because the others may land in one. Neighbours of one kind whose
        targets do not touch are prepared side by side. `wanted` is asked before each batch.
        SourceError or OSError, once all that was begun has ended."""
        if why := next(filter(None, map(durable.problem, mounts)), ""):
            raise NotHere(why)
        place = replace(place, binds=(Bind(place.work, place.workdir),))
        binds: list[Bind] = []
        details: list[str] = []
        for batch in batches(in_order(mounts), place):
            if not wanted():
                break
            handles = await self._together(batch, place)
            new = [bind for handle in handles for bind in handle.binds]
            details += [handle.detail for handle in handles if handle.detail]
            binds += new
            place = replace(place, binds=(*place.binds, *new))
        return binds, "; ".join(details)

    async def _together(self, batch: list[Numbered], place: Place) -> list[Handle]:
        jobs = [
            asyncio.to_thread(self._sources.of(mount).prepare, mount, place, number)
            for number, mount in batch
        ]
        done = await asyncio.gather(*jobs, return_exceptions=True)
        handles = []
        for result in done:
            if isinstance(result, BaseException):
                raise result
            handles.append(result)
        return handles

    @property
    def buckets(self) -> BucketSource:
        """What provides buckets."""
        return self._sources.buckets

    def put_away(self, directory: Path) -> list[str]:
        """See `Sources.put_away`. Blocks."""
        return self._sources.put_away(directory)

    def release(self, mounts: Sequence[Mount], place: Place) -> list[str]:
        """Undo `prepare`, in whatever state it is; what could not be undone. Blocks."""
        failed = []
        for number, mount in reversed(in_order(mounts)):
            try:
                self._sources.of(mount).release(mount, place, number)
            except (SourceError, OSError) as error:
                failed.append(str(error))
        return failed


def batches(mounts: Sequence[Numbered], place: Place) -> list[list[Numbered]]:
    """Cut the sequence wherever a mount could meet one before it: another kind, or a target that
    is the same, above or below."""
    found: list[list[Numbered]] = []
    for number, mount in mounts:
        last = found[-1] if found else []
        if last and type(last[0][1]) is type(mount) and not _meets(mount, last, place):
            last.append((number, mount))
        else:
            found.append([(number, mount)])
    return found


def _meets(mount: Mount, others: list[Numbered], place: Place) -> bool:
    target = place.target(mount.target)
    taken = [place.target(other.target) for _, other in others]
    return any(target.is_relative_to(path) or path.is_relative_to(target) for path in taken)


def home_of(launch: Launch) -> Path:
    """What `~` means in the targets of a launch's mounts: `HOME` as the job sees it."""
    if launch.container is not None:
        return requests.home_of(launch)
    return Path(launch.env.get("HOME") or Path.home())
