"""Beds as a fixture (a module that shares one bed makes its own with `bed_of`), and object stores:
one of each kind a test process, see `stores.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from testbed.bed import Bed
    from testbed.shape import Shape
    from testbed.stores import StoreServer

    MakeBed = Callable[[int | Sequence[Shape]], Bed]


@pytest.fixture
def make_bed() -> Iterator[MakeBed]:
    """`make_bed(3)`: a bed with three hosts, for one test; skips where there can be none."""
    from testbed.bed import bed_of  # other tests need not pay for this import

    with ExitStack() as stack:
        yield lambda hosts: stack.enter_context(bed_of(hosts))


def _session_store(which: str) -> Callable[..., Iterator[StoreServer]]:
    def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
        from testbed import storekinds

        recipe = getattr(storekinds, which)
        with storekinds.serve(recipe, tmp_path_factory.mktemp(recipe.name)) as server:
            yield server

    return start


seaweed = pytest.fixture(scope="session", name="seaweed")(_session_store("SEAWEED"))
moto = pytest.fixture(scope="session", name="moto")(_session_store("MOTO"))
fake_gcs = pytest.fixture(scope="session", name="fake_gcs")(_session_store("FAKE_GCS"))
azurite = pytest.fixture(scope="session", name="azurite")(_session_store("AZURITE_BLOBS"))


@pytest.fixture(params=["seaweed", "moto", "fake_gcs", "azurite"])
def object_store(request: pytest.FixtureRequest) -> StoreServer:
    """Each of the four in turn; leave them running."""
    server: StoreServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def own_seaweed(tmp_path: Path) -> Iterator[StoreServer]:
    """A SeaweedFS for this test alone: to freeze, kill and start again."""
    from testbed import storekinds

    with storekinds.serve(storekinds.SEAWEED, tmp_path / "seaweed") as server:
        yield server
