from __future__ import annotations

import pytest

from moorage.data.objects.bucket import open_bucket
from moorage.data.objects.errors import Reason, StoreProblem, problem_of
from moorage.specs.stores.record import Access


def asked(endpoint: str) -> StoreProblem:
    keys = {"access_key_id": "AKID", "secret_access_key": "SECRET"}
    access = Access("s3", endpoint, "us-east-1", path_style=True, secrets=keys)
    with pytest.raises(StoreProblem) as caught:
        open_bucket(access, "bucket", patience=1).check()
    return caught.value


def test_a_port_where_nobody_listens() -> None:
    error = asked("http://127.0.0.1:1")
    assert error.reason == "unreachable"
    assert str(error) == (
        "s3://bucket: the store does not answer (connection refused); "
        "check the endpoint and the network"
    )


def test_a_kind_that_obstore_cannot() -> None:
    with pytest.raises(StoreProblem, match="there is no such kind of store"):
        open_bucket(Access("tape"), "bucket")


@pytest.mark.parametrize(
    ("error", "whole", "reason", "said"),
    [
        (FileNotFoundError("x"), False, "no-object", "there is no such object"),
        (FileNotFoundError("x"), True, "no-bucket", "there is no such bucket"),
        (OSError("<Code>NoSuchBucket</Code>"), False, "no-bucket", "no such bucket"),
        (OSError("<Code>ExpiredToken</Code>"), False, "denied", "access denied (ExpiredToken)"),
        (OSError("operation timed out"), False, "unreachable", "no answer in time"),
        (OSError("invalid peer certificate: UnknownIssuer"), False, "unreachable", "not trusted"),
        (OSError("<Code>SlowDown</Code><Message>Reduce</Message>"), False, "failed",
         "the store says SlowDown: Reduce"),
        (OSError("status code: 507 Insufficient"), False, "failed", "the store says 507"),
        (OSError("GET https://h/b?X-Amz-Signature=abc broke"), False, "failed", "its URL broke"),
    ],
)  # fmt: skip
def test_what_engines_say(error: Exception, whole: bool, reason: str, said: str) -> None:
    problem = problem_of(error, "s3://b", whole_bucket=whole)
    assert problem.reason == reason
    assert said in str(problem)
    assert "abc" not in str(problem)
    assert len(str(problem).splitlines()) == 1


@pytest.mark.parametrize(
    ("reason", "code"), [("no-bucket", 3), ("no-object", 3), ("denied", 4), ("unreachable", 1)]
)
def test_exit_codes_are_those_of_other_commands(reason: Reason, code: int) -> None:
    assert StoreProblem(reason, "s3://b", "no").exit_code == code
