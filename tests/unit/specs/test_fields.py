"""The field tables: complete against dstack, and the pages made from them fresh."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from moorage.errors import InvalidInput, NotFound
from moorage.specs.fields import fleet
from moorage.specs.fields.task import NESTED, TASK
from moorage.specs.load import load
from moorage.specs.reference import fleet_page, page
from moorage.specs.schema import KINDS, schema

DOCS = Path(__file__).resolve().parents[3] / "docs"

DSTACK_RUN = (
    "type name image user privileged entrypoint working_dir home_dir registry_auth python nvcc "
    "docker single_branch env shell resources priority volumes repos files dstack setup "
    "commands ports nodes groups"
)
DSTACK_PROFILE = (
    "backends regions availability_zones instance_types reservation spot_policy retry "
    "max_duration stop_duration max_price creation_policy idle_duration utilization_policy "
    "startup_order stop_criteria schedule fleets instances tags backend_options"
)


def test_every_field_of_dstack_is_in_the_table() -> None:
    assert len(DSTACK_RUN.split()) + len(DSTACK_PROFILE.split()) == 46
    by_origin = {
        origin: sorted(row.name for row in TASK if row.origin == origin)
        for origin in ("dstack", "dstack profile", "moorage")
    }
    assert by_origin["dstack"] == sorted(DSTACK_RUN.split())
    assert by_origin["dstack profile"] == sorted(DSTACK_PROFILE.split())
    assert by_origin["moorage"] == ["compat", "exclusive", "on_node_loss", "workdir"]


@pytest.mark.parametrize(
    ("table", "fields"),
    [
        ("resources", "cpu memory shm_size gpu disk"),
        ("resources.cpu", "arch count"),
        ("resources.gpu", "vendor name count memory total_memory compute_capability"),
        ("files[]", "local_path path"),
        ("repos[]", "local_path url branch hash path if_exists"),
        ("volumes[]", "name path instance_path optional"),
        ("retry", "on_events duration"),
        ("schedule", "cron"),
    ],
)
def test_every_inner_field_of_dstack_is_in_its_table(table: str, fields: str) -> None:
    rows = {row.name for row in NESTED[table] if row.origin == "dstack"}
    assert rows == set(fields.split())


DSTACK_FLEET = (
    "type name placement blocks nodes reservation resources backends regions availability_zones "
    "instance_types spot_policy retry max_price idle_duration tags backend_options env ssh_config"
)


@pytest.mark.parametrize(
    ("table", "fields"),
    [
        ("ssh_config", "user port identity_file ssh_key proxy_jump network hosts"),
        (
            "ssh_config.hosts[]",
            "hostname port user identity_file proxy_jump internal_ip ssh_key blocks",
        ),
        ("ssh_config.proxy_jump", "hostname port user identity_file"),
    ],
)
def test_every_inner_field_of_dstacks_fleet_is_in_its_table(table: str, fields: str) -> None:
    rows = {row.name for row in fleet.NESTED[table] if row.origin == "dstack"}
    assert rows == set(fields.split())


def test_every_field_of_dstacks_fleet_is_in_the_table() -> None:
    rows = [row.name for row in fleet.FLEET if row.origin == "dstack"]
    assert sorted(rows) == sorted(DSTACK_FLEET.split())


@pytest.mark.parametrize("name", [row.name for row in TASK if row.status == "refused"])
def test_a_refused_field_says_so_in_one_line(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(f"type: task\ncommands: [a]\n{name}: what", file="a.yml", environ={})
    (problem,) = caught.value.problems
    assert problem.field == name
    assert problem.message.startswith("this version does not ")
    assert problem.message.endswith(" yet")
    assert problem.fix
    assert (problem.line, problem.column) == (3, len(name) + 3)


def test_the_reference_page_is_fresh() -> None:
    assert (DOCS / "reference" / "fields.md").read_text() == page(), "run scripts/gen_fields.py"


def test_the_page_about_fleets_is_fresh() -> None:
    written = (DOCS / "reference" / "fleet.md").read_text()
    assert written == fleet_page(), "run scripts/gen_fields.py"


def test_the_reference_page_names_every_field() -> None:
    text = page()
    for row in TASK:
        assert f"\n| `{row.name}` | {row.status} |" in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_is_fresh_and_valid(kind: str) -> None:
    document = json.loads((DOCS / "schema" / f"{kind}.json").read_text())
    assert document == schema(kind), "run scripts/gen_fields.py"
    jsonschema.Draft202012Validator.check_schema(document)
    for described in document["properties"].values():
        assert described["description"]


def test_there_is_no_schema_of_other_kinds() -> None:
    with pytest.raises(NotFound, match="there is no schema for 'volume'; known: task, fleet"):
        schema("volume")
