"""The bell between decisions and the reconciler: rung once for any number of changes."""

from __future__ import annotations

import asyncio


class Stirred:
    """Set by decisions once they are durable, taken by whoever looks at the hosts."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._again = False

    def stir(self, again: bool) -> None:
        """Something changed. `again`: somebody wants hosts that failed to be tried now."""
        self._again = self._again or again
        self._event.set()

    def take(self) -> bool:
        """From here on changes are new; whether one of those before asked for another try."""
        again, self._again = self._again, False
        self._event.clear()
        return again

    async def wait(self) -> None:
        """Until there is one that was not taken."""
        await self._event.wait()
