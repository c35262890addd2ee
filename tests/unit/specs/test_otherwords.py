from __future__ import annotations

import pytest

from moorage.specs.fields.otherwords import _ELSEWHERE, _LACKING, meant
from moorage.specs.fields.resources import RESOURCES
from moorage.specs.fields.task import TASK


@pytest.mark.parametrize(("word", "names"), _ELSEWHERE.items())
def test_what_is_meant_exists(word: str, names: tuple[str, ...]) -> None:
    run = {field.name for field in TASK}
    resources = {field.name for field in RESOURCES}
    assert word not in run
    for name in names:
        rest = name.partition(".")[2]
        assert rest in resources if rest else name in run | resources | {"accelerators"}
    assert meant(word, run)
    assert meant(word.upper().replace("_", "-"), run)
    assert not meant(word, {"hosts"})


def test_what_this_version_lacks_is_no_field() -> None:
    assert not {field.name for field in TASK} & {*_LACKING}
