"""Many long schedules, or a recorded one.

PYTHONPATH=tests python -m sim --seeds 1:50 --events 100000
PYTHONPATH=tests python -m sim tests/sim/replays/NAME.json
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from sim.campaign import explore
from sim.replay import Recording, replay


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("replays", nargs="*", type=Path)
    parser.add_argument("--seeds", default="1:10", help="first and last")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=0, help="0: by the seed, 2 to 60")
    options = parser.parse_args()
    if options.replays:
        failures = [replay(Recording.load(path)) for path in options.replays]
        print(*(failed or "all held" for failed in failures), sep="\n")
        return any(failures)
    first, last = map(int, options.seeds.split(":"))
    found = 0
    for seed in range(first, last + 1):
        nodes = options.nodes or (2, 3, 5, 10, 20, 60)[seed % 6]
        began = time.process_time()
        failed = explore(seed, nodes, options.events)
        took = time.process_time() - began
        print(f"seed {seed}, {nodes} nodes: {failed or 'all held'}", end=", ")
        print(f"{took:.1f} s CPU, {options.events / took:.0f} events/s", flush=True)
        found += failed is not None
    return found


if __name__ == "__main__":
    sys.exit(min(1, main()))
