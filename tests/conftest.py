"""What every suite shares: the rule that CI may not skip what must be proven."""

from __future__ import annotations

import os
import sys

import pytest

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


def pytest_configure(config: pytest.Config) -> None:
    # Containers often set this. The thousands of servers, agents and commands that tests start
    # would each compile all that they import, and every worker all tests.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    config.stash[_skipped] = []
    config.pluginmanager.register(_SkipRecorder(config), "moorage-skips")


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


class _SkipRecorder:
    """Under xdist only the controller sees all reports, and only it decides."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.config.stash[_skipped].append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not os.environ.get("CI") or hasattr(self.config, "workerinput"):
            return
        forbidden = [name for name in self.config.stash[_skipped] if name.startswith(MUST_RUN)]
        if forbidden:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        forbidden = [name for name in self.config.stash[_skipped] if name.startswith(MUST_RUN)]
        if os.environ.get("CI") and forbidden:
            terminalreporter.section("skipped, but must run in CI")
            for name in forbidden:
                terminalreporter.line(name)
