"""What surrounds every request."""

from __future__ import annotations

import asyncio
import logging

import pytest
from starlette.types import Message, Receive, Scope, Send

from moorage.server.app import Guard

SCOPE = {
    "type": "http",
    "method": "GET",
    "path": "/v1/info",
    "headers": [(b"host", b"localhost"), (b"x-request-id", b"r-17")],
}


def test_a_defect_is_logged_under_the_id_of_its_request(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Message] = []

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        raise RuntimeError("a defect")

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    with caplog.at_level(logging.ERROR):
        asyncio.run(Guard(broken, loopback=True)(SCOPE, receive, send))
    [record] = caplog.records
    assert "r-17" in record.getMessage()
    assert "GET /v1/info" in record.getMessage()
    assert record.exc_info is not None
    assert (b"x-request-id", b"r-17") in sent[0]["headers"]
