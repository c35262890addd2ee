from __future__ import annotations

import pytest

from moorage.cli.fleets import complain, describe_plan, jobs_of, lacks
from moorage.cli.render import Style
from moorage.protocol.fleets import FleetPlan, FleetView, HostChange, HostView
from moorage.specs.fleet import Fleet, Host

PLAIN = Style(colours=False, width=None)


def fleet(*hosts: HostView) -> FleetView:
    spec = Fleet(name="lab", hosts=(Host(hostname="10.0.0.1"),))
    return FleetView("lab", "active", 1.0, 2.0, spec, list(hosts))


def test_a_host_that_cannot_be_removed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    leaving = HostView("lab-1", 1, "10.0.0.2", "leaving", 1.0, "no route to host", stuck=True)
    assert complain(fleet(HostView("lab-0", 0, "10.0.0.1", "ready", 1.0), leaving)) == 0
    assert capsys.readouterr().err == (
        "moorage: note: lab-1 (10.0.0.2) is not removed yet: no route to host; tried again\n"
    )


def test_jobs_are_counted_in_words() -> None:
    plan = FleetPlan("lab", False, [HostChange("remove", "lab-1", "10.0.0.2", jobs=1)])
    assert (
        describe_plan(plan, PLAIN)[1] == "hosts     10.0.0.2 as lab-1: drain, remove after 1 job"
    )
    assert jobs_of(2) == "2 jobs"


def test_hosts_with_the_same_lack_are_told_together() -> None:
    facts = {"cannot": [{"what": "supervision", "why": "no systemd there", "fix": "none needed"}]}
    hosts = [HostView(f"lab-{n}", n, f"h{n}", "ready", 1.0, facts=facts) for n in range(2)]
    assert lacks(fleet(*hosts)) == [
        "lab-0, lab-1 without supervision: no systemd there; none needed"
    ]
