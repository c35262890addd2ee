"""The way back of an attempt, where a part of the node breaks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from moorage.agent import removal
from moorage.agent.claims import Claims
from moorage.agent.output.logs import Logs
from moorage.agent.stage import Attempt, Node
from moorage.agent.supply import Supply
from moorage.agent.upkeep import Processes
from moorage.data.sources import Sources
from moorage.protocol.agent import Isolation, Launch, Outcome


def test_an_undo_that_breaks_does_not_keep_an_attempt_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(paths: Any) -> list[str]:
        raise RuntimeError("too many open files")

    async def main() -> None:
        logs = Logs(tmp_path / "logs", asyncio.get_running_loop(), 0)
        supply = Supply(Sources(tmp_path, lambda digests: iter(())))
        changed: list[str] = []
        node = Node(
            Processes(tmp_path), logs, supply, Isolation(), lambda key, _: changed.append(key)
        )
        claims = Claims(tmp_path / "attempts")
        claims.read()
        claim = claims.take(
            Launch(run=1, run_name="r", user="u", job=1, index=0, attempt=1, commands=["true"])
        )
        assert claim is not None
        claim.decide(Outcome("stopped"))
        await Attempt(claim, node, lambda _: None).resume(False)
        assert claim.state == "done"
        assert claim.phases[-1].detail == "too many open files"
        assert changed
        logs.close()

    monkeypatch.setattr(removal, "remove", breaks)
    asyncio.run(main())
