"""What the command line says of a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """How a server is to run."""

    home: Path
    host: str
    port: int
    """0: the port of the last time, if it is free, else any."""
    ready_fd: int | None
    with_node: bool = True
    node_name: str = ""
    """Of this machine's node; empty: the host's name."""
    listen: tuple[str, ...] = ()
    """Where else to listen, with TLS; empty: as the last time, else what the settings say;
    `off`: forget that."""
    database: str = ""
    """`sqlite` or a PostgreSQL URL; empty: what else says it."""
