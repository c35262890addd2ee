"""Beds as a fixture; a module that shares one bed makes its own with `bed_of`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from testbed.bed import Bed
    from testbed.shape import Shape

    MakeBed = Callable[[int | Sequence[Shape]], Bed]


@pytest.fixture
def make_bed() -> Iterator[MakeBed]:
    """`make_bed(3)`: a bed with three hosts, for one test; skips where there can be none."""
    from testbed.bed import bed_of  # other tests need not pay for this import

    with ExitStack() as stack:
        yield lambda hosts: stack.enter_context(bed_of(hosts))
