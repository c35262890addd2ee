"""A tree of files to upload, the same every time for one seed."""

from __future__ import annotations

import random
from pathlib import Path

_WORDS = 4096


def grow(root: Path, files: int, size: int, seed: int = 1) -> None:
    """Make `files` files of about `size` bytes in all: a tenth of them directories' worth of
    source text, sizes spread as in software trees (many small, few large), a third compressible
    only a little."""
    chance = random.Random(seed)
    words = [chance.randbytes(chance.randint(2, 9)).hex().encode() for _ in range(_WORDS)]
    text = b" ".join(chance.choices(words, k=2_000_000 // 12))
    noise = chance.randbytes(2_000_000)
    weights = [chance.paretovariate(1.2) for _ in range(files)]
    scale = size / sum(min(weight, 400) for weight in weights)
    for number, weight in enumerate(weights):
        directory = root / f"d{number % 40}" / f"s{number // 40 % 50}"
        if number < 40 * 50:
            directory.mkdir(parents=True, exist_ok=True)
        length = max(1, int(min(weight, 400) * scale))
        source = noise if number % 3 == 0 else text
        begin = chance.randrange(max(1, len(source) - length))
        (directory / f"f{number}.dat").write_bytes(source[begin : begin + length])
