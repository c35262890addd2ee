from __future__ import annotations

from pathlib import Path

from moorage.cli.prepare import Prepared
from moorage.cli.preview import Considered, describe
from moorage.cli.render import Style
from moorage.protocol.api import RunRequest
from moorage.protocol.plans import PlanNode, RunPlan
from moorage.specs.task import Task

PIPE = Style(colours=False, width=None)


def lines(ranks: int, *fits: bool, not_asked: list[str] | None = None) -> list[str]:
    task = Task(commands=["true"], nodes=ranks)
    nodes = [PlanNode(f"n{at}", fit, free_now=fit) for at, fit in enumerate(fits)]
    plan = RunPlan(None, nodes, not_asked=not_asked or [])
    return describe(Considered(Prepared(task, Path()), RunRequest(task), plan, []), PIPE)[2:]


def test_a_run_on_several_nodes_says_how_many_of_them_it_takes():
    assert lines(2, True, True, True) == [
        "runs on   takes 2 of these 3 nodes, of one fleet:",
        "            n0: free now",
        "            n1: free now",
        "            n2: free now",
    ]
    assert lines(2, True, True)[0] == "runs on   takes all 2 of these nodes:"
    few = "runs on   takes 2 nodes of one fleet, and only 1 of these can run a part:"
    assert lines(2, True, False)[0] == few
    assert lines(2) == []
    assert lines(1, True, True) == ["runs on   n0: free now", "          n1: free now"]


def test_a_node_that_takes_no_new_jobs_is_not_said_to_fall_free():
    nodes = [PlanNode("n0", True, False), PlanNode("n1", True, False, closed="draining")]
    task = Task(commands=["true"])
    considered = Considered(Prepared(task, Path()), RunRequest(task), RunPlan(None, nodes), [])
    assert describe(considered, PIPE)[2:] == [
        "runs on   n0: when it is free",
        "          n1: takes no new jobs now: draining",
    ]


def test_nodes_that_said_nothing_are_named():
    away = [f"n{at}, which is lost" for at in range(7)]
    told = lines(1, True, not_asked=away)[1]
    assert told == f"not asked {'; '.join(away[:5])} and 2 more"


def test_the_command_is_shown_and_not_the_shell_around_the_set_up():
    task = Task(commands=["( # setup\npip list\n)", "python a.py\n"])
    told = describe(
        Considered(Prepared(task, Path()), RunRequest(task), RunPlan(None, []), []), PIPE
    )
    assert told[1] == "command   pip list ... (1 more)"
