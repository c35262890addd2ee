from __future__ import annotations

from pathlib import Path

import pytest

from moorage.server.storage import buckets
from moorage.server.storage.buckets import _problem
from moorage.specs.stores.record import Access

SILENT = (
    "NOTICE: Failed to lsjson with 2 errors: last error was: error in ListJSON: "
    "operation error S3: ListBuckets, exceeded maximum number of attempts, 1, "
    "https response error StatusCode: 0, RequestID: , HostID: , request send failed"
)


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        (SILENT, "unreachable", "the store does not answer"),
        ("NOTICE: dial tcp 127.0.0.1:9", "unreachable", "the store does not answer"),
        (SILENT.replace("StatusCode: 0", "StatusCode: 403"), "denied", "access denied"),
        ("NOTICE: Failed: at https://h/x?secret: odd", "failed", "Failed: at its URL odd"),
    ],
)
def test_what_rclone_says_of_a_store(text: str, reason: str, said: str) -> None:
    found = _problem(text, "lab://")
    assert (found.reason, found.said) == (reason, said)


def test_rclone_gets_the_keys_of_its_store_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tmp_path / "rclone"
    shown.write_text("#!/bin/sh\nenv\n")
    shown.chmod(0o700)
    monkeypatch.setattr(buckets, "program", lambda: str(shown))
    monkeypatch.setenv("MOORAGE_DATABASE", "postgresql://u:hidden@h/d")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("RCLONE_LOG_FILE", "hidden")
    access = Access("s3", "http://h", secrets={"secret_access_key": "shown"})
    given = buckets._rclone(access, "bucket", ["size"], 60.0)
    assert b"shown" in given
    assert b"hidden" not in given
