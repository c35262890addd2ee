"""Fields of dstack's task that this version cannot honour, or need not."""

from __future__ import annotations

from moorage.specs.fields.field import Field, Origin, refused
from moorage.specs.schemas import FLAG, LIMIT, NUMBER, TEXT, words
from moorage.specs.values import Value
from moorage.units import parse_limit

PROFILE: Origin = "dstack profile"
HERE = "remove it, and name your machines in a fleet file"


def _text(value: Value) -> None:
    value.text()


def _flag(value: Value) -> None:
    value.flag()


def _price(value: Value) -> None:
    value.number(0, whole=False)


def _idle(value: Value) -> None:
    value.parse(lambda text: parse_limit(text, minus_one=True))


RUN = (
    refused("nvcc", "install the CUDA compiler", "use the node's own CUDA", neutral=("false",)),
    refused(
        "dstack",
        "make the server reachable inside jobs",
        "remove it",
        neutral=("false",),
    ),
    refused("setup", "have a separate set-up", "put these first under `commands`", empty=True),
    Field(
        "home_dir",
        "Without effect, as in dstack.",
        _text,
        TEXT,
        status="accepted",
        form="text",
    ),
    Field(
        "single_branch",
        "Without effect: only what the commit needs is transferred anyway.",
        _flag,
        FLAG,
        status="accepted",
        form="`true`, `false`",
    ),
)

PROFILE_FIELDS = (
    refused("backends", "use other backends", HERE, empty=True, origin=PROFILE),
    refused("regions", "choose regions", HERE, empty=True, origin=PROFILE),
    refused("availability_zones", "choose zones", HERE, empty=True, origin=PROFILE),
    refused("instance_types", "choose instance types", HERE, empty=True, origin=PROFILE),
    refused("reservation", "use reservations", HERE, origin=PROFILE),
    refused("backend_options", "use other backends", HERE, empty=True, origin=PROFILE),
    refused(
        "spot_policy",
        "use spot instances",
        "write auto or on-demand, or remove it",
        neutral=("auto", "on-demand"),
        origin=PROFILE,
    ),
    refused(
        "utilization_policy",
        "watch the use of GPUs",
        "remove it, and set max_duration",
        empty=True,
        origin=PROFILE,
    ),
    Field(
        "max_price",
        "Always kept: this machine costs nothing.",
        _price,
        NUMBER,
        PROFILE,
        "accepted",
        "number",
    ),
    Field(
        "creation_policy",
        "Both words mean the same here: the machine exists.",
        lambda v: v.choice(("reuse", "reuse-or-create")),
        words("reuse", "reuse-or-create"),
        PROFILE,
        "accepted",
        "`reuse`, `reuse-or-create`",
    ),
    Field(
        "idle_duration",
        "Without effect: the machine was not created for the run.",
        _idle,
        LIMIT,
        PROFILE,
        "accepted",
        "duration, `off`, `-1`",
    ),
)
