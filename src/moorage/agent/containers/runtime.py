"""What attempts use of the node to run in containers: its images, and how it starts them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from moorage.agent.containers import engines, requests
from moorage.agent.containers.engines import Engine
from moorage.agent.containers.podman import Podman
from moorage.agent.gpus.devices import NONE, Devices
from moorage.agent.images.store import Image, Images
from moorage.agent.keeping import SpawnRequest
from moorage.data.base import Bind, NotHere
from moorage.protocol.agent import Isolation, Launch

HELD = "image"
"""Of an attempt's directory: its writable layer, and the link to the image that it uses."""


class Containers:
    """`why_not` is None where this node can run containers."""

    def __init__(
        self, home: Path, isolation: Isolation, wanted: Sequence[str] = engines.NAMES
    ) -> None:
        """`home` is `$MOORAGE_HOME/agent`; `wanted`: engines in order, of which the first that
        works is used. Those that are needed are tried, which blocks."""
        self.images = Images(home / "images", home / "attempts")
        self._installed: dict[str, Engine] = {engine.name: engine for engine in (Podman(home),)}
        self._engine: Engine | None = None
        self.engine, self.why_not = self._choose(wanted, isolation.containers)
        """The name of the engine; empty where there is none."""
        self._isolation = isolation

    def _choose(self, wanted: Sequence[str], own: str | None) -> tuple[str, str | None]:
        reasons = []
        for name in wanted:
            engine = self._installed.get(name)
            if name == engines.OWN:
                why = own or ""
            else:
                why = engine.why_not() if engine else f"{name} cannot be used in this version"
            if not why:
                self._engine = engine
                return name, None
            reasons.append(why)
        return "", "; ".join(reasons)

    def noted(self, isolation: Isolation) -> Isolation:
        """With what was found out here."""
        return msgspec.structs.replace(isolation, containers=self.why_not, engine=self.engine)

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
        refused = self._engine.problem(launch) if self._engine is not None else ""
        found = [self.why_not or "", refused, self.images.problem(launch.container)]
        return [text for text in found if text]

    def image(self, launch: Launch, directory: Path, tell: Callable[[str], None]) -> Image:
        """Fetched and unpacked; blocks. SourceError, OSError."""
        assert launch.container is not None
        if self._engine is not None and (why := self._engine.problem(launch)):
            raise NotHere(why)
        return self.images.prepare(launch.container, directory, tell)

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
        if self._engine is not None:
            return engines.request(self._engine, *given)
        return requests.prepare(*given)
