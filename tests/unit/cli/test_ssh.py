"""Where `--rank` of `moorage ssh` may stand."""

from __future__ import annotations

import pytest

from moorage.cli.ssh import ssh


@pytest.mark.parametrize(
    "words",
    ["--rank 2 train -L 1:a:2 top", "train --rank 2 -L 1:a:2 top", "train --rank=2 -L 1:a:2 top"],
)
def test_before_the_name_or_right_behind_it(words: str) -> None:
    found = ssh.make_context("ssh", words.split()).params
    assert found == {"rank": 2, "run": "train", "words": ("-L", "1:a:2", "top")}


def test_what_the_command_is_told_is_its_own() -> None:
    found = ssh.make_context("ssh", ["train", "mpirun", "--rank", "7"]).params
    assert found == {"rank": 0, "run": "train", "words": ("mpirun", "--rank", "7")}
