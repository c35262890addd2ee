"""What attempts use of the node to run in containers: its images, and how it starts them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from moorage.agent import durable
from moorage.agent.containers import daemon, engines, requests
from moorage.agent.containers.apptainer import Apptainer
from moorage.agent.containers.docker import Docker
from moorage.agent.containers.engines import Engine
from moorage.agent.containers.podman import Podman
from moorage.agent.gpus.devices import NONE, Devices
from moorage.agent.images.store import Image, Images
from moorage.agent.keeping import SpawnRequest
from moorage.agent.process import Lacking
from moorage.data.base import Bind, NotHere
from moorage.protocol.agent import Isolation, Launch

HELD = "image"
"""Of an attempt's directory: its writable layer, and the link to the image that it uses."""


class Containers:
    """`why_not` is None where this node can run containers."""

    def __init__(
        self,
        home: Path,
        isolation: Isolation,
        wanted: Sequence[str] = engines.NAMES,
        docker: bool = False,
    ) -> None:
        """`home` is `$MOORAGE_HOME/agent`; `wanted`: engines in order. A job is run by the first
        that works and can run its image. Those that are needed are tried, which blocks."""
        self.images = Images(home / "images", home / "attempts")
        installed: tuple[Engine, ...] = (Podman(home), Docker(home), Apptainer(home))
        self._installed = {engine.name: engine for engine in installed}
        self._order: list[str] = []
        """Those that work."""
        self.why_not = self._choose(wanted, isolation.containers)
        self.engine = next(iter(self._order), "")
        """The name of the one that most jobs get; empty where there is none."""
        self._isolation = isolation
        self._home, self._docker = home, docker

    def _choose(self, wanted: Sequence[str], own: str | None) -> str | None:
        reasons = []
        for name in wanted:
            engine = self._installed.get(name)
            if name == engines.OWN:
                why = own or ""
            else:
                why = engine.why_not() if engine else f"{name} cannot be used in this version"
            if why:
                reasons.append(why)
                continue
            self._order.append(name)
            if name == engines.OWN:
                break  # it runs whatever there is
        return None if self._order else "; ".join(reasons)

    def _engine_of(self, launch: Launch) -> Engine | None:
        """None: our own start. NotHere where none runs this."""
        reasons = []
        for name in self._order:
            engine = self._installed.get(name)
            if engine is None:
                return None
            why = engine.problem(launch) or durable.engine_problem(name, launch.mounts)
            if not why:
                return engine
            reasons.append(why)
        raise NotHere("; ".join(reasons) or self.why_not or "")

    def tidy(self) -> None:
        """Put away what an agent that died has left; once, before anything else. Blocks."""
        self.images.tidy()
        self._tidy_engines()

    def _tidy_engines(self) -> None:
        for name in self._order:
            if name in self._installed:
                self._installed[name].tidy(self.images.roots)

    def noted(self, isolation: Isolation) -> Isolation:
        """With what was found out here."""
        docker = daemon.why_not(self._docker, isolation)
        return msgspec.structs.replace(
            isolation, containers=self.why_not, engine=self.engine, docker=docker
        )

    def with_daemon(self, request: SpawnRequest) -> SpawnRequest:
        """The same, with a Docker daemon of its own. Lacking."""
        if why := daemon.why_not(self._docker, self._isolation):
            raise Lacking(f"docker: {why}")
        return daemon.give(request, self._home)

    async def leave(self, directory: Path) -> list[str]:
        """Put away what an engine has of an attempt; what could not be."""
        note = directory / engines.DIRECTORY / engines.NOTE
        if not note.exists():
            return []
        engine = self._installed.get(note.read_text())
        left = await asyncio.to_thread(engine.remove, directory) if engine is not None else ""
        return [left] if left else []

    def problems(self, launch: Launch) -> list[str]:
        """Why this launch cannot have its container here, as far as it can be told beforehand."""
        if launch.container is None:
            return []
        refused = ""
        try:
            self._engine_of(launch)
        except NotHere as error:
            refused = str(error)
        found = [refused, self.images.problem(launch.container)]
        return [text for text in found if text]

    def image(self, launch: Launch, directory: Path, tell: Callable[[str], None]) -> Image:
        """Fetched and unpacked, and where its engine wants it; blocks. SourceError, OSError."""
        assert launch.container is not None
        engine = self._engine_of(launch)
        image = self.images.prepare(launch.container, directory, tell)
        if engine is not None:
            engine.take(image, tell)
        if image.detail:  # it was unpacked, for which another may have had to go
            self._tidy_engines()
        return image

    def request(
        self,
        launch: Launch,
        image: Image,
        directory: Path,
        binds: Sequence[Bind],
        output: Path,
        devices: Devices = NONE,
    ) -> SpawnRequest:
        """What the keeper must do. ProcessError."""
        given = (launch, image, directory, binds, output, self._isolation, devices)
        engine = self._engine_of(launch)
        if engine is not None:
            return engines.request(engine, *given)
        return requests.prepare(*given)
