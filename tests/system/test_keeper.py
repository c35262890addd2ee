"""The keeper with real processes. `test_keeper_user.py` runs this file again as another user."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moorage.agent.keeper.main import group_name
from moorage.agent.keeping import Cause, ExitRecord, Keeper, SpawnError, read_exit
from moorage.agent.process import outcome
from moorage.errors import Unavailable
from moorage.protocol.agent import Isolation, Limits
from system.keeper_harness import House, gone, grows, keeper_pid, modes, play

LONG = "sleep 1000"


@pytest.fixture(params=["probed", "plain"])
def isolation(request: pytest.FixtureRequest, tmp_path: Path) -> Isolation:
    return modes(tmp_path / "agent")[request.param]


def test_the_last_command_decides_and_is_named(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        record, output = await house.run(
            1, "cd /", "export A=1", "pwd; echo $A; exit 3", "echo no"
        )
        assert (record.exit_code, record.signal, record.command) == (3, None, 3)
        assert output == "/\n1\n"
        told = outcome(house.launch(1, "cd /", "export A=1", "exit 3", "echo no"), record)
        assert told.message == "command 3 of 4 (exit 3) failed with exit code 3"
        assert read_exit(house.directory(1)) == record

    play(tmp_path / "agent", isolation, scenario)


def test_a_signal_is_told_apart(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        record, _ = await house.run(1, "kill -SEGV $$")
        assert (record.exit_code, record.signal) == (None, signal.SIGSEGV)
        record, _ = await house.run(2, "sh -c 'kill -KILL $$'")
        assert record.exit_code == 128 + signal.SIGKILL
        told = outcome(house.launch(2, "x"), record)
        assert (told.kind, told.signal) == ("signaled", signal.SIGKILL)

    play(tmp_path / "agent", isolation, scenario)


def test_a_job_ignores_no_signal_because_whoever_started_the_keeper_did(
    tmp_path: Path, isolation: Isolation
) -> None:
    async def scenario(house: House) -> None:
        for number, command in enumerate(("grep SigIgn /proc/self/status", "true; {}"), 1):
            command = command.format("grep SigIgn /proc/self/status")
            _, output = await house.run(number, command)
            ignored = int(output.split()[-1], 16)
            assert not [number for number in numbers if ignored >> (number - 1) & 1]

    numbers = (signal.SIGUSR1, signal.SIGHUP, signal.SIGTSTP, signal.SIGRTMIN)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        play(tmp_path / "agent", isolation, scenario)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_a_plain_command_may_make_a_group_and_signal_it(
    tmp_path: Path, isolation: Isolation
) -> None:
    async def scenario(house: House) -> None:
        code = "'import os; os.setpgrp(); print(os.getpgrp() == os.getpid()); os.killpg(0, 9)'"
        record, output = await house.run(1, f"python3 -uc {code}")
        assert (record.exit_code, output.splitlines()[0]) == (128 + signal.SIGKILL, "True")
        assert (await house.run(2, "true"))[0].exit_code == 0

    play(tmp_path / "agent", isolation, scenario)


def test_both_streams_keep_their_order(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        _, output = await house.run(1, "for i in 1 2 3; do echo out $i; echo err $i >&2; done")
        assert output.split("\n") == [f"{s} {i}" for i in "123" for s in ("out", "err")] + [""]

    play(tmp_path / "agent", isolation, scenario)


def test_standard_input_is_empty_and_no_descriptor_leaks(
    tmp_path: Path, isolation: Isolation
) -> None:
    async def scenario(house: House) -> None:
        _, output = await house.run(1, "cat; exec sh -c 'ls /proc/$$/fd'")
        # 10 and 255 are the shells' own: how they read the script.
        assert set(output.split()) - {"10", "255"} == {"0", "1", "2"}

    play(tmp_path / "agent", isolation, scenario)


def test_max_duration_ends_even_who_does_not_listen(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        deaf = f"trap '' TERM; (setsid sh -c 'trap \"\" TERM; {LONG}; {LONG}' &); {LONG}; {LONG}"
        # Long enough for a shell to set its trap on a busy machine.
        record, _ = await house.run(1, deaf, max_duration=3.0, stop_duration=0.3)
        assert (record.cause, record.signal) == ("timeout", signal.SIGKILL)
        assert record.ended - record.began >= 3.2

    play(tmp_path / "agent", isolation, scenario)


def test_a_stop_asks_first(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        await house.spawn(
            1, f"trap 'echo bye; exit 7' TERM; echo ready; {LONG} & while :; do wait; done"
        )
        await house.line(1, "ready")
        assert await house.keeper.stop("1.1.0", None)
        record = await house.end(1)
        assert (record.cause, record.exit_code) == ("stopped", 7)
        assert house.output(1).read_text() == "ready\nbye\n"
        assert not await house.keeper.stop("1.1.0", 0)

    play(tmp_path / "agent", isolation, scenario)


SAVES = """trap '' INT; python3 -c "
import os, signal, sys, time
def save(*_):
    os.write(1, b'saving\\n')
    time.sleep({})
    os.write(1, b'saved\\n')
    sys.exit()
signal.signal(signal.SIGTERM, save)
os.write(1, b'ready\\n')
time.sleep(1000)" """


def test_who_saves_has_its_time_though_the_shell_is_gone(
    tmp_path: Path, isolation: Isolation
) -> None:
    async def scenario(house: House) -> None:
        for number, grace in ((1, 20.0), (2, None)):
            await house.spawn(number, SAVES.format(0.3))
            await house.line(number, "ready")
            assert await house.keeper.stop(f"{number}.1.0", grace)
            record = await house.end(number)
            assert (record.cause, record.signal, record.left) == ("stopped", signal.SIGTERM, 0)
            assert house.output(number).read_text() == "ready\nsaving\nsaved\n"

    play(tmp_path / "agent", isolation, scenario)


def test_the_end_of_one_job_does_not_end_what_another_still_saves(
    tmp_path: Path, isolation: Isolation
) -> None:
    async def scenario(house: House) -> None:
        await house.spawn(1, SAVES.format(1))
        await house.line(1, "ready")
        assert await house.keeper.stop("1.1.0", 20.0)
        await house.line(1, "saving")
        record, _ = await house.run(2, "true")
        assert record.left == 0
        record = await house.end(1)
        assert (record.cause, record.left) == ("stopped", 0)
        assert house.output(1).read_text() == "ready\nsaving\nsaved\n"

    play(tmp_path / "agent", isolation, scenario)


def test_who_saves_for_too_long_is_killed(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        await house.spawn(1, SAVES.format(1000))
        await house.line(1, "ready")
        assert await house.keeper.stop("1.1.0", 0.5)
        record = await house.end(1)
        assert record.cause == "stopped"
        # On a busy machine its time may be over before it has begun.
        assert house.output(1).read_text() in ("ready\n", "ready\nsaving\n")

    play(tmp_path / "agent", isolation, scenario)


@pytest.mark.parametrize(("seconds", "cause"), [(0.0, "aborted"), (0.2, "stopped")])
def test_the_time_of_who_saves_can_be_shortened(
    tmp_path: Path, isolation: Isolation, seconds: float, cause: Cause
) -> None:
    async def scenario(house: House) -> None:
        await house.spawn(1, SAVES.format(1000))
        await house.line(1, "ready")
        assert await house.keeper.stop("1.1.0", 1000)
        await house.line(1, "saving")
        assert await house.keeper.stop("1.1.0", seconds, cause)
        record = await house.end(1)
        assert record.cause == cause
        assert house.output(1).read_text() == "ready\nsaving\n"

    play(tmp_path / "agent", isolation, scenario)


def test_who_saves_is_told_once(tmp_path: Path, isolation: Isolation) -> None:
    """Servers that come back say it again, and a busy machine is slow to end shells."""

    async def scenario(house: House) -> None:
        await house.spawn(1, "trap : TERM", SAVES.format(0.3))
        await house.line(1, "ready")
        assert await house.keeper.stop("1.1.0", 1000)
        await house.line(1, "saving")
        assert await house.keeper.stop("1.1.0", 500)
        assert (await house.end(1)).cause == "stopped"
        assert house.output(1).read_text() == "ready\nsaving\nsaved\n"

    play(tmp_path / "agent", isolation, scenario)


def test_an_abort_shortens_a_stop(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        await house.spawn(1, f"trap '' TERM; echo ready; {LONG}; {LONG}")
        await house.line(1, "ready")
        await house.keeper.stop("1.1.0", 1000)
        await house.keeper.stop("1.1.0", 0, "aborted")
        record = await house.end(1)
        assert (record.cause, record.signal) == ("aborted", signal.SIGKILL)

    play(tmp_path / "agent", isolation, scenario)


def test_ends_that_are_told_together_are_told_before_the_keeper_leaves(
    tmp_path: Path, isolation: Isolation
) -> None:
    async def scenario(house: House) -> None:
        numbers = range(1, 13)
        for number in numbers:
            await house.spawn(number, f"echo ready; {LONG}")
        for number in numbers:
            assert await house.keeper.stop(f"{number}.1.0", 0, "aborted")
        records = [await house.end(number) for number in numbers]
        assert {record.cause for record in records} == {"aborted"}

    play(tmp_path / "agent", isolation, scenario)


def test_what_a_job_leaves_behind_is_killed(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        await house.spawn(9, f"echo ready; {LONG}")
        await house.line(9, "ready")
        record, output = await house.run(
            1, f"{LONG} & echo $!", f"(setsid sh -c 'echo $$; {LONG}; true' &)", "sleep 0.1"
        )
        assert record.exit_code == 0
        assert record.left >= 2
        assert all(gone(int(pid)) for pid in output.split())
        assert await house.keeper.running() == {"9.1.0": house_pid(house, 9)}
        await house.keeper.stop("9.1.0", 0, "aborted")
        await house.end(9)

    play(tmp_path / "agent", isolation, scenario)


def house_pid(house: House, number: int) -> int:
    spawned = json.loads((house.directory(number) / "spawned.json").read_text())
    return int(spawned["pid"])


def test_a_key_starts_once(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        request = house.request(house.launch(1, "echo once; read x"))
        pids = await asyncio.gather(*(house.keeper.spawn(request) for _ in range(5)))
        assert len(set(pids)) == 1
        await house.end(1)
        assert await house.keeper.spawn(request) == pids[0]
        house.keeper.forget("1.1.0")
        assert await house.keeper.ended() == {}
        with pytest.raises(SpawnError, match="started before"):
            await house.keeper.spawn(request)
        assert house.output(1).read_text() == "once\n"

    play(tmp_path / "agent", isolation, scenario)


def test_every_client_hears_of_an_end(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        heard: asyncio.Future[tuple[str, ExitRecord]] = asyncio.get_running_loop().create_future()
        second = Keeper(house.home, lambda key, record: heard.set_result((key, record)))
        await second.connect()
        await house.run(1, "exit 4")
        key, record = await asyncio.wait_for(heard, 30)
        assert (key, record.exit_code) == ("1.1.0", 4)
        assert (await second.ended())["1.1.0"] == record
        await second.close()

    play(tmp_path / "agent", isolation, scenario)


def test_an_end_is_recorded_while_nobody_listens(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        fifo = house.directory(1) / "gate"
        os.mkfifo(fifo)
        pid = await house.spawn(1, f"read x < {fifo}; exit 5")
        await house.keeper.close()
        fifo.write_text("go\n")
        assert await asyncio.to_thread(gone, pid)
        await house.keeper.connect()
        if await house.keeper.running():
            await house.end(1)
        record = read_exit(house.directory(1))
        assert record is not None
        assert record.exit_code == 5

    play(tmp_path / "agent", isolation, scenario)


CLIENT = """
import asyncio, os, signal, sys
from pathlib import Path
import msgspec
from moorage.agent.keeping import Keeper, SpawnRequest

async def main():
    keeper = Keeper(Path(sys.argv[1]), lambda key, record: None)
    await keeper.connect()
    await keeper.spawn(msgspec.json.decode(sys.stdin.buffer.read(), type=SpawnRequest))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_jobs_outlive_the_agent(tmp_path: Path, isolation: Isolation) -> None:
    import msgspec

    async def scenario(house: House) -> None:
        fifo = house.directory(1) / "gate"
        os.mkfifo(fifo)
        request = house.request(house.launch(1, f"read x < {fifo}; exit 6"))
        agent = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", CLIENT, str(house.home)],
            input=msgspec.json.encode(request),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert agent.returncode == -signal.SIGKILL
        assert list(await house.keeper.running()) == ["1.1.0"]
        fifo.write_text("go\n")
        assert (await house.end(1)).exit_code == 6

    play(tmp_path / "agent", isolation, scenario)


def test_what_a_dead_keeper_leaves_is_buried(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        pid = await house.spawn(1, f"(setsid sh -c 'echo $$; {LONG}; true' &)", LONG)
        output = house.output(1)
        await grows(output, lambda text: text.endswith("\n"))
        stray = int(output.read_text())
        os.kill(keeper_pid(house.home), signal.SIGKILL)
        await asyncio.wait_for(house.lost.wait(), 30)
        await house.keeper.connect()
        assert await house.keeper.running() == {}
        await house.keeper.bury("1.1.0", house.directory(1))
        assert gone(pid)
        assert gone(stray)
        record = read_exit(house.directory(1))
        assert record is not None
        assert record.cause == "lost"
        assert outcome(house.launch(1, "x"), record).kind == "lost"

    play(tmp_path / "agent", isolation, scenario)


def test_what_was_never_started_is_not_called_lost_on_the_way(
    tmp_path: Path, isolation: Isolation
) -> None:
    async def scenario(house: House) -> None:
        request = house.request(house.launch(1, "true"))
        await house.keeper.bury("1.1.0", house.directory(1))
        record = read_exit(house.directory(1))
        assert record is not None
        told = outcome(house.launch(1, "true"), record)
        assert (told.kind, told.message) == (
            "unstarted", "its process was never started: the keeper or the agent died before"
        )  # fmt: skip
        with pytest.raises(SpawnError, match="given up"):
            await house.keeper.spawn(request)

    play(tmp_path / "agent", isolation, scenario)


def test_a_keeper_that_leaves_starts_nothing(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        _, spawned = await asyncio.gather(
            house.keeper.dismiss(), house.spawn(1, LONG), return_exceptions=True
        )
        assert isinstance(spawned, Unavailable)
        assert not (house.directory(1) / "spawned.json").exists()
        await house.keeper.connect()
        assert await house.keeper.running() == {}

    play(tmp_path / "agent", isolation, scenario)


def test_an_idle_keeper_that_is_killed_leaves_no_control_group(
    tmp_path: Path, isolation: Isolation
) -> None:
    async def scenario(house: House) -> None:
        os.kill(keeper_pid(house.home), signal.SIGKILL)
        await asyncio.wait_for(house.lost.wait(), 30)
        assert not list(Path("/sys/fs/cgroup").glob(f"*/moorage/{group_name(str(house.home))}"))
        await house.keeper.connect()

    play(tmp_path / "agent", isolation, scenario)


def test_a_burial_leaves_other_agents_alone(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        await house.spawn(1, f"echo ready; {LONG}")
        await house.line(1, "ready")
        other = House(tmp_path / "other", isolation)
        await other.keeper.connect()
        await other.keeper.bury("1.1.0", other.directory(1))
        assert await other.keeper.dismiss()
        await other.keeper.close()
        await house.keeper.stop("1.1.0", 0, "aborted")
        assert (await house.end(1)).cause == "aborted"

    play(tmp_path / "agent", isolation, scenario)


def test_what_cannot_start_says_why_and_may_be_tried_again(
    tmp_path: Path, isolation: Isolation
) -> None:
    async def scenario(house: House) -> None:
        with pytest.raises(SpawnError, match="working directory /nowhere: No such") as error:
            await house.spawn(1, "true", working_dir="/nowhere")
        assert error.value.step == "cwd"
        record, _ = await house.run(1, "true")
        assert record.exit_code == 0

    play(tmp_path / "agent", isolation, scenario)


def test_the_output_must_be_writable(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        house.home.joinpath("logs").write_text("in the way")
        with pytest.raises(SpawnError, match="cannot write the output to") as error:
            await house.spawn(1, "true")
        assert error.value.step == "output"

    play(tmp_path / "agent", isolation, scenario)


def test_a_plain_command_needs_no_shell_and_shows_no_difference(
    tmp_path: Path, isolation: Isolation
) -> None:
    """The first of each pair is executed as it is; `:;` makes a shell do it."""

    async def scenario(house: House) -> None:
        place = house.home / "programs"
        place.mkdir(parents=True)
        for name, text in (
            ("ok", "#!/bin/sh\nexit 3\n"),
            ("bare", "exit 4\n"),
            ("bad", "#!/no/such\n"),
            ("dies", "#!/bin/sh\nkill -KILL $$\n"),
        ):
            (place / name).write_text(text)
            (place / name).chmod(0o755)
        (place / "text").write_text("x")
        env = {"PATH": f"{place}:{os.environ['PATH']}"}
        commands = ["true", "false", "echo a 'b  c'", "no-such", f"{place}/text", f"{place}", "ok"]
        commands += ["bare", "bad", "dies", "sh -c 'kill -SEGV $$'", "readlink /proc/self/cwd"]
        for number, command in enumerate(commands, start=1):
            plain, said = await house.run(number, command, env=env)
            shell, told = await house.run(100 + number, f":; {command}", env=env)
            tell = [outcome(house.launch(1, command), record) for record in (plain, shell)]
            assert tell[0] == tell[1], command
            assert plain.command == shell.command == 1
            if tell[0].signal is None:  # else the shell says so too, in a line of its own
                assert lasting(said) == lasting(told), command
        variables = []
        for number, command in ((200, "env"), (201, ":; env")):
            _, text = await house.run(number, command)
            variables.append({line for line in text.splitlines() if "/200." not in line
                              and "/201." not in line and "MARK" not in line})  # fmt: skip
        assert variables[0] == variables[1]

    play(tmp_path / "agent", isolation, scenario)


def lasting(output: str) -> str:
    """Without the names of attempts."""
    return re.sub(r"\d+\.1\.0", "", output)


def test_fifty_at_once(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        numbers = range(1, 51)
        await asyncio.gather(*(house.spawn(n, f"exit {n}") for n in numbers))
        records = [await house.end(n) for n in numbers]
        assert [record.exit_code for record in records] == list(numbers)

    play(tmp_path / "agent", isolation, scenario)


def test_a_deep_home_has_a_socket_too(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        record, _ = await house.run(1, "true")
        assert record.exit_code == 0

    play(tmp_path / ("d" * 90) / ("e" * 90), isolation, scenario)


@pytest.mark.root
def test_leaving_the_control_group_is_no_way_out(tmp_path: Path) -> None:
    isolation = modes(tmp_path / "agent")["probed"]
    if isolation.cgroup is not None:
        pytest.skip(isolation.cgroup)

    async def scenario(house: House) -> None:
        await house.spawn(2, LONG)
        leave = "for f in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs"
        record, output = await house.run(
            1, f"{leave}; do echo 0 > $f; done 2>/dev/null", f"(setsid {LONG} & echo $!)"
        )
        assert record.exit_code == 0
        assert record.left
        assert gone(int(output))
        await house.keeper.stop("2.1.0", 0, "aborted")
        await house.end(2)

    play(tmp_path / "agent", isolation, scenario)


def kills_whole_groups() -> bool:
    """Whether memory is a matter of cgroup v2, which takes a job as one."""
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    return controllers.exists() and "memory" in controllers.read_text()


@pytest.mark.root
def test_out_of_memory_is_told_apart(tmp_path: Path) -> None:
    isolation = modes(tmp_path / "agent")["probed"]
    if isolation.cgroup is not None:
        pytest.skip(isolation.cgroup)

    async def scenario(house: House) -> None:
        eat = "python3 -c 'bytearray(200 << 20)'"
        limits = Limits(memory=64 << 20)
        record, _ = await house.run(1, eat, limits=limits)
        assert record.cause == "out-of-memory"
        assert record.memory_peak == 64 << 20
        told = outcome(house.launch(1, eat, limits=limits), record)
        assert told.kind == "out-of-memory"
        assert told.message.startswith("out of memory: the limit was 64 MB, peak 64 MB; command 1")
        if kills_whole_groups():
            record, _ = await house.run(2, f"{eat} || exit 3", limits=limits)
            assert (record.cause, record.signal) == ("out-of-memory", signal.SIGKILL)
            return
        record, _ = await house.run(2, f"{eat} || exit 3", limits=limits)
        assert (record.cause, record.exit_code) == ("out-of-memory", 3)
        record, _ = await house.run(3, f"{eat} || true", limits=limits)
        assert (record.cause, record.exit_code, record.oom_kills) == (None, 0, 1)

    play(tmp_path / "agent", isolation, scenario)


@pytest.mark.root
def test_cpu_and_process_limits_hold(tmp_path: Path) -> None:
    isolation = modes(tmp_path / "agent")["probed"]
    if isolation.cgroup is not None:
        pytest.skip(isolation.cgroup)

    async def scenario(house: House) -> None:
        spin = "timeout 1 sh -c 'while :; do :; done' || true"
        record, _ = await house.run(1, spin, limits=Limits(cpus=0.2))
        lasted = record.ended - record.began
        assert 0 < record.cpu_seconds < 0.25 * lasted + 0.15
        many = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done"
        _, output = await house.run(2, many, limits=Limits(pids=5), shell="sh")
        assert "ork" in output  # `Cannot fork`, or `fork: retry`, as the shell has it

    play(tmp_path / "agent", isolation, scenario)


def test_the_keeper_imports_little() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import moorage.agent.keeper.main; "
        "print(*sys.modules)"
    )
    source = Path(__file__).parents[2] / "src"
    modules = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(source)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    heavy = {"msgspec", "asyncio", "pathlib", "typing", "dataclasses", "logging", "subprocess"}
    assert not heavy & set(modules)
