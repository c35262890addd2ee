"""What attempts use of the node to run in containers: its images, and how it starts them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from moorage.agent import container_spawn
from moorage.agent.gpus.devices import NONE, Devices
from moorage.agent.images import Image, Images
from moorage.agent.keeping import SpawnRequest
from moorage.data.base import Bind
from moorage.protocol.agent import Isolation, Launch

HELD = "image"
"""Of an attempt's directory: its writable layer, and the link to the image that it uses."""


class Containers:
    """`why_not` is None where this node can run containers."""

    def __init__(self, home: Path, isolation: Isolation) -> None:
        """`home` is `$MOORAGE_HOME/agent`."""
        self.images = Images(home / "images", home / "attempts")
        self.why_not = isolation.containers
        self._isolation = isolation

    def problems(self, launch: Launch) -> list[str]:
        """Why this launch cannot have its container here, as far as it can be told beforehand."""
        if launch.container is None:
            return []
        found = [self.why_not or "", self.images.problem(launch.container)]
        return [text for text in found if text]

    def image(self, launch: Launch, directory: Path, tell: Callable[[str], None]) -> Image:
        """Fetched and unpacked; blocks. SourceError, OSError."""
        assert launch.container is not None
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
        return container_spawn.prepare(
            launch, image, directory, binds, output, self._isolation, devices
        )
