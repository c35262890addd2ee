"""Rules of a whole run: what must be proven may not be skipped in CI, and what failed is told to
`scripts/test.sh`, which runs a little of it once more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config), "moorage-recorder")


class Recorder:
    """Under xdist only the controller sees all reports, and only it decides."""

    def __init__(self, config: pytest.Config) -> None:
        self._decides = not hasattr(config, "workerinput")
        self._failed: list[str] = []
        self._skipped: list[str] = []
        # Not for the runs of pytest that tests start.
        self._told = os.environ.pop("MOORAGE_TEST_FAILED", "")
        self._alone = bool(os.environ.pop("MOORAGE_TEST_ALONE", ""))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped.append(report.nodeid)
        if report.failed and report.nodeid not in self._failed:
            self._failed.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._decides:
            return
        if self._forbidden():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif self._told:
            Path(self._told).write_text("".join(f"{name}\n" for name in self._failed))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if forbidden := self._forbidden():
            terminalreporter.section("skipped, but must run")
            for name in forbidden:
                terminalreporter.line(name)

    def _forbidden(self) -> list[str]:
        if self._alone:
            return self._skipped  # what failed and is skipped now has not passed
        if not os.environ.get("CI"):
            return []
        return [name for name in self._skipped if name.startswith(MUST_RUN)]
