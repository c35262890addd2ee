"""schemathesis makes requests from the OpenAPI document, right and wrong ones, and compares every
reply with what the document says. The examples are the same in each run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from moorage.server.openapi import document
from system.servers import Server, serving

EXCLUDED = [
    # What a schema cannot say (a cursor that no page gave, a digest that is not here) is 422.
    positive_data_acceptance,
    # 503 is honest where the disk cannot hold what a client announces; the test looks itself.
    not_a_server_error,
]
# Made-up hosts would be looked for by ssh.
schema = schemathesis.openapi.from_dict(document("test")).exclude(path="/v1/fleets", method="POST")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("home")) as started:
        started.submit("seed", name="seed")
        yield started


@schema.parametrize()
@settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_replies_are_as_documented(server: Server, case: schemathesis.Case) -> None:
    query = dict(case.query or {})
    if str(query.get("follow")) == "1":
        query["follow"] = 0  # would never end
    if case.path.endswith("/wait"):
        query["timeout"] = 0
    case.query = query
    response = case.call(base_url=server.url, headers={"Authorization": f"Bearer {server.token}"})
    if response.status_code >= 500:
        assert response.status_code == 503, response.text
        assert response.json()["code"] == "unavailable"
    case.validate_response(response, excluded_checks=EXCLUDED)
