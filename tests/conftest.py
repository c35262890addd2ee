"""What every suite shares: the rule that CI may not skip what must be proven."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ("mounts", "postgres", "testbed.fixtures")

MUST_RUN = (
    "tests/contract/test_runtimes.py",
    "tests/contract/test_sources.py",
    "tests/contract/test_store_crash.py",
    "tests/contract/test_store_postgres.py",
    "tests/contract/test_store_sqlite.py",
    "tests/contract/test_query_plans.py",
    "tests/sim/",
    "tests/system/agent/",
    "tests/system/buckets/test_flush.py",
    "tests/system/crash/",
    "tests/system/test_api_fuzz.py",
    "tests/system/test_cli",
    "tests/system/test_keeper.py",
    "tests/system/test_keeper_sandbox.py",
    "tests/system/test_server",
)
"""Suites of which no test may be skipped in CI: they carry the guarantees."""

_skipped = pytest.StashKey[list[str]]()
_failed = pytest.StashKey[list[str]]()
_told = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    # Containers often set this. The thousands of servers, agents and commands that tests start
    # would each compile all that they import, and every worker all tests.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # How long an example takes tells how busy the machine is.
    patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("patient", settings(), **patient)
    settings.load_profile("patient")
    config.stash[_skipped], config.stash[_failed] = [], []
    # Not for the runs of pytest that tests start.
    config.stash[_told] = os.environ.pop("MOORAGE_TEST_FAILED", "")
    config.pluginmanager.register(_Recorder(config), "moorage-recorder")


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


class _Recorder:
    """Under xdist only the controller sees all reports, and only it decides."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.config.stash[_skipped].append(report.nodeid)
        if report.failed and report.nodeid not in self.config.stash[_failed]:
            self.config.stash[_failed].append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(self.config, "workerinput"):
            return
        if self._forbidden():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif path := self.config.stash[_told]:
            Path(path).write_text("".join(f"{name}\n" for name in self.config.stash[_failed]))

    def _forbidden(self) -> list[str]:
        if os.environ.get("MOORAGE_TEST_ALONE"):
            return self.config.stash[_skipped]  # a second run of what failed has to prove it
        if not os.environ.get("CI"):
            return []
        return [name for name in self.config.stash[_skipped] if name.startswith(MUST_RUN)]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if forbidden := self._forbidden():
            terminalreporter.section("skipped, but must run")
            for name in forbidden:
                terminalreporter.line(name)
