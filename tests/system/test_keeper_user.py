"""Tests of what differs for an ordinary user, as one, when root runs them: user namespaces instead
of root's mounts, descent instead of control groups, permissions that hold."""

from __future__ import annotations

import pytest

from system.user_harness import User, place

UID = 1234


@pytest.mark.root
@pytest.mark.parametrize(
    "name",
    [
        "system/test_keeper.py",
        "system/test_keeper_sandbox.py",
        "unit/data/test_blobs.py",
        "contract/test_runtimes.py",
        # What differs most; podman takes seconds for each of the others.
        "contract/test_engines.py -k rootless",
    ],
)
def test_as_an_ordinary_user(name: str) -> None:
    with place() as directory:
        user = User(UID, directory)
        base = f"--basetemp={user.home}/base"
        words = f"tests/{name}".split()
        code, out, err = user.run(user.python, "-m", "pytest", base, *words)
    assert code == 0, out + err
