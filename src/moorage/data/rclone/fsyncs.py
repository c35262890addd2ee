"""What became of the `fsync` of jobs with `durable: fsync`, as `agent/fsyncs` notes it down."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

FAILURES = "fsyncs"
"""In the mount's directory: a line for each that failed."""
_LAST = 4096


def failed(directory: Path) -> tuple[int, str]:
    """How many, and the last reason in a line; nothing where none did."""
    with suppress(OSError), open(directory / FAILURES, "rb") as file:
        lines = file.read().splitlines()
        last = lines[-1][:_LAST].decode(errors="replace").partition(" ")[2] if lines else ""
        times = "once" if len(lines) == 1 else f"{len(lines)} times"
        return len(lines), f"fsync failed {times}, the last of {last}" if last else ""
    return 0, ""
