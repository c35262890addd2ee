"""Jobs sent ahead: in line, taken over, given back, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.agent import attempts as module
from moorage.agent.attempts import Attempts
from moorage.agent.claims import Claim, Claims
from moorage.agent.lines import Lines
from moorage.agent.stage import Node
from moorage.protocol.agent import Held, Launch, Outcome


def launch(job: int, line: str = "one") -> Launch:
    fields: dict[str, Any] = {"run": 1, "run_name": "r", "user": "u", "index": 0, "attempt": 1}
    return Launch(job=job, commands=["true"], line=line, **fields)


def test_a_line_is_served_in_its_order_and_each_by_itself() -> None:
    lines = Lines()
    for job, line in ((3, "one"), (1, "one"), (2, "two"), (3, "one")):
        lines.join(launch(job, line))
    assert [held.key for held in lines.held()] == ["3.1.0", "1.1.0", "2.1.0"]
    assert lines.leave("3.1.0")
    assert not lines.leave("3.1.0")
    first = lines.first("one")
    assert first is not None
    assert first.job == 1
    assert lines.first("one") is None
    assert lines.first("three") is None
    assert [held.key for held in lines.held()] == ["2.1.0"]


class _Attempt:
    """Walks until the test says that it is done."""

    fenced = False

    def __init__(self, claim: Claim, node: Node, ended: Any) -> None:
        self.claim, self.node, self.ended = claim, node, ended
        self.over = asyncio.Event()

    async def walk(self) -> None:
        await self.over.wait()
        self.claim.finish(Outcome("exited", exit_code=0))
        self.node.changed(self.claim.key, True)
        self.ended(self.claim)

    async def resume(self, running: bool) -> None:
        await self.walk()

    def let_go(self) -> None: ...


class Bench:
    """Attempts over a real claims directory. `said`: what was told since the last look."""

    def __init__(self, root: Path) -> None:
        self.claims = Claims(root)
        self.left = self.claims.read()
        self.said: list[str] = []
        self.hurried = 0
        logs: Any = type("Logs", (), {"open": staticmethod(lambda key: None)})
        none: Any = None
        node = Node(none, logs, none, none, lambda key, urgent: self.said.append(key))
        self.attempts = Attempts(self.claims, node, self._tell, self._hurry)

    def _tell(self, held: Held) -> None:
        kind = held.outcome.kind if held.outcome else ""
        self.said.append(f"{held.key} {held.state} {kind}".rstrip())

    def _hurry(self) -> None:
        self.hurried += 1

    def news(self) -> list[str]:
        said, self.said = self.said, []
        return said

    def states(self) -> dict[str, str]:
        return {held.key: held.state for held in self.attempts.all_held()}

    async def end(self, key: str) -> None:
        """The attempt comes to its end: all that follows from it happens in one step."""
        live: Any = self.attempts._live[key]
        live.over.set()
        await self.attempts._tasks[key]
        await asyncio.sleep(0)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(module, "Attempt", _Attempt)

    def make() -> Bench:
        return Bench(tmp_path / "attempts")

    return make


def run(scenario: Any) -> None:
    asyncio.run(scenario)


def test_a_place_is_taken_over_in_the_step_that_tells_of_the_end(bench: Any) -> None:
    async def scenario() -> None:
        b = bench()
        b.attempts.start(launch(1))
        for job in (2, 3, 4, 5):
            b.attempts.start(launch(job), wait=True)
        assert b.news() == []
        assert not (b.claims.root / "2.1.0").exists()
        await b.end("1.1.0")
        assert b.news() == ["1.1.0", "2.1.0"]
        assert b.hurried == 0
        assert b.states() == {
            "1.1.0": "done",
            "2.1.0": "staging",
            **dict.fromkeys(("3.1.0", "4.1.0", "5.1.0"), "waiting"),
        }
        await b.end("2.1.0")
        assert b.hurried == 1  # two are left
        await b.attempts.leave()

    run(scenario())


def test_another_line_and_no_line_hand_nothing_over(bench: Any) -> None:
    async def scenario() -> None:
        b = bench()
        b.attempts.start(launch(1, line=""))
        b.attempts.start(launch(2, line="two"))
        b.attempts.start(launch(3), wait=True)
        await b.end("1.1.0")
        await b.end("2.1.0")
        assert b.news() == ["1.1.0", "2.1.0"]
        assert b.states()["3.1.0"] == "waiting"
        await b.attempts.leave()

    run(scenario())


def test_what_is_in_line_is_given_back_and_what_began_is_not(bench: Any) -> None:
    async def scenario() -> None:
        b = bench()
        b.attempts.start(launch(1))
        b.attempts.start(launch(2), wait=True)
        b.attempts.retract(["1.1.0", "2.1.0", "9.1.0"])
        assert b.news() == ["1.1.0", "2.1.0 retracted", "9.1.0 retracted"]
        await b.end("1.1.0")
        assert b.news() == ["1.1.0"]
        assert b.states() == {"1.1.0": "done"}

    run(scenario())


def test_a_retraction_that_comes_after_the_turn_changes_nothing(bench: Any) -> None:
    async def scenario() -> None:
        b = bench()
        b.attempts.start(launch(1))
        b.attempts.start(launch(2), wait=True)
        await b.end("1.1.0")
        b.news()
        b.attempts.retract(["2.1.0"])
        assert b.news() == ["2.1.0"]
        assert b.states()["2.1.0"] == "staging"
        await b.attempts.leave()

    run(scenario())


def test_a_start_now_takes_it_out_of_the_line_and_repeats_run_nothing_twice(bench: Any) -> None:
    async def scenario() -> None:
        b = bench()
        b.attempts.start(launch(1))
        b.attempts.start(launch(2), wait=True)
        b.attempts.start(launch(2))
        assert b.states() == {"1.1.0": "staging", "2.1.0": "staging"}
        b.attempts.start(launch(2))
        b.attempts.start(launch(2), wait=True)
        assert b.news() == ["2.1.0", "2.1.0"]
        await b.end("1.1.0")
        assert b.news() == ["1.1.0"]
        assert len(b.attempts._live) == 1
        await b.attempts.leave()

    run(scenario())


@pytest.mark.parametrize(("abort", "kind"), [(False, "stopped"), (True, "aborted")])
def test_a_stop_in_line_is_its_end(bench: Any, abort: bool, kind: str) -> None:
    async def scenario() -> None:
        b = bench()
        b.attempts.start(launch(1))
        b.attempts.start(launch(2), wait=True)
        b.attempts.stop("2.1.0", 5, abort)
        assert b.news() == [f"2.1.0 done {kind}"]
        b.attempts.forget(["2.1.0"])
        await b.end("1.1.0")
        assert b.news() == ["1.1.0"]
        assert not (b.claims.root / "2.1.0").exists()

    run(scenario())


def test_a_new_agent_has_no_line_and_hands_over_places_of_what_it_picked_up(bench: Any) -> None:
    async def scenario() -> None:
        b = bench()
        b.attempts.start(launch(1))
        b.attempts.start(launch(2), wait=True)
        await b.attempts.leave()
        again = bench()
        again.attempts.recover(again.left, {})
        assert again.states() == {"1.1.0": "staging"}
        again.attempts.start(launch(2), wait=True)
        await again.end("1.1.0")
        assert again.news() == ["1.1.0", "2.1.0"]
        await again.attempts.leave()

    run(scenario())


def test_a_claim_that_the_disk_refuses_lets_the_next_one_have_the_place(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        b = bench()
        b.attempts.start(launch(1))
        for job in (2, 3):
            b.attempts.start(launch(job), wait=True)
        take = b.claims.take

        def refuses(wanted: Launch) -> Claim | None:
            if wanted.job == 2:
                raise OSError(28, "No space left on device")
            return take(wanted)

        monkeypatch.setattr(b.claims, "take", refuses)
        await b.end("1.1.0")
        assert b.news() == ["1.1.0", "2.1.0 done phase-failed", "3.1.0"]
        await b.attempts.leave()

    run(scenario())


def test_what_was_told_to_be_over_does_not_begin_when_a_start_was_on_its_way(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server gave it a place before it heard that the disk had refused the claim."""

    async def scenario() -> None:
        b = bench()
        with monkeypatch.context() as full:
            full.setattr(b.claims, "take", refuse)
            b.attempts.start(launch(2))
        b.attempts.start(launch(2))
        b.attempts.start(launch(2), wait=True)
        assert b.news() == ["2.1.0 done phase-failed"] * 3
        assert b.states() == {}  # a Hello
        b.attempts.start(launch(2))
        assert b.states() == {"2.1.0": "staging"}
        await b.attempts.leave()

    def refuse(wanted: Launch) -> Claim | None:
        raise OSError(28, "No space left on device")

    run(scenario())
