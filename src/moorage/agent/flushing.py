"""The flush phase: what a job wrote into its buckets must be there before it counts as done, and
what could not be uploaded is told, kept, and uploaded later when somebody asks.

It waits for the mounts of this attempt only. Each has a thread of its own: a flush may take hours,
and must not take the place of what other attempts fetch.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable, Sequence

import msgspec

from moorage.data import stopping
from moorage.data.base import Place, SourceError
from moorage.data.buckets import BucketSource, Moved, NotFlushed
from moorage.protocol.agent import Outcome
from moorage.protocol.flush import Flush, Flushed
from moorage.specs.mounts import Bucket, Mount
from moorage.units import format_progress

log = logging.getLogger("moorage.agent")

PATIENCE = 3600.0
"""Seconds without a byte that moves after which a flush is given up, unless the mount or the
server's settings say."""
_EVERY = 1.0
"""Seconds between two words about the progress: the server keeps each."""
_SHOWN = 20
"""Files that a message names."""

Say = Callable[[str], None]
Numbered = tuple[int, Bucket]


def buckets(mounts: Sequence[Mount]) -> list[Numbered]:
    """The buckets among mounts, each with its position."""
    return [(number, mount) for number, mount in enumerate(mounts) if isinstance(mount, Bucket)]


class Flushing:
    """Of one attempt. `say` is told how far it is, on the event loop."""

    def __init__(
        self, source: BucketSource, place: Place, say: Say, patience: float = PATIENCE
    ) -> None:
        self._source = source
        self._patience = patience
        self._place = place
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._stopper = stopping.Stopper()
        self._moved: dict[int, Moved] = {}
        self._shown, self._told = "", 0.0
        self._said: dict[int, str] = {}

    @property
    def detail(self) -> str:
        """What is worth saying about it, for the timeline."""
        return "; ".join(self._said[number] for number in sorted(self._said))

    def let_go(self) -> None:
        """Break off the waiting, not the uploads; the next agent waits again."""
        self._stopper.stop()

    async def run(self, mounts: Sequence[Numbered]) -> Outcome | None:
        """None where all is in the buckets; else how the attempt ends."""
        results = await asyncio.gather(
            *(self._one(number, bucket) for number, bucket in mounts), return_exceptions=True
        )
        left: list[str] = []
        reasons: list[str] = []
        for (_, bucket), result in zip(mounts, results, strict=True):
            if isinstance(result, NotFlushed):
                left += [f"{bucket.target}/{name}" for name in result.files]
            if isinstance(result, NotFlushed | SourceError | OSError):
                reasons.append(f"{bucket.target}: {result}")
            elif isinstance(result, Exception):
                # Ours to repair; what cannot be proved to be there counts as missing.
                log.error("%s: a flush broke", self._place.directory.name, exc_info=result)
                reasons.append(f"{bucket.target}: internal error; see the agent's log")
        wrong = [result for result in results if result is not None]
        if not reasons:
            return None
        kept = not all(isinstance(one, NotFlushed) and not one.kept for one in wrong)
        message = _message(reasons, left, kept)
        return Outcome("not-flushed", phase="flush", message=message)

    def _one(self, number: int, bucket: Bucket) -> asyncio.Future[None]:
        patience = self._patience if bucket.flush_timeout is None else bucket.flush_timeout

        def tell(moved: Moved) -> None:
            self._loop.call_soon_threadsafe(self._tell, number, moved)

        def work() -> None:
            stopping.current.set(self._stopper)
            said = self._source.flush(bucket, self._place, number, tell, patience)
            if said:
                self._said[number] = f"{bucket.target}: {said}"

        return in_thread(work, f"flush {self._place.directory.name}/{number}")

    def _tell(self, number: int, moved: Moved) -> None:
        self._moved[number] = moved
        done = sum(one.done for one in self._moved.values())
        total = sum(one.total for one in self._moved.values())
        text = f"flushing {format_progress(done, total)}"
        now = self._loop.time()
        if text != self._shown and now - self._told >= _EVERY:
            self._shown, self._told = text, now
            self._say(text)


class Leftovers:
    """What ended attempts keep on this node, uploaded when the server asks."""

    def __init__(
        self,
        source: BucketSource,
        answer: Callable[[Flushed], None],
        patience: float = PATIENCE,
    ) -> None:
        self._source = source
        self._patience = patience
        self._answer = answer
        self._waiting: dict[str, list[int]] = {}

    async def flush(self, message: Flush) -> None:
        """Answer it, sooner or later. Never raises."""
        waiting = self._waiting.setdefault(message.key, [])
        waiting.append(message.request)
        if len(waiting) > 1:
            return
        try:
            result = await self._flush(message.key)
        finally:
            requests = self._waiting.pop(message.key)
        for request in requests:
            self._answer(msgspec.structs.replace(result, request=request))

    async def _flush(self, key: str) -> Flushed:
        def work() -> None:
            self._source.resume(key, lambda _moved: None, self._patience)

        try:
            await in_thread(work, f"flush {key}")
        except FileNotFoundError:
            return Flushed(0, key, "its node keeps nothing of it", unknown=True)
        except NotFlushed as error:
            return Flushed(0, key, str(error), error.files)
        except (SourceError, OSError) as error:
            return Flushed(0, key, str(error))
        except Exception as error:
            log.exception("%s: its flush broke", key)
            return Flushed(0, key, f"internal error: {type(error).__name__}; see the agent's log")
        return Flushed(0, key)


def in_thread(work: Callable[[], None], name: str) -> asyncio.Future[None]:
    """The end of `work`, which runs in a thread of its own that nobody waits for at the end of the
    program."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    context = contextvars.copy_context()

    def tell(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            context.run(work)
        except Exception as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


def _message(reasons: list[str], left: list[str], kept: bool) -> str:
    text = f"not all that was written is in its bucket: {'; '.join(reasons)}"
    if left:
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        text += f"; missing: {', '.join(left[:_SHOWN])}{more}"
    if not kept:
        return f"{text}; nothing of them is on the node"
    return f"{text}; kept on the node, moorage storage flush uploads it"
