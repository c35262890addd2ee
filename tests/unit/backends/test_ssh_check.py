import sys
from typing import Any

import msgspec
import pytest

from moorage.backends.ssh.check import ROOM, WANTED, clock, facts
from moorage.backends.ssh.install import refuse
from moorage.backends.ssh.interface import Bundle, HostFacts, HostProblem
from moorage.backends.ssh.onhost import check

OURS = Bundle("d" * 32, __file__, 1, tuple(sys.version_info[:2]), "x86_64", (2, 34))  # type: ignore[arg-type]


def found(**other: Any) -> dict[str, Any]:
    """What the program answers on a host where all is well."""
    well = {
        "hostname": "n1",
        "user": "root",
        "privilege": "root",
        "os": "Debian",
        "kernel": "6.1",
        "arch": "x86_64",
        "libc": "glibc 2.36",
        "pythons": [{"path": "/usr/bin/python3", "version": list(sys.version_info[:2])}],
        "python": "/usr/bin/python3",
        "directory": "/var/lib/moorage/s",
        "disk_free": 10 * ROOM,
        "memory": 1 << 30,
        "cpus": 4,
        "addresses": ["10.0.0.1"],
        "time": [100.0, 100.1],
        "cgroups": "v2",
        "cgroups_writable": True,
        "mount_namespaces": True,
        "init": "system",
        "engines": {"podman": "4.3.1"},
        "gpu_tools": [],
        "gpus": False,
        "reaches": [],
        "installed": "",
        "running": "",
    }
    return {**well, **other}


def known(**other: Any) -> HostFacts:
    return facts(found(**other), 100.0, 100.1)


def test_a_good_host_lacks_nothing():
    good = known()
    assert good.cannot == ()
    assert good.refusal() is None
    refuse(good, OURS)


@pytest.mark.parametrize(
    ("other", "what", "words"),
    [
        ({"python": ""}, "agent", f"needs Python {WANTED}"),
        ({"disk_free": 1 << 20}, "agent", "has 1 MiB free"),
        ({"privilege": "", "user": "ada"}, "root", "jobs run as ada"),
        ({"cgroups_writable": False}, "cgroups", "do not hold"),
        ({"cgroups": ""}, "cgroups", "do not hold"),
        ({"mount_namespaces": False}, "mounts", "share /tmp"),
        ({"init": ""}, "supervision", "after a reboot"),
        ({"engines": {}}, "containers", "no container engine"),
        ({"gpus": True}, "gpus", "no vendor's tool"),
        ({"time": [90.0, 90.1]}, "clock", "10.0 s behind"),
        ({"time": [110.0, 110.1]}, "clock", "10.0 s ahead"),
    ],
)
def test_what_a_host_lacks_has_a_reason_and_a_fix(other, what, words):
    (lack,) = known(**other).cannot
    assert lack.what == what
    assert words in lack.why
    assert lack.fix


def test_a_slow_way_is_not_taken_for_a_wrong_clock():
    offset, error = clock(100.0, 120.0, 115.0, 115.1)
    assert offset == pytest.approx(5.05)
    assert error == pytest.approx(9.95)
    assert facts(found(time=[115.0, 115.1]), 100.0, 120.0).cannot == ()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"python": ""}, f"needs Python {WANTED}"),
        ({"arch": "aarch64"}, "the host is aarch64"),
        ({"libc": "glibc 2.17"}, "need glibc 2.34, the host has glibc 2.17"),
        ({"libc": "musl"}, "the host has musl"),
        ({"libc": ""}, "an unknown libc"),
    ],
)
def test_a_host_on_which_the_bundle_would_not_run_is_refused(other, words):
    with pytest.raises(HostProblem, match=words):
        refuse(known(**other), OURS)


def test_facts_survive_a_column_of_json():
    good = known()
    assert msgspec.json.decode(msgspec.json.encode(good), type=HostFacts) == good


def test_this_machine_can_be_looked_at():
    answer = check.main(
        {"server": "no-such-server", "urls": [], "python": list(sys.version_info[:2])},
        sys.stdin.buffer,
    )
    seen = facts(answer, answer["time"][0], answer["time"][1])
    assert seen.cpus > 0
    assert seen.memory > 0
    assert (seen.installed, seen.running) == ("", "")
