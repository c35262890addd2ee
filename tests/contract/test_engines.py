"""The contract of runtimes, kept by container engines where they are installed and work."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

import apptainer_standin
import dockerdaemon
import imagebuild
from contract.runtime_suite import RuntimeSuite, Scenario
from moorage.agent.containers import engines
from moorage.agent.containers.apptainer import Apptainer
from moorage.agent.containers.docker import Docker
from moorage.agent.containers.engines import Engine
from moorage.agent.containers.podman import Podman
from moorage.agent.containers.runtime import Containers
from moorage.agent.images.store import Image, Images
from moorage.agent.keeper import family
from moorage.agent.keeper.main import group_name
from moorage.agent.keeping import SpawnRequest
from moorage.backends.ssh.onhost import leftovers
from moorage.data.base import Bind
from moorage.protocol.agent import Isolation, Launch
from moorage.protocol.container import Container
from system.keeper_harness import House


class Dock(House):
    """A house whose jobs run in containers that an engine starts."""

    image: Image
    engine: Engine

    def request(self, launch: Launch, binds: list[Bind] | None = None) -> SpawnRequest:
        return engines.request(
            self.engine,
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


class EngineSuite(RuntimeSuite):
    """Subclasses say which engine."""

    tells_signals = False
    counts_left = False
    hides_devices = True

    def engine(self, home: Path) -> Engine:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _with(self, isolation: Isolation, tmp_path: Path) -> None:
        self.make(tmp_path)

    def make(self, tmp_path: Path) -> None:
        """An engine, and an image for it."""
        home = tmp_path / "agent"
        home.mkdir(exist_ok=True)
        self.started = self.engine(home)
        if why := self.started.why_not():
            pytest.skip(why)
        if not imagebuild.BUSYBOX.exists():
            pytest.skip("busybox-static is not installed")
        archive = imagebuild.docker_archive(
            tmp_path / "box.tar", [imagebuild.busybox()], Env=["PATH=/bin", "FROM_IMAGE=1"]
        )
        attempt = home / "attempts" / "0"
        attempt.mkdir(parents=True)
        images = Images(home / "images", home / "attempts")
        self.image = images.prepare(Container(f"docker-archive:{archive}"), attempt, print)

    def play(self, home: Path, isolation: Isolation, scenario: Scenario) -> None:
        async def and_tidy(house: House) -> None:
            await scenario(house)
            for directory in (home / "attempts").iterdir():
                assert self.started.remove(directory) == ""

        super().play(home, isolation, and_tidy)

    def build(self, home: Path, isolation: Isolation) -> House:
        dock = Dock(home, isolation)
        dock.image, dock.engine = self.image, self.started
        return dock

    def test_each_has_its_own_layer(self, tmp_path: Path, isolation: Isolation) -> None:
        async def scenario(house: House) -> None:
            await house.run(1, "echo x > /etc/made; rm /etc/passwd")
            _, output = await house.run(2, "ls /etc; echo $FROM_IMAGE")
            assert "made" not in output
            assert "passwd" in output
            assert output.endswith("1\n")

        self.play(tmp_path / "agent", isolation, scenario)

    @pytest.mark.root
    def test_users(self, tmp_path: Path, isolation: Isolation, volume: Path) -> None:
        async def scenario(house: House) -> None:
            binds = [Bind(volume, Path("/shared"))]
            for number, user, wanted in (
                (1, "ann", "uid=1234(ann) gid=1234(ann) groups=50(staff)"),
                (2, "77:staff", "uid=77"),
                (3, None, "uid=0(root) gid=0(root)"),
            ):
                box = Container("unused", user=user)
                show = f'id; touch /shared/{number} here "$TMPDIR/x"'
                record, output = await house.run(number, show, container=box, binds=binds)
                assert (record.exit_code, output.startswith(wanted)) == (0, True), output
            owners = [((volume / n).stat().st_uid, (volume / n).stat().st_gid) for n in "123"]
            assert owners == [(1234, 1234), (77, 50), (0, 0)]

        self.play(tmp_path / "agent", isolation, scenario)

    def refuses_privileges(self) -> str:
        """Why it can give none on this machine."""
        return ""

    def test_privileges(self, tmp_path: Path, isolation: Isolation) -> None:
        if why := self.refuses_privileges():
            pytest.skip(why)

        async def scenario(house: House) -> None:
            mount = "mkdir /m && mount -t tmpfs none /m 2>/dev/null && ls /dev"
            box = Container("unused", privileged=True)
            record, output = await house.run(1, mount, container=box)
            assert (record.exit_code, "loop-control" in output) == (0, True), output
            record, _ = await house.run(2, mount)
            assert record.exit_code != 0

        self.play(tmp_path / "agent", isolation, scenario)

    @pytest.mark.root
    def test_an_image_file_is_run_by_the_next_engine(
        self, tmp_path: Path, isolation: Isolation
    ) -> None:
        file = tmp_path / "box.squashfs"
        file.write_bytes(b"hsqs" + bytes(1024))
        name = self.started.name
        launch = Dock(tmp_path / "agent", isolation).launch(
            1, "true", container=Container(str(file))
        )
        both = Containers(tmp_path / "agent", isolation, [name, engines.OWN])
        assert (both.engine, both.why_not, both.problems(launch)) == (name, None, [])
        directory = tmp_path / "agent" / "attempts" / "1.1.0"
        directory.mkdir()
        image = both.image(launch, directory, print)
        request = both.request(launch, image, directory, [], tmp_path / "output")
        assert (request.engine, request.container is not None) == (None, True)
        alone = Containers(tmp_path / "agent", isolation, [name])
        assert alone.problems(launch)[0].startswith(f"image: {name} cannot run ")


def has_range() -> bool:
    try:
        names = {str(os.geteuid()), pwd.getpwuid(os.geteuid()).pw_name}
        lines = Path("/etc/subuid").read_text().splitlines()
    except (KeyError, OSError):
        return False
    return any(line.partition(":")[0] in names for line in lines)


class TestPodman(EngineSuite):
    """From the directory that moorage has unpacked."""

    @pytest.fixture(autouse=True)
    def _tidied(self, tmp_path: Path) -> Iterator[None]:
        yield
        place = Podman(tmp_path / "agent").transient
        with suppress(OSError):  # without root, it keeps one process for the account's namespace
            os.kill(int(Path(place, "libpod/tmp/pause.pid").read_text()), signal.SIGKILL)
        shutil.rmtree(place, ignore_errors=True)

    counts_left = False if os.geteuid() == 0 else None
    """Without control groups, the keeper or podman ends what is left, whoever is first."""

    def play(self, home: Path, isolation: Isolation, scenario: Scenario) -> None:
        super().play(home, isolation, scenario)
        left = Podman(home).transient / "overlay-containers"
        assert not left.exists() or not any(left.iterdir()), "what containers wrote is removed"

    def engine(self, home: Path) -> Engine:
        return Podman(home)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root has other accounts to give")
    def test_rootless_whoever_a_job_is_its_files_are_ours(
        self, tmp_path: Path, isolation: Isolation, volume: Path
    ) -> None:
        async def scenario(house: House) -> None:
            binds = [Bind(volume, Path("/shared"))]
            # Without a range of accounts of its own, podman has one to give.
            more = [(2, "ann", "uid=1234(ann)")] if has_range() else []
            for number, user, wanted in ((1, None, "uid=0(root)"), *more):
                box = Container("unused", user=user)
                show = f'id; touch /shared/{number} here "$TMPDIR/x"'
                record, output = await house.run(number, show, container=box, binds=binds)
                assert (record.exit_code, output.startswith(wanted)) == (0, True), output
                assert (volume / str(number)).stat().st_uid == os.geteuid()

        self.play(tmp_path / "agent", isolation, scenario)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root has control groups")
    def test_rootless_a_container_is_stopped_and_leaves_nothing(
        self, tmp_path: Path, isolation: Isolation
    ) -> None:
        async def scenario(house: House) -> None:
            # The child may be told first, and is then no longer to be waited for.
            waits = "while :; do wait; done"
            await house.spawn(1, f"setsid sleep 1000 & trap 'exit 7' TERM; echo up; {waits}")
            await house.line(1, "up")
            await house.keeper.stop("1.1.0", 30.0)
            assert (await house.end(1)).exit_code == 7
            assert not family.remnants(0, 0, family.mark(str(house.directory(1))))

        self.play(tmp_path / "agent", isolation, scenario)


@pytest.mark.root
class TestApptainer(EngineSuite):
    """By a stand-in for Apptainer, which is in no package index that tests reach: what moorage
    tells it is as documented, and what comes of that is as the stand-in understands it."""

    counts_left = True
    hides_devices = None
    """Those of a vendor are there for a job that has one of them, and refused."""

    @pytest.fixture(autouse=True)
    def _with(self, isolation: Isolation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        programs = tmp_path / "programs"
        programs.mkdir()
        standin = Path(apptainer_standin.__file__)
        (programs / "apptainer").write_text(f'#!/bin/sh\nexec {sys.executable} {standin} "$@"\n')
        (programs / "apptainer").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        self.make(tmp_path)

    def engine(self, home: Path) -> Engine:
        return Apptainer(home)

    def test_the_size_of_shared_memory(self, tmp_path: Path, isolation: Isolation) -> None:
        pytest.skip("apptainer has no option for it: it counts as memory of the job")

    def test_users(self, tmp_path: Path, isolation: Isolation, volume: Path) -> None:
        launch = Dock(tmp_path / "agent", isolation).launch
        for user in ("ann", "77:staff"):
            why = self.started.problem(launch(1, container=Container("unused", user=user)))
            assert "runs every job as the agent's account" in why
        assert self.started.problem(launch(1, container=Container("unused", user="root"))) == ""

    def test_an_image_file_is_run_by_the_next_engine(
        self, tmp_path: Path, isolation: Isolation
    ) -> None:
        pytest.skip("apptainer runs image files itself")


@pytest.fixture(scope="module")
def dockerd() -> Iterator[str]:
    """Where a daemon listens."""
    if why := dockerdaemon.why_not():
        pytest.skip(why)
    with ExitStack() as stack:
        try:
            address = stack.enter_context(dockerdaemon.running())
        except RuntimeError as error:
            pytest.skip(str(error))
        yield address


@pytest.mark.root
class TestDocker(EngineSuite):
    """By a daemon in a network of its own: its firewall would keep others from theirs."""

    @pytest.fixture(autouse=True)
    def _with(
        self,
        isolation: Isolation,
        tmp_path: Path,
        dockerd: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", dockerd)
        self.make(tmp_path)

    def engine(self, home: Path) -> Engine:
        return Docker(home)

    def test_an_image_is_imported_once_and_goes_with_the_nodes(
        self, tmp_path: Path, isolation: Isolation
    ) -> None:
        said: list[str] = []
        docker, home = self.started, tmp_path / "agent"
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: docker.take(self.image, said.append), range(4)))
        assert said == ["importing into docker"]
        assert len(self.image_list(home).split()) == 1
        docker.tidy(home / "images" / "roots")
        assert len(self.image_list(home).split()) == 1
        group = group_name(str(home))
        words = ["--name", f"moorage-{group}-9.1.0", "--label", f"moorage.agent={group}"]
        words += [self.image_list(home), "/bin/true"]
        assert engines.ask(["docker", "run", *words])[0] == 0
        shutil.rmtree(home / "images" / "roots")
        docker.tidy(home / "images" / "roots")
        assert self.image_list(home) == ""
        assert engines.ask(["docker", "ps", "-aq", *self.own(home)])[1] == ""

    def refuses_privileges(self) -> str:
        self.started.take(self.image, print)
        home = Path(self.image.root or "").parents[3]
        words = ["--privileged", "--network", "host", self.image_list(home), "/bin/true"]
        code, said = engines.ask(["docker", "run", "--rm", *words], whole=True)
        return said.partition("\n")[0] if code else ""

    def image_list(self, home: Path) -> str:
        form = ["--format", "{{.Repository}}:{{.Tag}}"]
        return engines.ask(["docker", "images", *form, *self.own(home)], whole=True)[1]

    def own(self, home: Path) -> list[str]:
        return ["--filter", f"label=moorage.agent={group_name(str(home))}"]

    def test_nothing_stays_when_the_agent_is_removed(self, tmp_path: Path) -> None:
        home = tmp_path / "host" / "home" / "agent"
        home.mkdir(parents=True)
        docker = Docker(home)
        docker.take(self.image, print)
        label = f"moorage.agent={group_name(str(home))}"
        words = ["--label", label, "--name", f"moorage-{os.getpid()}", self.image_list(home)]
        assert engines.ask(["docker", "create", *words, "/bin/true"])[0] == 0
        leftovers.remove(str(tmp_path / "host"))
        assert self.image_list(home) == ""
        assert engines.ask(["docker", "ps", "-aq", *self.own(home)])[1] == ""

    def test_what_it_cannot_run(self, tmp_path: Path) -> None:
        dock = Dock(tmp_path / "agent", Isolation())
        launch = dock.launch(1, container=Container("/srv/root"))
        assert "cannot run /srv/root where it lies" in self.started.problem(launch)
        launch = dock.launch(1, container=Container("docker-archive:/srv/box.tar"))
        assert self.started.problem(launch) == ""
