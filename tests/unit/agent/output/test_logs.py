from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from moorage.agent.output.logs import MARKS, PAGE, Logs, Output
from moorage.protocol.agent import LogData, ReadLog

KEY = "1.1.0"


@asynccontextmanager
async def opened(tmp_path: Path, limit: int = 0) -> AsyncIterator[Logs]:
    logs = Logs(tmp_path / "logs", asyncio.get_running_loop(), limit)
    try:
        yield logs
    finally:
        logs.close()


async def ask(logs: Logs, **request: object) -> LogData:
    answer: asyncio.Future[LogData] = asyncio.get_running_loop().create_future()
    logs.read(ReadLog(1, KEY, **request), lambda page: answer.set_result(page()))  # type: ignore[arg-type]
    return await asyncio.wait_for(answer, 30)


def append(path: Path, data: bytes) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(data)


async def follow(logs: Logs, size: int) -> tuple[bytes, int]:
    """Everything until the end or `size` bytes, and how many bytes were skipped."""
    data, offset, skipped = b"", 0, 0
    while True:
        page = await ask(logs, offset=offset, wait=True)
        skipped += page.offset - offset
        data += page.data
        offset = page.offset + len(page.data)
        if page.ended or offset >= size:
            return data, skipped


def test_pages_follow_each_other_until_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as logs:
            path = logs.open(KEY)
            append(path, b"a" * PAGE + b"bc\n")
            first = await ask(logs)
            assert (first.offset, len(first.data), first.ended) == (0, PAGE, False)
            second = await ask(logs, offset=PAGE)
            assert (second.data, second.ended) == (b"bc\n", False)
            logs.end(KEY)
            third = await ask(logs, offset=PAGE)
            assert (third.data, third.ended) == (b"bc\n", True)
            assert (await ask(logs, offset=-3)).data == b"bc\n"
            assert (await ask(logs, offset=-3, limit=1)).data == b"b"

    asyncio.run(main())


def test_a_waiting_reader_hears_of_new_bytes_and_of_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as logs:
            path = logs.open(KEY)
            for number in range(3):
                waiting = asyncio.create_task(ask(logs, offset=number * 2, wait=True))
                await asyncio.sleep(0)
                assert not waiting.done()
                append(path, b"x\n")
                assert (await waiting).data == b"x\n"
            waiting = asyncio.create_task(ask(logs, offset=6, wait=True))
            await asyncio.sleep(0)
            logs.end(KEY)
            page = await waiting
            assert (page.data, page.ended, page.missing) == (b"", True, False)

    asyncio.run(main())


def test_many_readers_are_answered_and_a_cancelled_one_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as logs:
            path = logs.open(KEY)
            answers: asyncio.Queue[LogData] = asyncio.Queue()
            for number in range(20):
                logs.read(ReadLog(number, KEY, wait=True), lambda page: answers.put_nowait(page()))
            logs.cancel(7)
            append(path, b"hello\n")
            got = [await asyncio.wait_for(answers.get(), 30) for _ in range(19)]
            assert {page.request for page in got} == set(range(20)) - {7}
            assert {page.data for page in got} == {b"hello\n"}

    asyncio.run(main())


def test_a_log_that_nobody_wrote_is_missing(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as logs:
            assert (await ask(logs)).missing
            logs.read(ReadLog(2, "../../etc", wait=True), lambda page: None)
            logs.open(KEY)
            logs.drop([KEY])
            assert not (await ask(logs)).missing
            logs.end(KEY)
            logs.drop([KEY, "..", "1.1.9"])
            assert (await ask(logs)).missing
            assert (tmp_path / "logs").exists()

    asyncio.run(main())


@pytest.mark.parametrize("punching", [True, False])
def test_the_cap_drops_the_beginning_and_offsets_stay_valid(
    tmp_path: Path, punching: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not punching:
        monkeypatch.setattr(Output, "_punch", lambda self, length: False)
    line = b"%09d\n"
    total = 400_000

    async def main() -> None:
        async with opened(tmp_path, limit=500_000) as logs:
            path = logs.open(KEY)
            for block in range(0, total, 1000):
                append(path, b"".join(line % n for n in range(block, block + 1000)))
                await ask(logs, offset=-10)
            page = await ask(logs)
            assert page.offset > 0
            assert page.data.startswith(line % (page.offset // 10))
            logs.end(KEY)
            tail = await ask(logs, offset=-20)
            assert tail.data == line % (total - 2) + line % (total - 1)
            assert tail.offset == total * 10 - 20
            assert path.stat().st_blocks * 512 <= 600_000
        async with opened(tmp_path) as logs:
            assert (await ask(logs, offset=-20)).offset == total * 10 - 20
            assert (await ask(logs)).offset >= page.offset

    asyncio.run(main())


def test_a_flood_stays_bounded_while_a_reader_follows(tmp_path: Path) -> None:
    size, limit = 50_000_000, 5_000_000

    async def main() -> None:
        async with opened(tmp_path, limit=limit) as logs:
            path = logs.open(KEY)
            quoted = str(path)
            writer = await asyncio.create_subprocess_exec(
                "sh", "-c", f"yes 0123456789012345678 | head -c {size} >> '{quoted}'"
            )
            reader = asyncio.create_task(follow(logs, size))
            assert await writer.wait() == 0
            logs.end(KEY)
            data, skipped = await asyncio.wait_for(reader, 30)
            assert len(data) + skipped == size
            assert path.stat().st_size == size
            assert path.stat().st_blocks * 512 <= limit + 65_536
            assert data.endswith(b"\n0123456789012345678\n")

    asyncio.run(main())


def test_a_job_that_cuts_its_own_output_loses_nothing_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as logs:
            path = logs.open(KEY)
            append(path, b"before\n")
            assert (await ask(logs)).data == b"before\n"
            os.truncate(path, 0)
            append(path, b"later\n")
            page = await ask(logs, offset=7, wait=True)
            assert (page.offset, page.data) == (7, b"later\n")

    asyncio.run(main())


def test_since_begins_with_the_line_of_that_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as logs:
            path = logs.open(KEY)
            append(path, b"one\ntwo\nthree\nfour\n")
            await ask(logs)
            (path.parent / MARKS).write_text("100.000 0\n200.000 4\n201.000 8\n300.000 15\n")
            for since, data in [
                (50, b"one\ntwo\nthree\nfour\n"),
                (100.5, b"one\ntwo\nthree\nfour\n"),
                (150, b"two\nthree\nfour\n"),
                (201.9, b"three\nfour\n"),
                (202.5, b"four\n"),  # the last mark fell into the middle of its line
                (302, b""),
            ]:
                page = await ask(logs, since=since)
                assert page.data == data, since
                assert page.offset == 19 - len(data)

    asyncio.run(main())


def test_marks_are_written_while_data_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.agent.output.logs._MARK_EVERY", 60.0)

    async def main() -> None:
        async with opened(tmp_path) as logs:
            began = time.time()
            path = logs.open(KEY)
            append(path, b"one\n")
            await ask(logs, offset=0, wait=True)
            at, offset = (path.parent / MARKS).read_text().split()
            assert began - 1 <= float(at) <= time.time() + 0.001  # marks are rounded
            assert offset == "0"
            append(path, b"two\n")
            await ask(logs, offset=4, wait=True)
            assert len((path.parent / MARKS).read_text().splitlines()) == 1
        async with opened(tmp_path) as logs:
            append(path, b"while the agent was dead\n")
            logs.open(KEY)
            page = await ask(logs, since=time.time())
            assert page.data.endswith(b"while the agent was dead\n")

    asyncio.run(main())


def test_without_a_watch_readers_are_still_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.agent.output.watch.Watch.once", lambda self, path, callback: None)

    async def main() -> None:
        async with opened(tmp_path) as logs:
            path = logs.open(KEY)
            waiting = asyncio.create_task(ask(logs, wait=True))
            await asyncio.sleep(0)
            append(path, b"x\n")
            assert (await waiting).data == b"x\n"

    asyncio.run(main())
