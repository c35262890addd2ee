"""What a job sees of the file system, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from moorage.agent.keeping import SpawnError
from moorage.agent.process import remove_made
from moorage.data.base import Bind
from moorage.protocol.agent import Isolation, Limits
from system.keeper_harness import House, gone, grows, modes, play


@pytest.fixture
def isolation(tmp_path: Path) -> Isolation:
    probed = modes(tmp_path / "agent")["probed"]
    if probed.mounts is not None:
        pytest.skip(probed.mounts)
    return probed


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory that a job sees too: not below /tmp."""
    if Path.home().is_relative_to("/tmp") or not os.access(Path.home(), os.W_OK):
        pytest.skip("this user may write nowhere but in /tmp")
    with tempfile.TemporaryDirectory(prefix="keeper-test-", dir=Path.home()) as place:
        yield Path(place)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.mkdir()
    (path / "old").write_text("old\n")
    return path


def names(directory: str) -> list[str]:
    return [path.name for path in Path(directory).iterdir()]


def test_temporary_directories_are_private(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        name = f"moorage-test-{os.getpid()}"
        places = ("/tmp", "/var/tmp", "/dev/shm")
        touch = " && ".join(f"echo x > {place}/{name}" for place in places)
        record, output = await house.run(
            1,
            "ls -A /tmp /var/tmp",
            touch,
            "df --output=size -B1 /dev/shm | tail -1",
            'pwd; touch here; [ "$TMPDIR" = "$MOORAGE_SCRATCH" ] && touch "$TMPDIR/kept"',
            limits=Limits(shm=1 << 20),
        )
        assert record.exit_code == 0, output
        assert (house.directory(1) / "work" / "here").exists()
        assert (house.directory(1) / "scratch" / "kept").exists()
        assert str(1 << 20) in output
        assert "/workflow" in output
        for place in places:
            assert not Path(place, name).exists()
        assert (house.directory(1) / "tmp" / name).exists()
        assert not Path("/workflow").exists()

    play(tmp_path / "agent", isolation, scenario)


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_the_output_of_jobs_that_start_together_is_the_nodes(
    place: str, isolation: Isolation
) -> None:
    """A thread that starts one after the other does not look for it in the last job's /tmp."""
    numbers = range(1, 41)

    async def scenario(house: House) -> None:
        ran = await asyncio.gather(*(house.run(number, f"echo {number}") for number in numbers))
        assert [output for _, output in ran] == [f"{number}\n" for number in numbers]

    with tempfile.TemporaryDirectory(dir=place) as home:
        play(Path(home, "agent"), isolation, scenario)


def test_volumes_appear_where_they_were_asked_for(
    tmp_path: Path, isolation: Isolation, volume: Path, outside: Path
) -> None:
    target = outside / "not" / "there"
    binds = [
        Bind(volume, Path("/brand/new/place")),
        Bind(volume, Path("/workflow/data")),
        Bind(volume, target),
    ]

    async def scenario(house: House) -> None:
        record, output = await house.run(
            1,
            "cat /brand/new/place/old data/old",
            f"echo new > {target}/new",
            "cat data/new",
            binds=binds,
        )
        assert (record.exit_code, output) == (0, "old\nold\nnew\n")
        assert (volume / "new").read_text() == "new\n"
        assert target.is_dir()
        remove_made(str(house.directory(1)))
        assert not target.parent.exists()
        assert not Path("/brand").exists()

    play(tmp_path / "agent", isolation, scenario)


def test_read_only_means_it(tmp_path: Path, isolation: Isolation, volume: Path) -> None:
    async def scenario(house: House) -> None:
        record, output = await house.run(
            1,
            "cat /data/old; echo no > /data/new",
            binds=[Bind(volume, Path("/data"), read_only=True)],
        )
        assert record.exit_code != 0
        assert "Read-only file system" in output
        assert not (volume / "new").exists()

    play(tmp_path / "agent", isolation, scenario)


def test_a_file_is_bound_on_a_file(tmp_path: Path, isolation: Isolation, volume: Path) -> None:
    async def scenario(house: House) -> None:
        one = Bind(volume / "old", Path("/settings/file.yml"))
        two = Bind(volume / "old", Path("/etc/hostname"), read_only=True)
        before = Path("/etc/hostname").read_text()
        _, output = await house.run(1, "cat /settings/file.yml /etc/hostname", binds=[one, two])
        assert output == "old\nold\n"
        assert Path("/etc/hostname").read_text() == before
        with pytest.raises(SpawnError, match="is a directory on this node") as error:
            await house.spawn(2, "true", binds=[Bind(volume / "old", Path("/etc"))])
        assert error.value.step == "mount"

    play(tmp_path / "agent", isolation, scenario)


def test_a_missing_source_is_named(tmp_path: Path, isolation: Isolation) -> None:
    async def scenario(house: House) -> None:
        with pytest.raises(SpawnError, match=r"cannot use /no/such: No such file") as error:
            await house.spawn(1, "true", binds=[Bind(Path("/no/such"), Path("/data"))])
        assert error.value.step == "mount"
        record, _ = await house.run(1, "true")
        assert record.exit_code == 0

    play(tmp_path / "agent", isolation, scenario)


def test_a_target_below_a_link_hides_nothing_of_the_node(
    tmp_path: Path, isolation: Isolation, volume: Path
) -> None:
    (volume / "link").symlink_to("/etc")
    before = sorted(names("/etc"))

    async def scenario(house: House) -> None:
        binds = [Bind(volume, Path("/data")), Bind(volume / "old", Path("/data/link/hostname"))]
        _, output = await house.run(1, "cat /etc/hostname", binds=binds)
        assert output == "old\n"
        assert sorted(names("/etc")) == before

    play(tmp_path / "agent", isolation, scenario)


@pytest.mark.parametrize("below", [("", ""), ("a", "b"), ("", "a/b")])
@pytest.mark.parametrize("uploaded", [False, True])
def test_a_shared_mount_point_goes_with_its_last_user(
    tmp_path: Path,
    isolation: Isolation,
    volume: Path,
    outside: Path,
    below: tuple[str, str],
    uploaded: bool,
) -> None:
    shared = outside / "shared"

    async def scenario(house: House) -> None:
        gates = []
        for number in (1, 2):
            target = shared / below[number - 1]
            gate = house.directory(number) / "gate"
            os.mkfifo(gate)
            gates.append(gate)
            source = volume
            if uploaded:
                source = house.directory(number) / "files" / "0" / "tree"
                shutil.copytree(volume, source)
            await house.spawn(
                number, f"read x < {gate}; cat {target}/old", binds=[Bind(source, target)]
            )
        gates[0].write_text("go\n")
        await house.end(1)
        remove_made(str(house.directory(1)))
        assert (shared / below[1]).exists()
        gates[1].write_text("go\n")
        assert (await house.end(2)).exit_code == 0
        assert house.output(2).read_text() == "old\n"
        remove_made(str(house.directory(2)))
        assert not shared.exists()

    play(tmp_path / "agent", isolation, scenario)


@pytest.mark.ordinary
def test_a_directory_that_is_not_ours_keeps_its_entries(
    tmp_path: Path, isolation: Isolation, volume: Path
) -> None:
    async def scenario(house: House) -> None:
        _, output = await house.run(
            1, "cat /etc/moorage-x/old; ls -A /etc", binds=[Bind(volume, Path("/etc/moorage-x"))]
        )
        assert sorted(output.splitlines()) == sorted(["old", *names("/etc"), "moorage-x"])

    play(tmp_path / "agent", isolation, scenario)


def test_the_script_is_found_below_what_hides_it(tmp_path: Path, isolation: Isolation) -> None:
    cover = tmp_path / "cover"
    cover.mkdir()

    async def scenario(house: House) -> None:
        record, output = await house.run(
            1, 'ls "$MOORAGE_SCRATCH"; echo ok', binds=[Bind(cover, tmp_path / "agent")]
        )
        assert (record.exit_code, output) == (0, "ok\n")

    play(tmp_path / "agent", isolation, scenario)


def test_a_namespace_tells_whose_a_process_is(tmp_path: Path, isolation: Isolation) -> None:
    """Without a control group, of a process that has left its session and its environment."""
    without = msgspec.structs.replace(isolation, cgroup="not tried")

    async def scenario(house: House) -> None:
        await house.spawn(1, "sleep 1000")
        await house.spawn(2, "(setsid env -i sh -c 'echo $$; sleep 1000; true' &) ; sleep 1000")
        await grows(house.output(2), lambda text: text.endswith("\n"))
        stray = int(house.output(2).read_text())
        await house.keeper.stop("2.1.0", 0, "aborted")
        await house.end(2)
        assert gone(stray)
        await house.keeper.stop("1.1.0", 0, "aborted")
        await house.end(1)

    play(tmp_path / "agent", without, scenario)
