"""Jobs sent ahead to this node: they hold nothing and claim nothing until a place falls free."""

from __future__ import annotations

from collections import deque

from moorage.agent.claims import key_of
from moorage.protocol.agent import Held, Launch


class Lines:
    """One line for each kind of reservation. In memory only: what an agent that ends had in line
    has not begun, and the server sends it again."""

    def __init__(self) -> None:
        self._launches: dict[str, Launch] = {}
        self._order: dict[str, deque[str]] = {}

    def join(self, launch: Launch) -> None:
        """Put it at the end of its line; where it stands already, it stays."""
        key = key_of(launch)
        if key not in self._launches:
            self._launches[key] = launch
            self._order.setdefault(launch.line, deque()).append(key)

    def leave(self, key: str) -> bool:
        """Take it out; False where it is in no line."""
        return self._launches.pop(key, None) is not None

    def first(self, line: str) -> Launch | None:
        """Take out the first of a line. Keys that left before are passed over here."""
        order = self._order.get(line)
        while order:
            launch = self._launches.pop(order.popleft(), None)
            if launch is not None:
                return launch
        self._order.pop(line, None)
        return None

    def waiting(self, line: str) -> int:
        """About how many stand in it: those that left are counted until they come first."""
        return len(self._order.get(line, ()))

    def held(self) -> list[Held]:
        """For `Hello`."""
        return [Held(key, "waiting") for key in self._launches]
