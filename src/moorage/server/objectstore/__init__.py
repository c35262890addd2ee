"""The store that comes with a server: SeaweedFS as a process beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moorage.core.effects import Emit
from moorage.engine.loop import Engine
from moorage.server.objectstore.store import SHARED, ObjectStore

__all__ = ["SHARED", "ObjectStore", "beside"]


def beside(directory: Path, engine: Engine, refused: str = "") -> ObjectStore:
    """The one of the server that keeps its files in `directory`; what happens to it is told to
    the engine's feed. `refused`: why there can be none."""

    def tell(kind: str, data: Mapping[str, Any]) -> None:
        if engine.failure is None:
            engine.perform(lambda: [Emit(kind, data=data)])

    return ObjectStore(directory / "store", tell, refused)
