"""schemathesis makes requests from the OpenAPI document, right and wrong ones, and compares every
reply with what the document says. The examples are the same in each run.

They are made when their test runs: by `schema.parametrize()` every worker would make those of all
operations, which takes longer than all other tests take to be found."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from moorage.server.openapi import document
from system.servers import PATIENCE, Server, serving

LEFT_OUT = frozenset({"POST /v1/fleets"})
"""Made-up hosts would be looked for by ssh."""
OPERATIONS = [
    f"{method.upper()} {path}"
    for path, methods in document("test")["paths"].items()
    for method in methods
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("home")) as started:
        started.submit("seed", name="seed")
        yield started


@cache
def schema() -> Any:
    import schemathesis

    return schemathesis.openapi.from_dict(document("test"))


@settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def reply_is_as_documented(server: Server, case: Any) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    query = dict(case.query or {})
    if str(query.get("follow")) == "1":
        query["follow"] = 0  # would never end
    if case.path.endswith("/wait"):
        query["timeout"] = 0
    case.query = query
    headers = {"Authorization": f"Bearer {server.token}"}
    response = case.call(base_url=server.url, headers=headers, timeout=PATIENCE)
    if response.status_code >= 500:
        assert response.status_code == 503, response.text
        assert response.json()["code"] == "unavailable"
    excluded = [
        # What a schema cannot say (a cursor that no page gave, a digest that is not here) is 422.
        positive_data_acceptance,
        # 503 is honest where the disk cannot hold what a client announces; this looks itself.
        not_a_server_error,
    ]
    case.validate_response(response, excluded_checks=excluded)


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in LEFT_OUT])
def test_replies_are_as_documented(server: Server, operation: str) -> None:
    # What its own plugin calls, for which there is no public name yet.
    from schemathesis.generation.feedback import FeedbackSources
    from schemathesis.pytest._test_builder import build_operation_test

    method, path = operation.split(" ")
    compare = build_operation_test(
        config=schema().config,
        operation=schema()[path][method],
        test_func=reply_is_as_documented,
        given_kwargs={},
        feedback=FeedbackSources(),
    )
    compare(server=server)
