from __future__ import annotations

import random
import re
from itertools import islice

from moorage.engine.names import CREATURES, MOODS, suggestions
from moorage.specs.checks import check_name


def test_every_suggestion_is_a_valid_name() -> None:
    below = random.Random(1).randrange
    for name in islice(suggestions(below), 300):
        assert check_name(name) == name
        assert re.fullmatch(r"[a-z]+-[a-z]+-\d+", name)


def test_no_word_occurs_twice() -> None:
    words = [*MOODS.split(), *CREATURES.split()]
    assert len(words) == len(set(words))
