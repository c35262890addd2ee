from __future__ import annotations

import json
from pathlib import Path

import moorage
from moorage.server.openapi import document
from moorage.server.routes import ROUTES

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_copy_in_the_docs_is_fresh() -> None:
    written = json.loads((DOCS / "openapi.json").read_text())
    assert written == json.loads(json.dumps(document(moorage.__version__))), (
        "run scripts/gen_openapi.py"
    )


def test_every_route_is_described_once() -> None:
    paths = document("x")["paths"]
    described = [
        operation["operationId"] for methods in paths.values() for operation in methods.values()
    ]
    assert len(described) == len(set(described)) == len(ROUTES)


def test_only_what_is_meant_to_be_open_is_open() -> None:
    paths = document("x")["paths"]
    opened = {
        path
        for path, methods in paths.items()
        for operation in methods.values()
        if operation["security"] == []
    }
    assert opened == {"/v1/health", "/v1/openapi.json"}


def test_optional_parameters_are_not_nullable() -> None:
    for methods in document("x")["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                assert "anyOf" not in parameter["schema"], parameter
