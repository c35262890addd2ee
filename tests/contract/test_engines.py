"""The contract of runtimes, kept by container engines where they are installed and work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import imagebuild
from contract.runtime_suite import RuntimeSuite, Scenario
from moorage.agent.containers import engines
from moorage.agent.containers.engines import Engine
from moorage.agent.containers.podman import Podman
from moorage.agent.images.store import Image, Images
from moorage.agent.keeping import SpawnRequest
from moorage.data.base import Bind
from moorage.protocol.agent import Isolation, Launch
from moorage.protocol.container import Container
from system.keeper_harness import House

pytestmark = pytest.mark.root


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


class TestPodman(EngineSuite):
    """From the directory that moorage has unpacked."""

    @pytest.fixture(autouse=True)
    def _tidied(self, tmp_path: Path) -> Iterator[None]:
        yield
        shutil.rmtree(Podman(tmp_path / "agent").transient, ignore_errors=True)

    def engine(self, home: Path) -> Engine:
        return Podman(home)
