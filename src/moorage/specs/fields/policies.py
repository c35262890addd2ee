"""When a run starts, ends and is tried again."""

from __future__ import annotations

from typing import Any, cast, get_args

from moorage.specs.checks import check_cron
from moorage.specs.fields.field import Field, Origin, require_table
from moorage.specs.nodes import Map
from moorage.specs.retry import OnNodeLoss, Retry, RetryEvent
from moorage.specs.schedule import Schedule
from moorage.specs.schemas import DURATION, FLAG, LIMIT, NAME, mapping, one_or_many, words
from moorage.specs.values import FALSE, TRUE, Value
from moorage.units import parse_duration, parse_limit

EVENTS: tuple[str, ...] = get_args(RetryEvent)
PROFILE: Origin = "dstack profile"


def read_limit(value: Value) -> float | None:
    """A duration; None for `off`."""
    return value.parse(parse_limit)


def read_max_duration(value: Value) -> float | None:
    """A duration above zero; None for `off`."""
    limit = value.parse(parse_limit)
    if limit == 0:
        value.reject("the duration must be above zero", "write off for no limit")
    return limit


def _events(value: Value) -> tuple[RetryEvent, ...]:
    found = [item.choice(EVENTS) for item in value.one_or_many()]
    if not found:
        value.reject("at least one event is needed", f"name some of {', '.join(EVENTS)}")
    return cast("tuple[RetryEvent, ...]", tuple(dict.fromkeys(found)))


def _duration(value: Value) -> float:
    return value.parse(parse_duration)


RETRY = (
    Field(
        "on_events",
        "What is tried again.",
        _events,
        one_or_many(words(*EVENTS)),
        form=", ".join(f"`{event}`" for event in EVENTS),
        default="all",
    ),
    Field(
        "duration",
        "How long after the first failure a next attempt may begin.",
        _duration,
        DURATION,
        default="`1h`",
    ),
)


def read_retry(value: Value) -> Retry | None:
    """True for all events and an hour, false for none, or a mapping."""
    if isinstance(value.node, Map):
        return Retry(**require_table(value, RETRY))
    if value.text().lower() not in TRUE + FALSE:
        fix = "write one, or what is tried again: {on_events: [error], duration: 1h}"
        value.reject(f"'{value.shown}' is neither true nor false", fix)
    return Retry() if value.flag() else None


def _cron(value: Value) -> list[str]:
    found = [item.parse(check_cron) for item in value.one_or_many()]
    if not found:
        value.reject("at least one cron expression is needed")
    return found


SCHEDULE = (
    Field(
        "cron",
        "When to start, in UTC.",
        _cron,
        one_or_many(NAME),
        form="five cron fields, or a list",
    ),
)


def read_schedule(value: Value) -> Schedule:
    """`{cron}`."""
    given: dict[str, Any] = require_table(value, SCHEDULE)
    if "cron" not in given:
        value.reject("cron is missing", "write schedule: {cron: '0 3 * * *'}")
    return Schedule(**given)


RETRY_FIELD = Field(
    "retry",
    "When a failed job is tried again.",
    read_retry,
    {"anyOf": [FLAG, mapping({row.name: row.schema for row in RETRY})]},
    PROFILE,
    form="`true`, `false`, `{on_events, duration}`",
    default="`false`",
)
LOSSES: tuple[str, ...] = get_args(OnNodeLoss)
ON_NODE_LOSS = Field(
    "on_node_loss",
    "What happens to a job whose node is away for longer than `node_lease`: it is ended there and "
    "begun again, it waits for the node, or it is ended there and has failed.",
    lambda v: v.choice(LOSSES),
    words(*LOSSES),
    "moorage",
    form=", ".join(f"`{loss}`" for loss in LOSSES),
    default="`restart` where `retry` covers `interruption`, else `wait`",
)
MAX_DURATION = Field(
    "max_duration",
    "The job is stopped after this time.",
    read_max_duration,
    LIMIT,
    PROFILE,
    form="duration or `off`",
    default="`off`",
)
STOP_DURATION = Field(
    "stop_duration",
    "Time between the polite signal and the kill; `off` waits for as long as it takes.",
    read_limit,
    LIMIT,
    PROFILE,
    form="duration or `off`",
    default="`5m`",
)
SCHEDULE_FIELD = Field(
    "schedule",
    "Start by the clock instead of at once.",
    read_schedule,
    mapping({row.name: row.schema for row in SCHEDULE}, ("cron",)),
    PROFILE,
    form="`{cron}`",
    default="at once",
)
