"""What a relay does with bytes that come before there is anybody to send them to."""

from __future__ import annotations

import asyncio
from typing import Any

from moorage.data import relay
from moorage.data.relay import Relay


class Silent(asyncio.Transport):
    """One that reads although it was paused, as Python before 3.11.3 does at first."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


def test_they_are_sent_first(monkeypatch: Any) -> None:
    sent: list[bytes] = []

    async def main() -> None:
        opened = asyncio.Event()

        async def dial() -> Any:
            await opened.wait()
            return server

        server = type("Server", (), {"state": relay.State.OPEN, "transport": Silent()})()
        monkeypatch.setattr(relay.Frames, "begin", lambda self, transport: None)
        monkeypatch.setattr(relay.Frames, "send", lambda self, data: sent.append(data))
        near = relay._Near(Relay(dial))
        silent = Silent()
        near.connection_made(silent)
        near.data_received(b"first")
        assert sent == []
        assert silent.told == ["pause", "resume", "pause"]  # it reads no more of it
        opened.set()
        assert near._opening is not None
        await near._opening
        near.data_received(b"second")

    asyncio.run(main())
    assert sent == [b"first", b"second"]
