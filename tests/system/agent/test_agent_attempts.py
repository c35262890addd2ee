"""Attempts from Start to Forget, with a real keeper and real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from moorage.ids import Digest
from moorage.protocol.agent import (
    PHASES,
    DropLogs,
    Launch,
    Limits,
    Outcome,
    Probe,
    ReadLog,
    Start,
    Stop,
)
from moorage.specs.mounts import Files, HostPath, Repo
from system.agent_harness import PATIENCE

Make = Callable[..., Launch]
DATA = {"work", "files", "scratch", "tmp", "vartmp", "bin", "script"}


def test_a_job_runs_and_nothing_of_it_is_left(world: Any, launch: Make, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()

    async def main() -> None:
        async with world() as w:
            key = await w.desk.start(
                launch(
                    "echo hello $NAME; echo error >&2",
                    'echo more > "$MOORAGE_SCRATCH/x"; touch here; mkdir -m 0 closed',
                    "echo kept > data/out.txt; exit 3",
                    env={"NAME": "Ada"},
                    mounts=[HostPath(str(volume), "data")],
                )
            )
            held = await w.desk.done(key)
            assert held.outcome is not None
            assert (held.outcome.kind, held.outcome.exit_code) == ("exited", 3)
            assert tuple(phase.name for phase in held.phases) == PHASES
            assert all(phase.ended and phase.ended >= phase.began for phase in held.phases)
            assert held.usage is not None
            assert held.usage.cpu_seconds >= 0
            assert await w.desk.log(key) == "hello Ada\nerror\n"
            assert (volume / "out.txt").read_text() == "kept\n"
            assert w.desk.tokens == ["Bearer node-token-for-tests"]
            assert [state for _, state in w.desk.history][-1] == "done"
            assert DATA.isdisjoint(path.name for path in w.attempt(key).iterdir())
            await w.desk.forget(key)
            assert not w.attempt(key).exists()

    asyncio.run(main())


def test_a_repeated_start_runs_nothing_twice(world: Any, launch: Make, tmp_path: Path) -> None:
    # /tmp is the job's own: only a volume leads out.
    count = tmp_path / "count"

    async def main() -> None:
        async with world() as w:
            job = launch("echo x >> out/count", mounts=[HostPath(str(tmp_path), "out")])
            for _ in range(3):
                await w.desk.send(Start(job))
            await w.desk.done("1.1.0")
            reports = len(w.desk.reports)
            await w.desk.send(Start(job))
            await w.desk.until(lambda: len(w.desk.reports) > reports)
            assert w.desk.held["1.1.0"].state == "done"
            assert count.read_text() == "x\n"

    asyncio.run(main())


def test_many_jobs_at_once(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            await asyncio.gather(*(w.desk.run(launch(f"exit {n}", job=n)) for n in range(1, 31)))
            outcomes = {n: w.desk.held[f"{n}.1.0"].outcome for n in range(1, 31)}
            assert [found for n, found in outcomes.items() if found.exit_code != n] == []

    asyncio.run(main())


def test_stop_lets_the_job_say_goodbye(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            key = await w.desk.start(
                launch("trap 'echo bye; exit 4' TERM; echo up; sleep 60 & while :; do wait; done")
            )
            page = await w.desk.ask(ReadLog(1, key, wait=True))
            assert page.data == b"up\n"
            await w.desk.send(Stop(key, 10.0))
            held = await w.desk.done(key)
            assert held.outcome.kind == "stopped"
            assert await w.desk.log(key) == "up\nbye\n"

    asyncio.run(main())


def test_abort_does_not(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            key = await w.desk.start(launch("trap '' TERM; echo up; sleep 60"))
            await w.desk.ask(ReadLog(1, key, wait=True))
            await w.desk.send(Stop(key, 0, abort=True))
            held = await w.desk.done(key)
            assert held.outcome.kind == "aborted"

    asyncio.run(main())


def test_a_stop_that_comes_with_the_start_leaves_no_process(
    world: Any, launch: Make, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"

    async def main() -> None:
        async with world() as w:
            for job in range(1, 6):
                out = HostPath(str(tmp_path), "out")
                key = await w.desk.start(
                    launch("sleep 60; touch out/ran", job=job, mounts=[out][: job // 3])
                )
                await w.desk.send(Stop(key, 0 if job % 2 else 1.0))
            for job in range(1, 6):
                held = await w.desk.done(f"{job}.1.0")
                assert held.outcome.kind == "stopped"
            assert not ran.exists()

    asyncio.run(main())


class Silent:
    """A server that takes a connection and never answers."""

    def __init__(self) -> None:
        self.asked, self.given_up = asyncio.Event(), asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.set()
        with suppress(ConnectionError):
            await reader.read()  # until the other side gives up
        self.given_up.set()
        writer.close()

    async def open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x.git"
        return server


def test_an_agent_that_leaves_ends_the_git_that_fetches(world: Any, launch: Make) -> None:
    async def main() -> None:
        silent = Silent()
        async with world() as w, await silent.open():
            await w.desk.start(launch("true", mounts=[Repo(url=silent.url, target="code")]))
            await asyncio.wait_for(silent.asked.wait(), PATIENCE)
            assert await w.end_agent() == 0
            await asyncio.wait_for(silent.given_up.wait(), PATIENCE)

    asyncio.run(main())


def test_a_stop_breaks_off_what_is_being_fetched(world: Any, launch: Make) -> None:
    async def main() -> None:
        silent = Silent()
        async with world() as w, await silent.open():
            key = await w.desk.start(launch("true", mounts=[Repo(url=silent.url, target="code")]))
            await asyncio.wait_for(silent.asked.wait(), PATIENCE)
            await w.desk.send(Stop(key, 5.0))
            held = await w.desk.done(key)
            assert held.outcome.kind == "stopped"
            assert [phase.name for phase in held.phases][:2] == ["claim", "fetch"]
            assert DATA.isdisjoint(path.name for path in w.attempt(key).iterdir())

    asyncio.run(main())


def test_files_that_cannot_be_fetched_are_asked_for_until_a_stop(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            files = Files("data", "data", tree=Digest("0" * 64))
            key = await w.desk.start(launch("true", mounts=[files]))
            await w.desk.until(
                lambda: key in w.desk.held and w.desk.held[key].phases[-1].name == "fetch"
            )
            await w.desk.send(Stop(key, None))
            held = await w.desk.done(key)
            assert held.outcome.kind == "stopped"
            assert [phase.name for phase in held.phases][:2] == ["claim", "fetch"]

    asyncio.run(main())


def test_stop_of_an_unknown_attempt_is_answered(world: Any) -> None:
    async def main() -> None:
        async with world() as w:
            await w.desk.send(Stop("99.1.0", None))
            held = await w.desk.done("99.1.0")
            assert held.outcome.kind == "stopped"

    asyncio.run(main())


def test_failures_name_their_phase(world: Any, launch: Make, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            missing = HostPath(str(tmp_path / "no" / "such"), "data")
            held = await w.desk.run(launch("true", mounts=[missing]))
            assert (held.outcome.kind, held.outcome.phase) == ("phase-failed", "fetch")
            assert "does not exist" in held.outcome.message
            assert [phase.name for phase in held.phases] == ["claim", "fetch", "unmount", "clean"]
            held = await w.desk.run(launch("true", job=2, shell="/no/such/shell"))
            assert (held.outcome.kind, held.outcome.phase) == ("phase-failed", "prolog")
            held = await w.desk.run(launch("true", job=3, python="2.1"))
            assert held.outcome.phase == "prolog"
            held = await w.desk.run(launch("true", job=4, working_dir="/no/such/place"))
            assert (held.outcome.kind, held.outcome.phase) == ("phase-failed", "run")
            held = await w.desk.run(launch("true", job=5))
            assert held.outcome == Outcome("exited", exit_code=0)

    asyncio.run(main())


def test_a_disk_that_refuses_the_claim_is_said(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            await w.desk.run(launch("true"))
            attempts = w.directory / "attempts"
            attempts.rmdir()
            attempts.write_text("in the way")
            held = await w.desk.run(launch("true", job=2))
            assert (held.outcome.kind, held.outcome.phase) == ("phase-failed", "claim")
            attempts.unlink()
            attempts.mkdir()
            held = await w.desk.run(launch("true", job=3))
            assert held.outcome.exit_code == 0

    asyncio.run(main())


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_said_and_the_next_job_runs(
    world: Any, launch: Make, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], check=True)

    async def main() -> None:
        async with world() as w:
            filler = tmp_path / "filler"
            with pytest.raises(OSError, match="No space"):
                filler.write_bytes(bytes(8_000_000))
            held = await w.desk.run(launch("true"))
            assert held.outcome.kind == "phase-failed"
            assert "disk is full" in held.outcome.message
            assert not any((w.directory / "attempts").iterdir())
            filler.unlink()
            # This one fills it by itself, and still has its end.
            held = await w.desk.run(launch("cat /dev/zero > big; exit 6", job=2))
            assert held.outcome.exit_code == 6
            held = await w.desk.run(launch("true", job=3))
            assert held.outcome.exit_code == 0

    try:
        asyncio.run(main())
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_timeout_is_told_apart(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            held = await w.desk.run(launch("sleep 60", max_duration=0.2, stop_duration=1.0))
            assert held.outcome.kind == "timeout"

    asyncio.run(main())


def test_output_is_followed_from_any_place(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world("--log-limit", "200000") as w:
            key = await w.desk.start(
                launch("seq 1 100000; echo ready", "read line < /dev/null; sleep 60")
            )
            offset = 0
            while True:
                page = await w.desk.ask(ReadLog(3, key, offset, wait=True))
                offset = page.offset + len(page.data)
                if page.data.endswith(b"ready\n"):
                    break
            tail = await w.desk.ask(ReadLog(4, key, -6))
            assert (tail.data, tail.ended) == (b"ready\n", False)
            first = await w.desk.ask(ReadLog(5, key))
            assert first.offset > 0
            assert first.data.split(b"\n")[0].isdigit()
            await w.desk.send(ReadLog(6, key, offset, wait=True))
            await w.desk.send(Stop(key, 0))
            page = await w.desk.until(lambda: w.desk.answers.get(6))
            assert (page.data, page.ended) == (b"", True)
            assert (await w.desk.ask(ReadLog(8, "5.5.5", wait=True))).missing

    asyncio.run(main())


def test_a_flood_of_output_is_bounded_and_ends_the_job_well(world: Any, launch: Make) -> None:
    limit, size = 5_000_000, 50_000_000

    async def main() -> None:
        async with world("--log-limit", str(limit)) as w:
            key = await w.desk.start(launch(f"yes 0123456789 | head -c {size}; echo end"))
            held = await w.desk.done(key)
            assert held.outcome.exit_code == 0
            path = w.directory / "logs" / key / "output.log"
            assert path.stat().st_blocks * 512 <= limit + 65_536
            first = await w.desk.ask(ReadLog(1, key))
            assert first.offset >= size - limit
            last = await w.desk.ask(ReadLog(2, key, -4))
            assert (last.offset, last.data, last.ended) == (size, b"end\n", True)
            await w.desk.send(DropLogs([key]))
            assert (await w.desk.ask(ReadLog(3, key))).missing

    asyncio.run(main())


def test_probe_says_what_would_go_wrong(world: Any, launch: Make, tmp_path: Path) -> None:
    async def main() -> None:
        async with world() as w:
            good = await w.desk.ask(Probe(1, launch("true")))
            assert good.problems == []
            bad = launch(
                "true",
                shell="/no/shell",
                python="2.1",
                working_dir="/no/such/place",
                mounts=[HostPath(str(tmp_path / "a" / "b"), "data", read_only=True)],
                limits=Limits(memory=1 << 30),
            )
            result = await w.desk.ask(Probe(2, bad))
            assert len(result.problems) == 4
            assert all("\n" not in line for line in result.problems)
            assert not any((w.directory / "attempts").iterdir())

    asyncio.run(main())


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a private mount namespace needs root here")
def test_the_job_sees_its_own_places(world: Any, launch: Make, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "input").write_text("42\n")

    async def main() -> None:
        async with world() as w:
            mounts = [
                HostPath(str(volume), "/data/in", read_only=True),
                HostPath(str(volume), "out"),
            ]
            key = await w.desk.start(
                launch(
                    "pwd; cat /data/in/input; ls -A /tmp /dev/shm; echo $MOORAGE_WORKDIR",
                    "touch /data/in/x 2>/dev/null || echo read-only; touch out/written",
                    mounts=mounts,
                )
            )
            held = await w.desk.done(key)
            text = await w.desk.log(key)
            assert held.outcome.exit_code == 0, text
            assert text.splitlines()[:2] == ["/workflow", "42"]
            assert "read-only" in text
            assert (volume / "written").exists()
            assert not Path("/data/in").exists()

    asyncio.run(main())
