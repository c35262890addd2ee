"""Which calls were received and perhaps not answered, in memory that outlives who answers them: to
the kernel they are taken, and nobody would ever be told of them again. Standard library only.
"""

from __future__ import annotations

import os
import struct
import threading

from moorage.agent.fsyncs.calls import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator

_PLACE = struct.Struct("QI12sQ")


class Journal:
    """In a file without a name. Entries are written over, never wiped out: to answer a call that
    has its answer does nothing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._free: list[int] = []
        self._size = os.fstat(descriptor).st_size // _PLACE.size

    def entries(self) -> Iterator[Call]:
        """As they were written."""
        for place in range(self._size):
            data = os.pread(self._descriptor, _PLACE.size, place * _PLACE.size)
            number, pid, name, argument = _PLACE.unpack(data)
            yield Call(number, pid, name.rstrip(b"\0").decode(), (argument,))

    def settle(self, waiting: Container[int]) -> None:
        """Only these calls wait still: use all other places again, but for one of each."""
        seen: set[int] = set()
        for place, call in enumerate(self.entries()):
            if place and (call.id in seen or call.id not in waiting):
                self._free.append(place)
            elif place:
                seen.add(call.id)

    def note(self, call: Call, place: int = 0) -> None:
        """Write it at that place; the first is for the one that is looked at right now."""
        data = _PLACE.pack(call.id, call.pid, call.name.encode(), call.arguments[0])
        os.pwrite(self._descriptor, data, place * _PLACE.size)
        self._size = max(self._size, place + 1)

    def keep(self, call: Call) -> int:
        """Write it where it may stay; the place."""
        with self._lock:
            place = self._free.pop() if self._free else max(self._size, 1)
            self.note(call, place)
        return place

    def release(self, place: int) -> None:
        """It is answered."""
        with self._lock:
            self._free.append(place)
