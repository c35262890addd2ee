"""What a server that starts notes for those that start after it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from moorage.engine import boot
from moorage.store.sqlite import open_sqlite
from moorage.store.writer import Writer


def life(path: Path, lease: float, *, outlive: bool = False) -> float:
    """Of a server; `outlive`: until the leases of the one before are over. The longest lease that
    counts then."""

    async def begin(writer: Writer) -> None:
        engine = boot.start(store, writer, "test", lease=lease)
        over: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        noted = engine.leases.outlived
        assert (noted is not None) == outlive
        if noted is not None:
            engine.leases.outlived = lambda: over.set_result(noted())
            async with asyncio.timeout(30):
                written = await over
                assert isinstance(written, asyncio.Future)
                await written
        engine.close()

    store = open_sqlite(path / "test.db")
    writer = Writer(store)
    try:
        asyncio.run(begin(writer))
        writer.close()
        return boot.earlier_lease(store)
    finally:
        writer.close()
        store.close()


def test_a_longer_lease_counts_until_it_is_over(tmp_path: Path) -> None:
    assert life(tmp_path, 0.3) == 0.3
    assert life(tmp_path, 0.6) == 0.6
    assert life(tmp_path, 0.1, outlive=True) == 0.1
    assert life(tmp_path, 0.1) == 0.1
