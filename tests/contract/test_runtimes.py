"""The contract of runtimes, kept by processes of the node and by containers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import imagebuild
from contract.runtime_suite import RuntimeSuite
from moorage.agent.containers import requests
from moorage.agent.images.recipe import Settings
from moorage.agent.images.store import Image, Images
from moorage.agent.keeping import SpawnError, SpawnRequest
from moorage.data.base import Bind
from moorage.protocol.agent import Isolation, Launch, Limits
from moorage.protocol.container import Container
from system.keeper_harness import House, groups


class TestProcess(RuntimeSuite):
    """Commands in the node's own system."""

    def build(self, home: Path, isolation: Isolation) -> House:
        return House(home, isolation)


class Harbour(House):
    """A house whose jobs run in containers of one small image."""

    image: Image

    def request(self, launch: Launch, binds: list[Bind] | None = None) -> SpawnRequest:
        return requests.prepare(
            launch,
            self.image,
            self.directory(launch.job),
            binds or [],
            self.output(launch.job),
            self.isolation,
            self.devices,
        )

    def launch(self, number: int, *commands: str, **fields: object) -> Launch:
        fields.setdefault("container", Container("unused"))
        return super().launch(number, *commands, **fields)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Unpacked once for all tests here."""
    if not imagebuild.BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    place = tmp_path_factory.mktemp("images")
    archive = imagebuild.docker_archive(
        place / "box.tar", [imagebuild.busybox()], Env=["PATH=/bin", "FROM_IMAGE=1"]
    )
    attempt = place / "attempts" / "0"
    attempt.mkdir(parents=True)
    images = Images(place / "images", place / "attempts")
    return images.prepare(Container(f"docker-archive:{archive}"), attempt, print)


class TestContainer(RuntimeSuite):
    """Our own start on an unpacked image."""

    @pytest.fixture(autouse=True)
    def _with(self, isolation: Isolation, image: Image) -> None:
        self.image = image

    def build(self, home: Path, isolation: Isolation) -> House:
        harbour = Harbour(home, isolation)
        harbour.image = self.image
        return harbour

    def test_each_has_its_own_layer(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            record, output = await house.run(1, "echo x > /etc/made; rm /etc/passwd; ls /etc")
            assert record.exit_code == 0
            assert "made" in output
            assert "passwd" not in output
            _, output = await house.run(2, "ls /etc; echo $FROM_IMAGE")
            assert "made" not in output
            assert "passwd" in output
            assert output.endswith("1\n")

        self.play(tmp_path / "agent", isolation, scenario)

    def test_the_node_is_out_of_reach(self, tmp_path: Path, isolation: Isolation) -> None:
        outside = Path(__file__)

        async def scenario(house: House) -> None:
            record, output = await house.run(
                1,
                f"ls {outside} /proc/1/root 2>/dev/null; ls /dev",
                "! touch /sys/x 2>/dev/null && ! sh -c 'echo 1 > /proc/sys/vm/drop_caches' "
                "2>/dev/null",
                "! mount -t tmpfs none /mnt 2>/dev/null",
            )
            assert record.exit_code == 0
            assert str(outside) not in output
            assert {"null", "pts", "shm", "urandom"} <= set(output.split())
            assert not {"loop-control", "mem", "vda"} & set(output.split())

        self.play(tmp_path / "agent", isolation, scenario)

    @pytest.mark.root
    def test_users(self, tmp_path: Path, isolation: Isolation) -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o777)
        for parent in (tmp_path, *tmp_path.parents[:2]):
            parent.chmod(0o755)

        async def scenario(house: House) -> None:
            binds = [Bind(shared, Path("/shared"))]
            for number, user, wanted in (
                (1, "ann", "uid=1234(ann) gid=1234(ann) groups=50(staff)"),
                (2, "77:staff", "uid=77 gid=50(staff)"),
                (3, None, "uid=0(root) gid=0(root)"),
            ):
                box = Container("unused", user=user)
                record, output = await house.run(
                    number,
                    f'id; touch /shared/{number} here "$TMPDIR/x"; grep CapEff /proc/self/status',
                    container=box,
                    binds=binds,
                )
                assert record.exit_code == 0
                assert output.startswith(wanted)
                assert output.rstrip().endswith("0" * 16) == (user is not None)
            owners = [
                ((shared / str(n)).stat().st_uid, (shared / str(n)).stat().st_gid)
                for n in (1, 2, 3)
            ]
            assert owners == [(1234, 1234), (77, 50), (0, 0)]
            with pytest.raises(SpawnError, match="no account 'bea'"):
                await house.spawn(4, "true", container=Container("unused", user="bea"))

        self.play(tmp_path / "agent", isolation, scenario)

    def test_entrypoints(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            box = Container("unused", entrypoint=["echo", "a b"])
            _, output = await house.run(1, "c d", "$HOME", container=box)
            assert output == "a b c d $HOME\n"
            house.image = Image(  # type: ignore[attr-defined]
                Settings(entrypoint=["echo"], cmd=["from", "cmd"], workdir="/made/here"),
                root=self.image.root,
            )
            _, output = await house.run(2)
            assert output == "from cmd\n"
            _, output = await house.run(3, "pwd")
            assert output == "/made/here\n"
            box = Container("unused", entrypoint=["nothing"])
            with pytest.raises(SpawnError, match="nothing cannot be started in the image"):
                await house.spawn(4, container=box)
            # The control group went with the process, and so it may be tried again.
            assert not groups(house.home)

        self.play(tmp_path / "agent", isolation, scenario)

    @pytest.mark.root
    def test_privileges(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            box = Container("unused", privileged=True)
            record, output = await house.run(
                1, "mkdir /m && mount -t tmpfs none /m && ls /dev", container=box
            )
            assert record.exit_code == 0
            assert "loop-control" in output

        self.play(tmp_path / "agent", isolation, scenario)

    def test_many_at_once(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            done = await asyncio.gather(*(house.run(n, f"echo {n}") for n in range(1, 21)))
            assert [text for _, text in done] == [f"{n}\n" for n in range(1, 21)]

        self.play(tmp_path / "agent", isolation, scenario)

    def test_without_control_groups_each_process_is_limited(
        self, tmp_path: Path, isolation: Isolation
    ) -> None:
        import msgspec

        plain = msgspec.structs.replace(isolation, cgroup="not tried")

        async def scenario(house: House) -> None:
            command = "dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null"
            record, _ = await house.run(1, command, limits=Limits(memory=64 << 20))
            assert record.exit_code == 1

        self.play(tmp_path / "agent", plain, scenario)
