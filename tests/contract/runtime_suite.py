"""What every way of starting a job promises. Each implementation runs all of it."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from moorage.agent.gpus.base import Gpu
from moorage.agent.gpus.devices import Devices
from moorage.agent.keeper import family
from moorage.agent.keeping import SpawnError
from moorage.data.base import Bind
from moorage.protocol.agent import Isolation, Limits
from system.keeper_harness import House, gone, keeper_pid, modes, play

Scenario = Callable[[House], Awaitable[None]]
MIB = 1024 * 1024


class RuntimeSuite:
    """Subclasses say how a house starts its jobs."""

    tells_signals = True
    """An engine tells that a signal ended the first process as shells do: 128 and its number."""
    counts_left: bool | None = True
    """An engine ends what the first process leaves behind, and tells nobody."""
    hides_devices: bool | None = False
    """Others' GPUs are not even to be seen; None: by jobs without any."""

    def build(self, home: Path, isolation: Isolation) -> House:
        raise NotImplementedError

    def play(self, home: Path, isolation: Isolation, scenario: Scenario) -> None:
        play(home, isolation, scenario, self.build)

    @pytest.fixture
    def isolation(self, tmp_path: Path) -> Isolation:
        probed = modes(tmp_path / "agent")["probed"]
        if probed.mounts is not None or probed.containers is not None:
            pytest.skip(probed.mounts or probed.containers or "")
        return probed

    @pytest.fixture
    def volume(self) -> Iterator[Path]:
        """A directory of the node, which jobs of any user may write to."""
        with tempfile.TemporaryDirectory(prefix="runtime-", dir=Path.home()) as place:
            path = Path(place) / "volume"
            path.mkdir()
            path.chmod(0o777)
            (path / "old").write_text("old\n")
            yield path

    def test_exit_codes_and_signals(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            record, _ = await house.run(1, "true", "exit 3", "true")
            assert (record.exit_code, record.signal, record.command) == (3, None, 2)
            record, _ = await house.run(2, "kill -9 $$")
            told = (None, signal.SIGKILL) if self.tells_signals else (128 + signal.SIGKILL, None)
            assert (record.exit_code, record.signal) == told
            record, _ = await house.run(3, "sh -c 'kill -11 $$'")
            assert record.exit_code == 128 + signal.SIGSEGV
            record, _ = await house.run(4, "true")
            assert (record.exit_code, record.cause) == (0, None)

        self.play(tmp_path / "agent", isolation, scenario)

    def test_a_stop_is_polite_and_then_not(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            await house.spawn(1, "echo up; sleep 100")
            await house.line(1, "up")
            await house.keeper.stop("1.1.0", 30.0)
            record = await house.end(1)
            assert (record.cause, record.signal or record.exit_code) == ("stopped", signal.SIGTERM)
            await house.spawn(2, "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")
            await house.line(2, "up")
            await house.keeper.stop("2.1.0", 30.0)
            assert (await house.end(2)).exit_code == 7
            await house.spawn(3, "trap '' TERM; echo up; while :; do sleep 0.05; done")
            await house.line(3, "up")
            await house.keeper.stop("3.1.0", 0.2)
            record = await house.end(3)
            assert record.signal == signal.SIGKILL
            assert record.ended - record.began >= 0.2

        self.play(tmp_path / "agent", isolation, scenario)

    def test_max_duration_ends_it(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            record, _ = await house.run(1, "sleep 100", max_duration=0.2, stop_duration=5.0)
            assert record.cause == "timeout"

        self.play(tmp_path / "agent", isolation, scenario)

    def test_output_is_kept_byte_for_byte(self, tmp_path: Path, isolation: Isolation) -> None:
        wanted = bytes(range(256)) * 3
        text = "".join(f"\\{byte:03o}" for byte in wanted)

        async def scenario(house: House) -> None:
            await house.spawn(1, f"printf '{text}'; printf '{text}' >&2; echo last")
            await house.end(1)
            assert house.output(1).read_bytes() == wanted * 2 + b"last\n"

        self.play(tmp_path / "agent", isolation, scenario)

    def test_variables_are_text(self, tmp_path: Path, isolation: Isolation) -> None:
        value = 'two\nlines, "quotes", ünïcode, $HOME and a blank at the end '

        async def scenario(house: House) -> None:
            _, output = await house.run(1, 'printf "%s" "$ODD"', env={"ODD": value})
            assert output == value
            _, output = await house.run(2, 'echo "$HOME"', env={"HOME": "/elsewhere"})
            assert output == "/elsewhere\n"

        self.play(tmp_path / "agent", isolation, scenario)

    def test_working_directories(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            _, output = await house.run(1, "pwd; touch here; ls")
            assert output == "/workflow\nhere\n"
            _, output = await house.run(2, "pwd", working_dir="deep/down")
            assert output == "/workflow/deep/down\n"
            _, output = await house.run(3, "pwd", working_dir="/tmp")
            assert output == "/tmp\n"

        self.play(tmp_path / "agent", isolation, scenario)

    def test_mounts(self, tmp_path: Path, isolation: Isolation, volume: Path) -> None:
        single = volume / "single"
        single.write_text("one file\n")

        async def scenario(house: House) -> None:
            binds = [
                Bind(volume, Path("/mnt/rw")),
                Bind(volume, Path("/mnt/deep/ro"), read_only=True),
                Bind(single, Path("/mnt/file.txt")),
            ]
            record, output = await house.run(
                1,
                "cat /mnt/rw/old /mnt/file.txt && echo new > /mnt/rw/new",
                "cat /mnt/deep/ro/new",
                "! touch /mnt/deep/ro/no 2>/dev/null",
                binds=binds,
            )
            assert (record.exit_code, output) == (0, "old\none file\nnew\n")
            assert (volume / "new").read_text() == "new\n"

        self.play(tmp_path / "agent", isolation, scenario)

    def test_its_own_temporary_places(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            name = f"moorage-test-{os.getpid()}"
            places = '/tmp /var/tmp /dev/shm "$MOORAGE_SCRATCH" "$TMPDIR"'
            record, output = await house.run(
                1, f"for d in {places}; do echo x > $d/{name} || exit 1; done; ls -A /dev/shm"
            )
            assert (record.exit_code, output) == (0, f"{name}\n")
            for place in ("/tmp", "/var/tmp", "/dev/shm"):
                assert not Path(place, name).exists()
            _, output = await house.run(2, f"ls -A /tmp /var/tmp /dev/shm | grep {name}")
            assert output == ""

        self.play(tmp_path / "agent", isolation, scenario)

    def test_the_size_of_shared_memory(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            record, output = await house.run(
                1,
                "head -c 3000000 /dev/zero > /dev/shm/a && echo fits",
                "head -c 3000000 /dev/zero > /dev/shm/b 2>/dev/null || echo full",
                limits=Limits(shm=4 * MIB),
            )
            assert (record.exit_code, output) == (0, "fits\nfull\n")

        self.play(tmp_path / "agent", isolation, scenario)

    @pytest.mark.root
    def test_out_of_memory_is_told(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            record, _ = await house.run(
                1, "dd if=/dev/zero of=/dev/null bs=200M count=1", limits=Limits(memory=64 * MIB)
            )
            assert (record.cause, record.oom_kills > 0) == ("out-of-memory", True)

        self.play(tmp_path / "agent", isolation, scenario)

    @pytest.mark.root
    def test_the_kernel_keeps_gpus_of_others_from_it(
        self, tmp_path: Path, isolation: Isolation
    ) -> None:
        if isolation.devices is not None:
            pytest.skip(isolation.devices)
        names = [f"/dev/nvidia-test{os.getpid()}-{number}" for number in (0, 1)]

        async def scenario(house: House) -> None:
            house.devices = Devices(
                {
                    number: Gpu(
                        vendor="nvidia", number=number, name="x", memory=1, uuid=f"GPU-{number}",
                        nodes=(name,),
                    )
                    for number, name in enumerate(names)
                }
            )  # fmt: skip
            show = f"echo $CUDA_VISIBLE_DEVICES; head -c1 {names[0]}; head -c1 {names[1]}"
            _, output = await house.run(1, f"({show}) 2>&1; true", limits=Limits(gpus=[1]))
            first, mine, *others = output.splitlines()
            assert first == "GPU-1"
            refused = "o such file" if self.hides_devices else "not permitted"
            assert (refused in mine, "o such device" in others[0]) == (True, True)
            if self.hides_devices is None:
                refused = "o such file"
            _, output = await house.run(2, f"({show}) 2>&1; true")
            assert output.count(refused) == 2

        try:
            for number, name in enumerate(names):
                # A major number that no driver has: reaching it is told from being kept from it.
                os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(239, number))
            self.play(tmp_path / "agent", isolation, scenario)
        finally:
            for name in names:
                Path(name).unlink(missing_ok=True)

    @pytest.mark.root
    def test_what_it_used_is_counted(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            record, _ = await house.run(
                1, "dd if=/dev/zero of=/dev/null bs=40M count=20 2>/dev/null & wait"
            )
            assert record.cpu_seconds > 0
            assert record.memory_peak is not None
            assert record.memory_peak > 40 * MIB

        self.play(tmp_path / "agent", isolation, scenario)

    def test_what_is_left_behind_is_ended(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            record, _ = await house.run(1, "sleep 1000 & sleep 1001 & true")
            left = record.left if self.counts_left is None else 2 * self.counts_left
            assert (record.exit_code, record.left) == (0, left)
            assert not family.remnants(0, 0, family.mark(str(house.directory(1))))

        self.play(tmp_path / "agent", isolation, scenario)

    def test_it_is_started_once(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            # One request: another would write the script anew under the shell that reads it.
            request = house.request(house.launch(1, 'echo "$$" >> count; echo up; sleep 100'))
            first = await house.keeper.spawn(request)
            assert await house.keeper.spawn(request) == first
            await house.line(1, "up")
            assert len((house.directory(1) / "work" / "count").read_text().splitlines()) == 1
            await house.keeper.stop("1.1.0", 0.0)
            await house.end(1)

        self.play(tmp_path / "agent", isolation, scenario)

    def test_nothing_outlives_a_killed_keeper(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            pid = await house.spawn(1, "sleep 1000 & echo up; sleep 1001")
            await house.line(1, "up")
            old = keeper_pid(house.home)
            os.kill(old, signal.SIGKILL)
            assert await asyncio.to_thread(gone, old)
            await house.lost.wait()
            await house.keeper.connect()
            with pytest.raises(SpawnError):
                await house.spawn(1, "echo twice")
            await house.keeper.bury("1.1.0", house.directory(1))
            assert gone(pid)

        self.play(tmp_path / "agent", isolation, scenario)
