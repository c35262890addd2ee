from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from moorage.agent.output.watch import Watch


def woken(path: Path, change: Callable[[], object]) -> None:
    """Wait until whoever watches the file hears of the change."""

    async def main() -> None:
        watch = Watch(asyncio.get_running_loop())
        heard = asyncio.Event()
        try:
            assert watch.once(path, heard.set) is not None
            change()
            await asyncio.wait_for(heard.wait(), 60)
        finally:
            watch.close()

    asyncio.run(main())


def test_a_write_is_heard_of(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    woken(path, lambda: path.write_text("x"))


def test_nobody_waits_for_a_watch_that_the_kernel_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    woken(path, path.unlink)
