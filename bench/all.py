"""Run the usual benchmarks in turn; the others are asked for by name."""

from __future__ import annotations

import os
import time

import checkpoints
import commands
import copy_objects
import idle
import output
import relay
import start
import throughput
import upload
import waiting

import mounts


def main() -> None:
    """Each prints its own table, with the machine's load at its end. The upload comes last: it
    deletes 60,000 files, which slows the making of new ones on some filesystems for minutes."""
    began = time.monotonic()
    print(f"load before: {' '.join(f'{load:.1f}' for load in os.getloadavg())}")
    first = (commands, start, throughput, waiting, output, idle)
    for bench in (*first, copy_objects, relay, mounts, checkpoints, upload):
        bench.main()
    print(f"\nall took {(time.monotonic() - began) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
