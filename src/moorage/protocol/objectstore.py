"""The embedded store as a process of the server (`/v1/stores/moorage/process`)."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

PATH = "/v1/stores/moorage/process"
PARTS_PATH = "/v1/node/parts/{digest}"
"""Packages for buckets, which an agent's bundle is without; for the tokens of nodes."""
EmbeddedState = Literal["running", "stopped", "failing", "none"]
"""`failing`: it ended, and is started again and again; `none`: it was never needed."""


class EmbeddedView(Struct, frozen=True, omit_defaults=True):
    """How it is. Nothing of its secrets."""

    state: EmbeddedState
    pid: int | None = None
    endpoint: str = ""
    """On the server's machine."""
    directory: str = ""
    bytes: int = 0
    """Of disk that its files take."""
    free: int = 0
    """Of disk that is left there."""
    problem: str = ""
    """Why it does not run."""
