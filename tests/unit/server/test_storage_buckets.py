from __future__ import annotations

import pytest

from moorage.server.storage.buckets import _problem

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
