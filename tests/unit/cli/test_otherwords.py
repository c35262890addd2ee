from __future__ import annotations

import click
import pytest

from moorage.cli import main, otherwords
from moorage.cli.storage import storage
from moorage.cli.store import store


@pytest.mark.parametrize(("word", "meant"), otherwords._VERBS.items())
def test_what_is_meant_is_a_verb_or_an_option(word: str, meant: str) -> None:
    assert word not in main.VERBS
    assert otherwords.verb(word.upper(), main.VERBS) == meant
    first, *rest = meant.split()
    if first.startswith("--"):
        return
    command = main.moorage.get_command(click.Context(main.moorage), first)
    assert command is not None
    if isinstance(command, click.Group):
        assert rest[0] in command.commands


@pytest.mark.parametrize("word", otherwords._COMMANDS)
def test_a_command_is_meant_that_is_there(word: str) -> None:
    found = [otherwords.command(word, group.commands) for group in (storage, store)]
    assert any(found)
