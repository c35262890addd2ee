"""The OpenAPI 3.1 document, generated from the route table and the message types."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from moorage.protocol.api import ErrorBody
from moorage.server.routes import ROUTES
from moorage.server.table import AnyRoute, NoBody, RawBody
from moorage.specs.fleet import Fleet
from moorage.specs.task import Task

REFERENCE = "#/components/schemas/{name}"
REASONS = {
    400: "The request is malformed",
    401: "No token, or an unknown one",
    403: "The token does not allow this, or the Host header names another server",
    404: "No such thing",
    409: "It clashes with what exists",
    413: "The body is too large",
    415: "The body has the wrong media type",
    422: "What was asked for cannot be right",
    503: "It cannot be done now",
}
INTRODUCTION = (
    "Times are Unix seconds, sizes bytes, durations seconds. Every request may carry "
    "`X-Request-Id`, which the reply repeats. Agents connect to the WebSocket `/v1/agent`, "
    "which speaks msgpack and is not described here."
)


def document(version: str) -> dict[str, Any]:
    """The document as plain data."""
    types = _types()
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        operation = _operation(route, schema_of, components)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    for route in ROUTES:
        components.pop(route.params.__name__, None)
    _untag(components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "moorage", "version": version, "description": INTRODUCTION},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _untag(components: dict[str, Any]) -> None:
    """A task stands alone, so far, and so does a fleet: each is read without its tag, too."""
    for kind in (Task, Fleet):
        schema = components[kind.__name__]
        tag = kind.__struct_config__.tag_field
        required = [name for name in schema.pop("required") if name != tag]
        if required:
            schema["required"] = required


def _types() -> list[type[Struct]]:
    """Every type that the table names, once, in order."""
    found: dict[type[Struct], None] = {ErrorBody: None}
    for route in ROUTES:
        found[route.params] = None
        if route.body not in (NoBody, RawBody):
            found[route.body] = None
        if route.reply is not None:
            found[route.reply] = None
    return list(found)


def _operation(
    route: AnyRoute, schema_of: dict[type[Struct], Any], components: dict[str, Any]
) -> dict[str, Any]:
    name = route.handler.__name__.replace("_", "-")
    operation: dict[str, Any] = {"operationId": name, "summary": route.summary}
    operation["security"] = [{"token": []}] if route.access else []
    parameters = _parameters(route, components[route.params.__name__])
    if parameters:
        operation["parameters"] = parameters
    if route.body is RawBody:
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/octet-stream": {}},
        }
    elif route.body is not NoBody:
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": {"schema": schema_of[route.body]}},
        }
    operation["responses"] = _responses(route, schema_of)
    return operation


def _parameters(route: AnyRoute, schema: dict[str, Any]) -> list[dict[str, Any]]:
    in_path = set(re.findall(r"{(\w+)}", route.path))
    required = set(schema.get("required", []))
    listed = []
    for name, field in schema.get("properties", {}).items():
        parameter: dict[str, Any] = {"name": name, "in": "path" if name in in_path else "query"}
        if name in required:
            parameter["required"] = True
        plain = _without_null(field)
        if "description" in plain:
            parameter["description"] = plain.pop("description")
        parameter["schema"] = plain
        listed.append(parameter)
    return listed


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out is not one that may be null."""
    plain = dict(schema)
    if "anyOf" not in plain:
        return plain
    [kind] = [branch for branch in plain.pop("anyOf") if branch != {"type": "null"}]
    plain.pop("default", None)
    return {**kind, **plain}


def _responses(route: AnyRoute, schema_of: dict[type[Struct], Any]) -> dict[str, Any]:
    content: dict[str, Any] = {media: {} for media in route.media}
    if route.reply is not None:
        content["application/json"] = {"schema": schema_of[route.reply]}
    answers: dict[str, Any] = {"200": {"description": "Done", "content": content}}
    error = {"application/json": {"schema": schema_of[ErrorBody]}}
    for status in sorted(_statuses(route)):
        answers[str(status)] = {"description": REASONS[status], "content": error}
    return answers


def _statuses(route: AnyRoute) -> set[int]:
    statuses = {400, 403, *route.errors}
    if route.access:
        statuses |= {401, 503}
    if route.body is not NoBody:
        statuses.add(413)
    if route.body not in (NoBody, RawBody):
        statuses.add(415)
    return statuses
