"""Run every benchmark in turn."""

from __future__ import annotations

import commands
import start
import upload


def main() -> None:
    """Each prints its own table."""
    commands.main()
    start.main()
    upload.main()


if __name__ == "__main__":
    main()
