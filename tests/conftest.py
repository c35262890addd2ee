"""What every suite shares."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ("mounts", "postgres", "recorder", "testbed.fixtures")


def pytest_configure(config: pytest.Config) -> None:
    # Containers often set this. The thousands of servers, agents and commands that tests start
    # would each compile all that they import, and every worker all tests.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # How long an example takes tells how busy the machine is.
    patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("patient", settings(), **patient)
    settings.load_profile("patient")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        ordinary = [item for item in items if item.get_closest_marker("ordinary")]
        config.hook.pytest_deselected(items=ordinary)
        items[:] = [item for item in items if not item.get_closest_marker("ordinary")]
    else:
        reason = pytest.mark.skip(reason="needs root: cgroups and mount namespaces")
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(reason)
