"""`python -m moorage.agent.gpus`: what the agent finds here, as JSON."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import msgspec

from moorage.agent.gpus.discovery import discover


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        devices = discover(Path(home))
    found = {"gpus": devices.reported(), "notes": devices.notes}
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")


if __name__ == "__main__":
    main()
