from __future__ import annotations

import pytest

from moorage.core.explain import explain
from moorage.core.job import Prefilled, Queued, Running, Starting
from moorage.core.reactor.lines import SHORTEST
from moorage.core.shape import shape_of
from moorage.specs.resources import Cpu, Gpu, Range, Resources
from moorage.specs.task import Task


def cpus(count: float) -> Resources:
    return Resources(cpu=Cpu(Range(min=count)))


@pytest.fixture
def full(desk, say):
    """One node with one place: job 1 has run there, 2 runs, the following wait."""

    def make(*tasks: Task, **first):
        desk.hello(cpus=1)
        desk.submit(Task(), Task(), *tasks)
        desk.schedule()
        desk.report(say.done("1.1.0"))
        effects = desk.schedule()
        desk.report(say.running("2.1.0"))
        return effects

    return make


def lined(desk, *numbers: int) -> bool:
    return all(isinstance(desk.job(n).state, Prefilled) for n in numbers)


def test_more_than_there_is_room_for_is_sent_ahead(desk, say, full):
    effects = full(*[Task()] * 6)
    assert say.brief(effects) == [
        "insert_attempt 2 assigned",
        "update_job 2 starting",
        "update_run 2 starting",
        "! job.starting",
        "-> 1 start 2.1",
        *(
            line
            for n in range(3, 3 + SHORTEST)
            for line in (f"insert_attempt {n} prefilled", f"-> 1 wait {n}.1")
        ),
    ]
    assert isinstance(desk.job(3 + SHORTEST).state, Queued)
    assert desk.cluster.nodes[1].used_millicpus == 1000
    assert desk.cluster.runs[3].state == "queued"
    assert explain(desk.cluster, desk.job(3), 0) == "its turn: it is in line on node box"
    assert desk.schedule() == []


def test_no_line_before_a_short_job_ended_there(desk):
    desk.hello(cpus=1)
    desk.submit(*[Task()] * 3)
    desk.schedule()
    assert isinstance(desk.job(2).state, Queued)


def test_no_line_after_a_long_job(desk, say):
    desk.hello(cpus=1)
    desk.submit(*[Task()] * 3)
    desk.schedule()
    held = say.done("1.1.0")
    run = held.phases[1]
    long = type(run)("run", run.began, run.began + 60)
    desk.report(type(held)(held.key, "done", [held.phases[0], long], held.outcome))
    desk.schedule()
    assert isinstance(desk.job(3).state, Queued)


def test_a_place_goes_to_the_next_in_one_report(desk, say, full):
    full(Task(), Task())
    effects = desk.report(say.staging("3.1.0"), say.done("2.1.0"))
    assert say.brief(effects) == [
        "update_attempt 2 done",
        "! job.finishing",
        "update_job 2 succeeded",
        "! job.ended",
        "update_run 2 succeeded",
        "! run.ended",
        "wake",
        "update_attempt 3 staging",
        "update_job 3 starting",
        "update_run 3 starting",
        "! job.starting",
        "-> 1 ack",
        "-> 1 forget 2.1.0",
    ]
    node = desk.cluster.nodes[1]
    assert (node.used_millicpus, set(node.claims)) == (1000, {3})
    assert desk.cluster.runs[3].node == "box"
    desk.report(say.running("3.1.0"))
    assert isinstance(desk.job(3).state, Running)


def test_room_that_fell_free_before_it_came_is_given_by_the_server(desk, say, full):
    full(Task(), Task())
    desk.report(say.done("2.1.0"))
    effects = desk.schedule()
    assert say.brief(effects) == [
        "assign_attempt 3",
        "update_job 3 starting",
        "update_run 3 starting",
        "! job.starting",
        "-> 1 start 3.1",
    ]
    # Meanwhile its turn came in line as well: it is known to have begun, once.
    assert say.brief(desk.report(say.staging("3.1.0"))) == ["update_attempt 3 staging", "-> 1 ack"]
    assert desk.cluster.nodes[1].used_millicpus == 1000


def test_room_elsewhere_takes_back_the_last(desk, say, full):
    full(Task(), Task())
    desk.hello(node="rack", cpus=1)
    assert say.brief(desk.schedule()) == ["-> 1 retract 4.1.0"]
    assert desk.schedule() == []
    effects = desk.report(say.retracted("4.1.0"))
    assert say.brief(effects) == [
        "delete_attempt 4",
        "update_job 4 queued",
        "! job.retracted",
        "wake",
        "-> 1 ack",
    ]
    assert desk.job(4).state == Queued(2)
    assert say.brief(desk.schedule())[-1] == "-> 2 start 4.2"
    # It comes twice, and late: nothing.
    assert say.brief(desk.report(say.retracted("4.1.0"))) == ["-> 1 ack"]
    assert isinstance(desk.job(4).state, Starting)


def test_one_that_began_is_not_given_back(desk, say, full):
    full(Task(), Task())
    desk.hello(node="rack", cpus=1)
    desk.schedule()
    desk.report(say.done("2.1.0"), say.staging("4.1.0"))
    assert isinstance(desk.job(4).state, Starting)
    assert say.brief(desk.report(say.staging("4.1.0"))) == ["-> 1 ack"]


def test_a_higher_priority_takes_back_all_that_is_lower(desk, say, full):
    full(Task(), Task())
    desk.submit(Task(priority=5, resources=cpus(0.5)))
    assert say.brief(desk.schedule()) == ["-> 1 retract 3.1.0 4.1.0"]
    desk.report(say.retracted("3.1.0"), say.retracted("4.1.0"), say.done("2.1.0"))
    effects = desk.schedule()
    assert [line for line in say.brief(effects) if "->" in line] == ["-> 1 start 5.1"]


def test_nobody_overtakes_another_shape_that_waits(desk, full):
    full(Task(resources=cpus(0.5)), Task())
    assert not lined(desk, 3, 4)


def test_gpus_never_wait_in_line():
    assert shape_of(cpus(1)).line
    assert not shape_of(Resources(gpu=Gpu(count=Range(1, 1)))).line


@pytest.mark.parametrize("word", ["retracted", "done"])
def test_a_stop_in_line_ends_it_and_nothing_ran(desk, say, full, word):
    full(Task())
    assert say.brief(desk.cancel(3)) == [
        "! run.stopping",
        "update_job 3 queued",
        "-> 1 stop 3.1.0 300.0",
        "update_run 3 queued",
    ]
    held = say.retracted("3.1.0") if word == "retracted" else say.unbegun("3.1.0")
    effects = say.brief(desk.report(held))
    assert effects[:5] == [
        "delete_attempt 3",
        "update_job 3 cancelled",
        "! job.ended",
        "update_run 3 cancelled",
        "! run.ended",
    ]
    assert set(effects[5:]) <= {"-> 1 ack", "-> 1 forget 3.1.0"}
    assert set(desk.cluster.nodes[1].claims) == {2}
    assert not desk.cluster.lines


def test_a_stop_that_came_too_late_for_the_line(desk, say, full):
    full(Task())
    desk.cancel(3)
    desk.report(say.done("2.1.0"), say.running("3.1.0"))
    assert isinstance(desk.job(3).state, Running)
    desk.report(say.done("3.1.0", kind="stopped"))
    assert 3 not in desk.cluster.jobs


def test_after_a_break_the_line_is_as_both_say(desk, say, full):
    full(Task(), Task())
    desk.down()
    effects = desk.hello(say.running("2.1.0"), say.in_line("3.1.0"), cpus=1)
    assert say.brief(effects) == ["upsert_node 1 up", "! node.up", "-> 1 wait 4.1", "wake"]
    assert lined(desk, 3, 4)


def test_after_a_break_stops_and_retractions_are_repeated_or_done(desk, say, full):
    full(Task(), Task(), Task())
    desk.hello(node="rack", cpus=2)
    desk.cancel(3)
    assert say.brief(desk.schedule()) == ["-> 1 retract 5.1.0 4.1.0"]
    desk.down()
    effects = desk.hello(say.running("2.1.0"), say.in_line("3.1.0"), say.in_line("5.1.0"), cpus=1)
    assert say.brief(effects) == [
        "upsert_node 1 up",
        "! node.up",
        "-> 1 stop 3.1.0 300.0",
        "delete_attempt 4",
        "update_job 4 queued",
        "! job.retracted",
        "wake",
        "-> 1 retract 5.1.0",
        "wake",
    ]
    desk.down()
    desk.hello(say.running("2.1.0"), cpus=1)
    assert 3 not in desk.cluster.jobs
    assert desk.job(5).state == Queued(2)


def test_a_turn_that_came_while_the_server_was_away(desk, say, full):
    full(Task(), Task())
    desk.down()
    desk.hello(say.running("4.1.0"), say.done("2.1.0"), say.done("3.1.0"), cpus=1)
    assert set(desk.cluster.jobs) == {4}
    assert desk.cluster.nodes[1].used_millicpus == 1000


def test_after_a_reboot_those_in_line_are_queued_again(desk, say, full):
    full(Task())
    desk.down()
    effects = desk.hello(say.done("2.1.0", kind="lost"), cpus=1, boot="boot-2")
    assert "update_job 3 queued" in say.brief(effects)
    assert desk.job(3).state == Queued(2)


def test_one_in_line_on_a_node_that_is_away_says_so(desk, full):
    full(Task())
    desk.down()
    assert explain(desk.cluster, desk.job(3), 0).endswith("node box, which is not connected")
    assert desk.schedule() == []


def test_a_claim_that_the_disk_refuses_is_a_failure(desk, say, full):
    full(Task())
    held = say.unbegun("3.1.0", "phase-failed")
    effects = say.brief(desk.report(say.done("2.1.0"), held))
    assert "update_job 3 failed" in effects
    assert desk.cluster.nodes[1].used_millicpus == 0
