"""What happens to attempts when agents, keepers and servers die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moorage.agent.claims import JOURNAL, Claims
from moorage.agent.keeper.main import group_name
from moorage.protocol import VERSION
from moorage.protocol.agent import Forget, Launch, ReadLog, Stop, Welcome
from moorage.specs.mounts import HostPath
from system.agent_harness import PATIENCE

Make = Callable[..., Launch]
DATA = {"work", "files", "scratch", "tmp", "vartmp", "bin", "script"}


def lives(pid: int) -> bool:
    """A zombie does not: whether it is reaped is up to the machine's first process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


def test_a_killed_agent_loses_neither_job_nor_output(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            key = await w.desk.start(
                launch("echo one; mkfifo gate; read line < gate; echo two; exit 7")
            )
            assert (await w.desk.ask(ReadLog(1, key, wait=True))).data == b"one\n"
            await w.desk.reaches(key, "running")
            pid = json.loads((w.attempt(key) / "spawned.json").read_text())["pid"]
            await w.end_agent(signal.SIGKILL)
            assert lives(pid)
            await w.start_agent()
            hello = w.desk.hellos[-1]
            assert [(held.key, held.state) for held in hello.held] == [(key, "running")] or (
                await w.desk.reaches(key, "running")
            )
            waiting = asyncio.create_task(w.desk.log(key))
            await asyncio.to_thread((w.attempt(key) / "work" / "gate").write_text, "go\n")
            held = await w.desk.done(key)
            assert (held.outcome.kind, held.outcome.exit_code) == ("exited", 7)
            assert await waiting == "one\ntwo\n"
            await w.desk.send(Forget([key]))

    asyncio.run(main())


def test_a_process_whose_launch_cannot_be_read_is_ended(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            key = await w.desk.start(launch("echo up; sleep 100"))
            await w.desk.ask(ReadLog(1, key, wait=True))
            await w.desk.reaches(key, "running")
            await w.end_agent(signal.SIGKILL)
            pid = json.loads((w.attempt(key) / "spawned.json").read_text())["pid"]
            (w.attempt(key) / "launch.msgpack").write_bytes(b"of another version")
            await w.start_agent()
            held = await w.desk.done(key)
            assert (held.outcome.kind, lives(pid)) == ("lost", False)
            assert "cannot be read" in held.outcome.message

    asyncio.run(main())


def test_an_agent_that_leaves_takes_an_idle_keeper_along(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            await w.desk.run(launch("true"))
            keeper = os.pidfd_open(int((w.directory / "keeper.pid").read_text()))
            gone = asyncio.Event()
            asyncio.get_running_loop().add_reader(keeper, gone.set)
            assert await w.end_agent() == 0
            await asyncio.wait_for(gone.wait(), PATIENCE)
            asyncio.get_running_loop().remove_reader(keeper)
            os.close(keeper)
            name = group_name(str(w.directory))
            assert not list(Path("/sys/fs/cgroup").glob(f"*/moorage/{name}"))

    asyncio.run(main())


def test_a_job_that_ends_while_no_agent_is_there_keeps_its_exit_code(
    world: Any, launch: Make
) -> None:
    async def main() -> None:
        async with world() as w:
            key = await w.desk.start(launch("mkfifo gate; echo up; read line < gate; exit 9"))
            await w.desk.ask(ReadLog(1, key, wait=True))
            await w.desk.reaches(key, "running")
            assert await w.end_agent() == 0
            pid = json.loads((w.attempt(key) / "spawned.json").read_text())["pid"]
            end = os.pidfd_open(pid)
            gone = asyncio.Event()
            asyncio.get_running_loop().add_reader(end, gone.set)
            await asyncio.to_thread((w.attempt(key) / "work" / "gate").write_text, "go\n")
            await asyncio.wait_for(gone.wait(), PATIENCE)
            asyncio.get_running_loop().remove_reader(end)
            os.close(end)
            await w.start_agent()
            held = await w.desk.done(key)
            assert (held.outcome.kind, held.outcome.exit_code) == ("exited", 9)
            assert DATA.isdisjoint(path.name for path in w.attempt(key).iterdir())
            assert (await w.desk.ask(ReadLog(2, key))).data == b"up\n"

    asyncio.run(main())


@pytest.mark.parametrize("phase", ["", "claim", "fetch", "mount", "prolog"])
def test_an_attempt_without_a_process_is_undone(world: Any, launch: Make, phase: str) -> None:
    async def main() -> None:
        async with world() as w:
            await w.end_agent(signal.SIGKILL)
            claims = Claims(w.directory / "attempts")
            claim = claims.take(launch("true"))
            assert claim is not None
            for name in ("claim", "fetch", "mount", "prolog"):
                if phase:
                    claim.begin(name)  # type: ignore[arg-type]
                if name == phase:
                    break
                if phase:
                    claim.end(name)  # type: ignore[arg-type]
            (claim.directory / "work").mkdir()
            (claim.directory / "work" / "half").write_text("written")
            if not phase:
                (claim.directory / "launch.msgpack").unlink()
            claims.close()
            await w.start_agent()
            held = await w.desk.done("1.1.0")
            assert held.outcome.kind == "unstarted"
            assert "before the process was started" in held.outcome.message
            assert DATA.isdisjoint(path.name for path in claim.directory.iterdir())
            await w.desk.forget("1.1.0")
            assert not claim.directory.exists()

    asyncio.run(main())


def forget_the_end(directory: Path) -> None:
    """As if the agent had been killed before it wrote the last line of its journal."""
    journal = directory / JOURNAL
    *others, final = journal.read_bytes().split(b"\n")
    assert b'"final":true' in final
    journal.write_bytes(b"\n".join(others))


def test_an_agent_that_dies_after_deciding_only_tidies_up(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            await w.desk.start(launch("exit 5", job=1))
            await w.desk.done("1.1.0")
            await w.end_agent(signal.SIGKILL)
            directory = w.attempt("1.1.0")
            # As if it had been killed in `clean`.
            forget_the_end(directory)
            (directory / "work").mkdir()
            w.desk.held.clear()
            await w.start_agent()
            held = await w.desk.done("1.1.0")
            assert held.outcome.exit_code == 5
            assert not (directory / "work").exists()

    asyncio.run(main())


def test_agents_killed_again_and_again_never_run_a_job_twice(
    world: Any, launch: Make, tmp_path: Path
) -> None:
    async def main() -> None:
        async with world() as w:
            out = HostPath(str(tmp_path), "out")
            for turn in range(4):
                jobs = range(turn * 8 + 1, turn * 8 + 9)
                for job in jobs:
                    await w.desk.start(
                        launch(f"echo {job} >> out/ran; exit {job}", job=job, mounts=[out])
                    )
                # Somewhere in the middle of eight attempts, at another point each time; or after
                # them, where there was so much to do here that few reports told it all.
                seen = len(w.desk.reports) + turn
                ends = {(f"{job}.1.0", "done") for job in jobs}
                await w.desk.until(
                    lambda seen=seen, ends=ends: (
                        len(w.desk.reports) > seen or ends <= set(w.desk.history)
                    )
                )
                await w.end_agent(signal.SIGKILL)
                await w.start_agent()
            started = {held for hello in w.desk.hellos for held in (h.key for h in hello.held)}
            for key in started | set(w.desk.held):
                held = await w.desk.done(key)
                job = int(key.split(".")[0])
                assert held.outcome.kind == "unstarted" or held.outcome.exit_code == job
                assert DATA.isdisjoint(path.name for path in w.attempt(key).iterdir())
            ran = [int(line) for line in (tmp_path / "ran").read_text().split()]
            assert len(ran) == len(set(ran))
            for job in ran:
                assert w.desk.held[f"{job}.1.0"].outcome.exit_code == job

    asyncio.run(main())


def test_a_dead_keeper_means_a_dead_job(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            key = await w.desk.start(launch("echo up; sleep 60"))
            await w.desk.ask(ReadLog(1, key, wait=True))
            pid = json.loads((w.attempt(key) / "spawned.json").read_text())["pid"]
            w.kill_keeper()
            held = await w.desk.done(key)
            assert held.outcome.kind == "lost"
            assert not lives(pid)
            held = await w.desk.run(launch("exit 2", job=2))
            assert held.outcome.exit_code == 2

    asyncio.run(main())


def test_a_rebooted_node_reports_its_jobs_as_lost(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            key = await w.desk.start(launch("exit 0"))
            await w.desk.done(key)
            await w.end_agent(signal.SIGKILL)
            directory = w.attempt(key)
            forget_the_end(directory)
            (directory / "exit.json").unlink()
            spawned = json.loads((directory / "spawned.json").read_text())
            spawned["boot_id"] = "another"
            (directory / "spawned.json").write_text(json.dumps(spawned))
            await w.end_keeper()
            w.desk.held.clear()
            await w.start_agent()
            assert (await w.desk.done(key)).outcome.kind == "lost"

    asyncio.run(main())


def test_jobs_go_on_without_a_server(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            key = await w.desk.start(launch("mkfifo gate; echo up; read line < gate; exit 3"))
            await w.desk.ask(ReadLog(1, key, wait=True))
            await w.desk.close()
            await asyncio.to_thread((w.attempt(key) / "work" / "gate").write_text, "go\n")
            await w.desk.open()
            await w.desk.connected(2)
            held = await w.desk.done(key)
            assert held.outcome.exit_code == 3
            assert "no server" in w.words() or "connection" in w.words()

    asyncio.run(main())


def test_an_unacknowledged_end_is_told_again(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            w.desk.acking = False
            key = await w.desk.start(launch("exit 1"))
            await w.desk.reaches(key, "staging", "running", "finishing", "done")
            await w.desk.close()
            w.desk.held.clear()
            w.desk.acking = True
            await w.desk.open()
            held = await w.desk.done(key)
            assert held.outcome.exit_code == 1

    asyncio.run(main())


def test_stop_reaches_a_job_after_the_agent_was_replaced(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            key = await w.desk.start(launch("echo up; sleep 60"))
            await w.desk.ask(ReadLog(1, key, wait=True))
            await w.end_agent(signal.SIGKILL)
            await w.start_agent()
            await w.desk.send(Stop(key, 2.0))
            assert (await w.desk.done(key)).outcome.kind == "stopped"

    asyncio.run(main())


def test_a_second_agent_in_one_home_leaves(world: Any) -> None:
    async def main() -> None:
        async with world() as w:
            first = w.agent
            second = await w.start_agent(wait=False)
            assert await asyncio.wait_for(second.wait(), PATIENCE) == 1
            assert f"another agent (pid {first.pid})" in w.words()
            w.agent = first

    asyncio.run(main())


def test_another_protocol_ends_the_agent_with_a_reason(world: Any) -> None:
    async def main() -> None:
        async with world() as w:
            await w.end_agent()
            w.desk.welcome = Welcome(VERSION + 1, "9.9.9", 1, 1)
            agent = await w.start_agent()
            assert await asyncio.wait_for(agent.wait(), PATIENCE) == 6
            assert "install the same version" in w.words()

    asyncio.run(main())


def test_a_server_that_was_replaced_is_not_obeyed(world: Any, launch: Make) -> None:
    async def main() -> None:
        async with world() as w:
            await w.end_agent()
            w.desk.welcome = Welcome(VERSION, "0.1.0", 5, 1)
            await w.start_agent()
            w.desk.welcome = Welcome(VERSION, "0.1.0", 4, 1)
            await w.desk.close()
            await w.desk.open()
            await w.desk.connected(4)
            assert "a newer one (5)" in w.words()
            w.desk.welcome = Welcome(VERSION, "0.1.0", 6, 1)
            await w.desk.close()
            await w.desk.open()
            times = len(w.desk.hellos)
            await w.desk.connected(times + 1)

    asyncio.run(main())


def test_bad_arguments_are_said_in_a_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "moorage.agent.main", "--server", "nonsense", "--home", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "write http://HOST:PORT" in done.stderr
