from __future__ import annotations

import msgspec

from moorage.cli.node import describe as describe_node
from moorage.cli.outcome import exit_code, sentence, why
from moorage.cli.render import Style
from moorage.cli.show import describe
from moorage.cli.timeline import BAR, timeline
from moorage.protocol import api
from moorage.protocol.agent import (
    GpuDevice,
    Isolation,
    NodeResources,
    Outcome,
    Phase,
    Usage,
)
from moorage.specs.task import Task

PIPE = Style(colours=False, width=None)


def view(state: str = "failed", outcome: Outcome | None = None, **fields: object) -> api.RunView:
    summary = api.RunSummary(
        id=1, name="n", user="u", state=state, submitted_at=0.0, started_at=1.0, ended_at=4.0
    )
    attempt = api.AttemptView(
        1,
        "vm",
        "done",
        0.5,
        phases=[Phase("claim", 0.5, 1.0), Phase("run", 1.0, 4.0, "x")],
        outcome=outcome,
        usage=Usage(1.5, 2048),
    )
    job = api.JobView(id=1, index=0, state=state, attempts=[attempt], **fields)
    return api.RunView(summary, Task(commands=["true"], env={"TOKEN": "secret"}), [job])


def test_contact_that_was_lost_is_told_with_its_moment():
    away = api.Away("lab-0", "down", 100.0)
    shown = view("running", waits_for="node lab-0, which is down", away=away)
    summary = msgspec.structs.replace(shown.summary, away=away)
    shown = msgspec.structs.replace(shown, summary=summary)
    lines = describe(shown, PIPE, 140.0)
    [state] = [line for line in lines if line.startswith("state")]
    assert state.startswith("state     running (no contact): no contact with lab-0 since ")
    assert state.endswith(" (40s ago)")
    assert not any(line.startswith("waits for") for line in lines)
    several = msgspec.structs.replace(shown, jobs=[*shown.jobs, *shown.jobs])
    assert "job 0 running (no contact)" in describe(several, PIPE, 140.0)


def test_the_exit_code_is_the_job_s_then_the_signal_s_then_1():
    assert exit_code(view("succeeded", Outcome("exited", 0))) == 0
    assert exit_code(view(outcome=Outcome("exited", 7), exit_code=7)) == 7
    assert exit_code(view(outcome=Outcome("signaled", signal=9))) == 137
    assert exit_code(view(outcome=Outcome("timeout"))) == 1
    assert exit_code(view("cancelled")) == 1


def test_reason_and_message_do_not_repeat_each_other():
    assert why("timeout", "after 3s") == "timeout: after 3s"
    assert why("timeout", "Timeout after 3s") == "Timeout after 3s"
    assert (why("", "x"), why("x", ""), why("", "")) == ("x", "x", "")


def test_a_sentence_tells_how_a_run_ended():
    assert sentence(view("succeeded")) == "run n (1) succeeded after 3.0s"


def test_the_page_has_the_attempt_and_hides_values_of_variables():
    page = "\n".join(describe(view(outcome=Outcome("signaled", signal=9)), PIPE, 10.0))
    assert "attempt 1 on vm, 9s ago: signaled by signal 9; 1.5s of CPU" in page
    assert "TOKEN" in page
    assert "secret" not in page


def test_a_file_is_shown_as_it_was_written():
    written = api.RunView(view().summary, Task(), [], "type: task\n# why\n", "dstack")
    assert describe(written, PIPE, 1.0)[-3:] == ["file (dstack)", "  type: task", "  # why"]


def test_what_a_queued_job_waits_for_is_said():
    queued = api.RunView(
        api.RunSummary(1, "n", "u", "queued", 0.0),
        Task(),
        [api.JobView(1, 0, "queued", waits_for="2 CPUs")],
    )
    assert "waits for 2 CPUs" in describe(queued, PIPE, 1.0)


def test_bars_lie_where_their_time_lies():
    lines = timeline([Phase("fetch", 0.0, 5.0), Phase("run", 5.0, 10.0, "d")], PIPE, 99.0)
    first, second = [line.split("s  ", 1)[1] for line in lines]
    half = BAR // 2
    assert first.rstrip() == first[0] * half
    assert second.startswith(" " * half + first[0] * half)
    assert second.endswith("  d")


def test_several_details_have_a_line_each():
    lines = timeline([Phase("fetch", 0.0, 5.0, "src: 1 file; x: 2 files")], PIPE, 99.0)
    assert [line.strip() for line in lines[1:]] == ["src: 1 file", "x: 2 files"]


def test_what_a_phase_says_is_not_said_again():
    failed = view(outcome=Outcome("phase-failed", message="no such branch"))
    [attempt] = failed.jobs[0].attempts
    assert "  no such branch" in describe(failed, PIPE, 9.0)
    attempt.phases[0] = Phase("fetch", 0.5, 1.0, "no such branch")
    assert "  no such branch" not in describe(failed, PIPE, 9.0)


def test_a_phase_too_short_to_see_has_a_mark_and_one_that_lasts_has_dots():
    lines = timeline([Phase("claim", 0.0, 0.0), Phase("run", 0.0, None)], PIPE, 10.0)
    assert len(lines[0].split()) == 3
    assert lines[1].endswith("...")
    assert timeline([], PIPE, 1.0) == []


def test_a_node_says_what_keeps_its_jobs_apart_and_what_does_not():
    gpu = GpuDevice(0, "nvidia", "H100", 80 * 1024**3)
    full = api.NodeView(
        1, "vm", "up", NodeResources(2, "x86", 1, 1, [gpu]), Isolation(user="u"), "0.1"
    )
    assert "isolation limits and private mounts are in force" in describe_node(full, 1.0)
    assert any("H100, 80 GB" in line for line in describe_node(full, 1.0))
    partial = api.NodeView(
        1, "vm", "down", NodeResources(2, "x86", 1, 1), Isolation("not root"), "0.1", last_seen=0.0
    )
    lines = describe_node(partial, 120.0)
    assert lines[-2:] == [
        "isolation private mounts are in force",
        "isolation without limits (cgroup): not root",
    ]
    assert "last seen 2m ago" in lines[1]
