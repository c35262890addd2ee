"""What the handlers of requests work with."""

from __future__ import annotations

from dataclasses import dataclass

from moorage.engine.loop import Engine
from moorage.server.settings import Settings
from moorage.server.tokens import KnownToken
from moorage.store.blobs import Blobs


@dataclass(frozen=True, slots=True)
class Services:
    """One server's parts; they live as long as its process."""

    engine: Engine
    blobs: Blobs
    settings: Settings
    tokens: tuple[KnownToken, ...]
    user: str
    """The account that the server runs as."""
    version: str
    started_at: float
    loopback: bool
    """Whether it listens on loopback only, and so answers only to loopback's names."""
