"""The JSON Schema agrees with the loader: on example files, and on whatever loads."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from moorage.errors import InvalidInput
from moorage.specs.load import load
from moorage.specs.schema import schema
from moorage.specs.show import dump

EXAMPLES = Path(__file__).parent / "examples"
GOOD = sorted(EXAMPLES.glob("good/*.yml"))
BAD = sorted(EXAMPLES.glob("bad/*.yml"))
ENVIRON = {"HF_TOKEN": "x", "HOME": "/home/ann", "MEMORY": "4GB"}
VALIDATOR = jsonschema.Draft202012Validator(schema("task"))


def accepts(text: str) -> bool:
    return VALIDATOR.is_valid(yaml.safe_load(text))


def test_there_are_examples() -> None:
    assert len(GOOD) > 8
    assert len(BAD) > 8


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_good_files(path: Path) -> None:
    loaded = load(path.read_text(), file=path.name, environ=ENVIRON, args=())
    assert not [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(path.read_text()))]
    shown = dump(loaded.spec, inherited=loaded.inherited)
    assert accepts(shown)
    assert load(shown, file="x.yml", environ=ENVIRON).spec == loaded.spec


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.name)
def test_bad_files(path: Path) -> None:
    assert not accepts(path.read_text())
    with pytest.raises(InvalidInput):
        load(path.read_text(), file=path.name, environ=ENVIRON)
