"""Run every benchmark in turn."""

from __future__ import annotations

import commands
import start
import throughput
import upload


def main() -> None:
    """Each prints its own table. The upload comes last: it deletes 60,000 files, which slows the
    making of new ones on some filesystems for minutes."""
    commands.main()
    start.main()
    throughput.main()
    upload.main()


if __name__ == "__main__":
    main()
