"""A node whose lease has ended: what each policy makes of its jobs, and what it gets when back."""

from __future__ import annotations

import pytest

from moorage.core.effects import Emit
from moorage.core.job import Finishing, Prefilled, Queued, Running, Starting
from moorage.core.reactor import on_node_lost
from moorage.ids import JobId, NodeId
from moorage.specs.retry import Retry

NODE = NodeId(1)
FIRST = "1.1.0"


def lose(desk, node=1):
    """The connection goes, and the lease ends."""
    desk.down(node)
    return on_node_lost(desk.cluster, NodeId(node), desk.now, 31.0)


@pytest.fixture
def filled(desk, say):
    """A node that is known for short jobs of this shape has one running and two in line."""
    desk.hello(cpus=1)
    desk.submit(commands=["true"])
    desk.schedule()
    desk.report(say.done("1.1.0"))
    for _ in range(3):
        desk.submit(commands=["true"])
    desk.schedule()
    assert isinstance(desk.job(3).state, Prefilled), desk.job(3).state
    return desk


def test_what_waits_is_not_touched(desk, say):
    desk.started()
    assert say.brief(lose(desk)) == ["upsert_node 1 lost", "! node.lost", "wake"]
    assert isinstance(desk.job().state, Running)
    assert desk.cluster.nodes[NODE].claims, "its room is taken until the node says otherwise"


def test_what_waits_goes_on_when_the_node_is_back(desk, say):
    desk.started()
    lose(desk)
    effects = desk.hello(say.running(FIRST))
    assert say.brief(effects) == ["upsert_node 1 up", "! node.up", "wake"]
    assert isinstance(desk.job().state, Running)


@pytest.mark.parametrize("retry", [None, Retry(duration=1.0, on_events=("error",))])
def test_restart_begins_the_next_attempt_elsewhere_at_once(desk, say, retry):
    desk.started(on_node_loss="restart", retry=retry)
    desk.hello(node="other")
    desk.now += 100_000
    lose(desk)
    state = desk.job().state
    assert isinstance(state, Queued)
    assert (state.attempt, state.not_before) == (2, desk.now)
    assert desk.ring("retry", 1)
    assert say.brief(desk.schedule())[-1] == "-> 2 start 1.2"


@pytest.mark.parametrize(
    ("policy", "state"), [("restart", Queued), ("lost", None), ("wait", None)]
)
def test_a_node_that_was_booted_again_before_its_lease_ended_is_a_loss_too(
    desk, say, policy, state
):
    desk.started(on_node_loss=policy)
    desk.hello(say.done(FIRST, kind="lost"))
    assert (JobId(1) in desk.cluster.jobs) is bool(state)
    assert state is None or isinstance(desk.job().state, state)


def test_restart_has_no_limit(desk, say):
    desk.started(on_node_loss="restart")
    for attempt in range(1, 30):
        lose(desk)
        desk.hello(say.done(f"1.{attempt}.0", kind="node-lost"))
        desk.ring("retry", 1)
        desk.schedule()
        desk.report(say.running(f"1.{attempt + 1}.0"))
    assert isinstance(desk.job().state, Running)


def test_a_retry_that_covers_interruptions_restarts_within_its_window(desk):
    desk.started(retry=Retry())
    lose(desk)
    assert isinstance(desk.job().state, Queued)


def test_a_retry_that_covers_only_errors_waits(desk):
    desk.started(retry=Retry(on_events=("error",)))
    lose(desk)
    assert isinstance(desk.job().state, Running)


def test_wait_that_is_written_out_beats_retry(desk):
    desk.started(on_node_loss="wait", retry=Retry())
    lose(desk)
    assert isinstance(desk.job().state, Running)


@pytest.mark.parametrize("retry", [None, Retry()])
def test_lost_fails_whatever_retry_says(desk, say, retry):
    desk.started(on_node_loss="lost", retry=retry)
    effects = lose(desk)
    assert "update_job 1 failed" in say.brief(effects)
    (ended,) = [e for e in effects if isinstance(e, Emit) and e.kind == "job.ended"]
    assert ended.data["reason"] == "lost"
    assert JobId(1) not in desk.cluster.jobs
    assert not desk.cluster.nodes[NODE].claims


def test_what_is_over_but_for_its_cleaning_is_given_up_too(desk, say):
    desk.started(on_node_loss="restart")
    desk.report(say.finishing(FIRST))
    assert isinstance(desk.job().state, Finishing)
    lose(desk)
    assert isinstance(desk.job().state, Queued)


def test_a_start_that_was_never_answered_is_given_up_too(desk):
    desk.hello()
    desk.submit(commands=["true"], on_node_loss="restart")
    desk.schedule()
    assert isinstance(desk.job().state, Starting)
    lose(desk)
    assert isinstance(desk.job().state, Queued)


def test_a_node_is_lost_once_and_never_while_it_is_connected(desk):
    desk.hello()
    assert on_node_lost(desk.cluster, NODE, desk.now, 31.0) == []
    assert lose(desk)
    assert on_node_lost(desk.cluster, NODE, desk.now, 31.0) == []


def test_who_stands_in_line_goes_back_to_the_queue_and_is_kept_as_an_attempt(filled, say):
    told = say.brief(lose(filled))
    assert told[2:5] == ["update_attempt 3 done", "update_job 3 queued", "! job.retracted"]
    for number in (3, 4):
        state = filled.job(number).state
        assert isinstance(state, Queued)
        assert state.attempt == 2
    assert not filled.cluster.nodes[NODE].lines
    assert isinstance(filled.job(2).state, Starting), "it waits for its node"


def test_who_stood_in_line_and_is_stopped_is_over(filled, say):
    filled.cancel(3)
    assert "update_job 3 cancelled" in say.brief(lose(filled))
    assert JobId(3) not in filled.cluster.jobs


# users give up


def test_a_stop_waits_for_the_node_and_an_abort_gives_up_at_once(desk, say):
    desk.started()
    lose(desk)
    desk.cancel()
    assert desk.job().stopping
    effects = desk.cancel(abort=True)
    assert "update_job 1 cancelled" in say.brief(effects)
    assert not desk.cluster.jobs
    assert not desk.cluster.nodes[NODE].claims


def test_an_abort_of_before_gives_up_when_the_lease_ends(desk, say):
    desk.started()
    desk.cancel(abort=True)
    assert desk.job().stopping
    assert "update_job 1 cancelled" in say.brief(lose(desk))


def test_an_abort_may_be_said_again_once_the_node_is_lost(desk, say):
    desk.started()
    desk.down()
    desk.cancel(abort=True)
    assert desk.cluster.jobs, "the node is not lost yet: it may obey in time"
    assert desk.cancel(abort=True) == []
    on_node_lost(desk.cluster, NODE, desk.now, 31.0)
    assert not desk.cluster.jobs


def test_what_was_aborted_is_not_begun_again(desk):
    desk.started(on_node_loss="restart")
    lose(desk)
    desk.hello(node="other")
    desk.cancel(abort=True)
    assert desk.schedule() == []
    assert not desk.cluster.jobs


# ghosts


def test_what_was_given_up_is_ended_before_the_node_gets_anything(desk, say):
    desk.started(on_node_loss="restart")
    lose(desk)
    desk.ring("retry", 1)
    assert desk.schedule() == [], "a lost node gets nothing"
    effects = say.brief(desk.hello(say.running(FIRST)))
    assert "-> 1 stop 1.1.0 0 abort" in effects
    assert desk.cluster.nodes[NODE].ghosts == {FIRST}
    assert desk.schedule() == []
    effects = say.brief(desk.report(say.done(FIRST, kind="aborted")))
    assert effects == ["wake", "-> 1 ack", "-> 1 forget 1.1.0"]
    assert say.brief(desk.schedule())[-1] == "-> 1 start 1.2"


def test_the_last_ghost_frees_the_node(desk, say):
    for _ in range(2):
        desk.started(on_node_loss="restart")
    lose(desk)
    desk.hello(say.running(FIRST), say.running("2.1.0"))
    for number in (1, 2):
        desk.ring("retry", number)
    assert "wake" not in say.brief(desk.report(say.done(FIRST, kind="aborted")))
    assert desk.schedule() == []
    assert "wake" in say.brief(desk.report(say.done("2.1.0", kind="aborted")))
    told = say.brief(desk.schedule())
    assert [line for line in told if "->" in line] == ["-> 1 start 1.2", "-> 1 start 2.2"]


def test_a_ghost_that_is_over_already_is_none(desk, say):
    desk.started(on_node_loss="restart")
    lose(desk)
    assert "-> 1 forget 1.1.0" in say.brief(desk.hello(say.done(FIRST, kind="node-lost")))
    assert not desk.cluster.nodes[NODE].ghosts


def test_ghosts_are_counted_anew_with_each_hello(desk, say):
    desk.started(on_node_loss="restart")
    lose(desk)
    desk.hello(say.running(FIRST))
    desk.down()
    desk.hello(boot="boot-2")
    assert not desk.cluster.nodes[NODE].ghosts


def test_a_late_report_of_what_was_given_up_changes_nothing_of_the_job(desk, say):
    desk.started(on_node_loss="restart")
    lose(desk)
    desk.hello(say.running(FIRST))
    desk.report(say.finishing(FIRST, 0))
    desk.report(say.done(FIRST, 0))
    assert isinstance(desk.job().state, Queued)
    assert desk.job().state.attempt == 2


# places in the queue


def test_a_retry_that_waits_for_room_is_not_overtaken_by_later_jobs(desk, say):
    desk.hello(cpus=1)
    desk.submit(commands=["true"], on_node_loss="restart")
    desk.schedule()
    desk.report(say.running(FIRST))
    lose(desk)
    for _ in range(3):
        desk.submit(commands=["true"])
    desk.ring("retry", 1)
    assert desk.schedule() == []
    desk.hello(say.done(FIRST, kind="node-lost"), cpus=1)
    started = [line for line in say.brief(desk.schedule()) if "-> 1 start" in line]
    assert started == ["-> 1 start 1.2"], "and the later ones wait"


def test_a_retry_of_an_error_keeps_its_place_before_those_in_line(desk, say):
    """Once its delay is over; while that lasts, others may use the room."""
    desk.hello(cpus=1)
    desk.submit(commands=["true"], retry=Retry())
    desk.schedule()
    desk.report(say.done(FIRST, 1))
    desk.submit(commands=["true"])
    desk.schedule()
    for _ in range(8):
        desk.submit(commands=["true"])
    desk.ring("retry", 1)
    desk.schedule()
    order, number = [], 2
    for _ in range(5):
        desk.report(say.done(f"{number}.{desk.job(number).state.attempt}.0"))
        desk.schedule()
        begun = [j for j in desk.cluster.jobs.values() if isinstance(j.state, Starting)]
        assert len(begun) == 1, begun
        number = begun[0].id
        order.append(number)
    assert order[0] == 1, order
    assert order == sorted(order)
