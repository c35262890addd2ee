"""How long random tests go on, and from which seed: `MOORAGE_TEST_ROUNDS`, `MOORAGE_TEST_SEED`."""

from __future__ import annotations

import os
import random


def rounds(normal: int) -> int:
    """`normal` times the wish."""
    return normal * int(os.environ.get("MOORAGE_TEST_ROUNDS") or 1)


def seed(default: int) -> int:
    """The wish, or the seed of every day."""
    return int(os.environ.get("MOORAGE_TEST_SEED") or default)


def sample(population: int, normal: int) -> list[int]:
    """Some of 1..population, more of them with more rounds, in their order."""
    count = min(population, rounds(normal))
    return sorted(random.Random(seed(3)).sample(range(1, population + 1), count))
