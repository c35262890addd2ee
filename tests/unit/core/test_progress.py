from __future__ import annotations

from moorage.core.progress import newer
from moorage.protocol.agent import Held, Outcome, Phase

FETCHING = Held("1.1.0", "staging", [Phase("claim", 0.0, 1.0), Phase("fetch", 1.0)])


def test_what_was_known_already_is_no_news() -> None:
    assert newer(FETCHING, None)
    assert not newer(FETCHING, FETCHING)
    running = Held("1.1.0", "running", [*FETCHING.phases])
    assert newer(running, FETCHING)
    assert not newer(FETCHING, running)
    assert not newer(Held("1.1.0", "waiting", []), None)


def test_words_about_a_phase_under_way_are_news() -> None:
    told = Held("1.1.0", "staging", [FETCHING.phases[0], Phase("fetch", 1.0, None, "3 of 9 GB")])
    assert newer(told, FETCHING)
    assert not newer(told, told)


def test_nothing_said_of_what_has_ended_is() -> None:
    ended = [Phase("claim", 0.0, 1.0), Phase("fetch", 1.0, 2.0, "9 GB fetched")]
    other = [Phase("claim", 0.0, 1.0), Phase("fetch", 1.0, 2.0, "changed")]
    done = Outcome("exited", exit_code=0)
    assert not newer(Held("1.1.0", "done", other, done), Held("1.1.0", "done", ended, done))
