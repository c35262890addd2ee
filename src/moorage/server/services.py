"""What the handlers of requests work with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moorage.engine.loop import Engine
from moorage.protocol.api import Role
from moorage.server.admission import Admission
from moorage.server.objectstore import ObjectStore
from moorage.server.peers import Peers
from moorage.server.settings import Settings
from moorage.server.storage.mounts import Mounts
from moorage.server.storage.storages import Storages
from moorage.store.blobs import Blobs


@dataclass(frozen=True, slots=True)
class Services:
    """One server's parts; they live as long as it keeps its role."""

    engine: Engine
    blobs: Blobs
    settings: Settings
    admission: Admission
    object_store: ObjectStore
    """The embedded one."""
    storages: Storages
    """Buckets with a name, and the stores that they are in."""
    mounts: Mounts
    """What runs ask of buckets."""
    directory: Path
    """`server/` in its home."""
    user: str
    """The account that the server runs as."""
    version: str
    started_at: float
    loopback: bool
    """Whether it listens on loopback only, and so answers only to loopback's names."""
    database: str = "sqlite"
    """Which one, as people may see it."""
    role: Role = "leader"
    peers: Peers | None = None
    """The other servers on the database; None where there can be no other."""
