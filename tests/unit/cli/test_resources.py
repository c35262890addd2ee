from __future__ import annotations

import pytest
from click.testing import CliRunner

from moorage.cli.plan import plan
from moorage.cli.prepare import Prepared, read_file
from moorage.cli.resources import with_resources
from moorage.errors import InvalidInput
from moorage.specs.resources import Range

GB = 1024**3
TASK = "type: task\ncommands: [true]\nenv: {A: '${{ env.B }}'}\nresources: {cpu: 2, gpu: H100:8}\n"


def prepared(tmp_path, text: str = TASK) -> Prepared:
    (tmp_path / "task.yml").write_text(text)
    return read_file(str(tmp_path / "task.yml"), env=("B=1",))


def test_what_is_given_stands_instead_of_what_the_file_says(tmp_path):
    wanted = {"cpu": None, "gpu": "A100:40GB..:2", "memory": "8GB..", "disk": None}
    changed = with_resources(prepared(tmp_path), wanted)
    for spec in (changed.spec, changed.shown):
        assert spec.resources.cpu.count == Range(2, 2)
        assert spec.resources.memory == Range(8 * GB)
        assert spec.resources.gpu is not None
        assert (spec.resources.gpu.name, spec.resources.gpu.count) == (["A100"], Range(2, 2))


def test_without_any_the_run_stays_as_it_is(tmp_path):
    found = prepared(tmp_path)
    assert with_resources(found, {"cpu": None, "gpu": None}) is found


def test_no_gpus_can_be_asked_for(tmp_path):
    assert with_resources(prepared(tmp_path), {"gpu": "0"}).spec.resources.gpu is None


def test_a_wrong_one_is_named(tmp_path):
    with pytest.raises(InvalidInput, match="--gpu: 'A100:x:y' is not"):
        with_resources(prepared(tmp_path), {"gpu": "A100:x:y"})


def test_groups_have_their_own(tmp_path):
    text = "type: task\ngroups:\n- {name: a, commands: [true]}\n"
    with pytest.raises(InvalidInput, match=r"--cpu: .*; write it in each group"):
        with_resources(prepared(tmp_path, text), {"cpu": "2"})


def test_plan_shows_the_spec_with_them_and_a_fleet_has_no_use_for_them(tmp_path):
    prepared(tmp_path)
    shown = CliRunner().invoke(
        plan, ["-f", str(tmp_path / "task.yml"), "-e", "B=1", "--show-spec", "--disk", "5GB.."]
    )
    assert "disk: 5GB.." in shown.output
    fleet = tmp_path / "fleet.yml"
    fleet.write_text("type: fleet\nname: lab\nssh_config: {hosts: [a]}\n")
    refused = CliRunner().invoke(plan, ["-f", str(fleet), "--gpu", "1"])
    assert "--gpu: a fleet has no use for it" in str(refused.exception)
