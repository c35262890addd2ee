"""From the wish to the end of /bin/true in one small image: our own start beside container engines
that are installed, all in the same run and in turns. Needs root and busybox-static.

The agent's keeper starts what is ours, as it does for jobs: with limits, mounts and a record.
`--docker unix:///SOCKET` measures a Docker daemon that runs already.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from table import milliseconds, percentile, show

from moorage.agent import process
from moorage.agent.containers import engines, requests
from moorage.agent.containers.docker import Docker
from moorage.agent.containers.engines import Engine
from moorage.agent.containers.podman import Podman
from moorage.agent.images.recipe import Settings
from moorage.agent.images.store import Image
from moorage.agent.keeping import ExitRecord, Keeper
from moorage.agent.node import isolation
from moorage.protocol.agent import Isolation, Launch, Limits
from moorage.protocol.container import Container

ROUNDS = 30
Start = Callable[[int], Awaitable[None]]


class House:
    """A keeper, asked to start one job after the other."""

    def __init__(self, home: Path, root: Path, has: Isolation) -> None:
        self.home, self.root, self.has = home, root, has
        self.keeper = Keeper(home, self._exited)
        self._ended: dict[str, asyncio.Event] = {}

    def _exited(self, key: str, record: ExitRecord) -> None:
        assert record.exit_code == 0, (key, record)
        self._ended[key].set()

    async def run(self, number: int, box: Container | None, engine: Engine | None = None) -> None:
        """Prepare, start, wait, as for a job."""
        launch = Launch(
            run=1, run_name="r", user="u", job=number, index=0, attempt=1, container=box,
            commands=[] if box else ["/bin/true"], limits=Limits(memory=1 << 30),
        )  # fmt: skip
        key = f"{number}.1.0"
        directory, output = self.home / "attempts" / key, self.home / "logs" / key
        directory.mkdir(parents=True)
        if box is None:
            request = process.prepare(launch, directory, [], output, self.has)
        elif engine is not None:
            image = Image(Settings(), root=self.root)
            request = engines.request(engine, launch, image, directory, [], output, self.has)
        else:
            image = Image(Settings(), root=self.root)
            request = requests.prepare(launch, image, directory, [], output, self.has)
        self._ended[key] = asyncio.Event()
        await self.keeper.spawn(request)
        await self._ended[key].wait()


def program(*words: str, environment: dict[str, str] | None = None) -> Start:
    """A command line that runs /bin/true and ends."""

    def run() -> None:
        done = subprocess.run(
            words, capture_output=True, env={**os.environ, **(environment or {})}
        )
        if done.returncode:
            sys.exit(f"{' '.join(words)}: {done.stderr.decode()}")

    async def start(_number: int) -> None:
        run()  # nothing else is to happen meanwhile

    return start


def make_root(place: Path) -> Path:
    """A directory with busybox."""
    root = place / "rootfs"
    for name in ("bin", "proc", "sys", "dev", "tmp", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for name in ("true", "sh"):
        (root / "bin" / name).symlink_to("busybox")
    return root


def runc_bundle(place: Path, root: Path) -> Path:
    """What `runc run` needs."""
    bundle = place / "bundle"
    bundle.mkdir()
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"] |= {"args": ["/bin/true"], "terminal": False, "rlimits": []}
    spec["root"] = {"path": str(root), "readonly": True}
    spaces = spec["linux"]["namespaces"]
    spec["linux"]["namespaces"] = [space for space in spaces if space["type"] != "network"]
    (bundle / "config.json").write_text(json.dumps(spec))
    return bundle


def podman(place: Path, root: Path) -> Start:
    """Without a network of its own, from the same directory."""
    files, processes = (
        resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    )
    config = place / "containers.conf"
    limits = f'"nofile={files}:{files}", "nproc={min(processes, 32768)}:{min(processes, 32768)}"'
    text = f'[containers]\ndefault_ulimits = [{limits}]\n[engine]\nruntime = "runc"\n'
    config.write_text(text)
    words = ["podman", "--root", f"{place}/storage", "--runroot", f"{place}/run", "run", "--rm"]
    words += ["--network", "host", "--rootfs", f"{root}:O", "/bin/true"]
    return program(*words, environment={"CONTAINERS_CONF": str(config)})


def docker(address: str, root: Path) -> Start:
    """Imports the directory once."""
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
        base = ["docker", "-H", address]
        subprocess.run([*base, "import", "-", "bench:1"], stdin=tar.stdout, check=True)
    return program(*base, "run", "--rm", "--network", "host", "bench:1", "/bin/true")


async def measure(place: Path, address: str) -> dict[str, list[float]]:
    """Seconds of each round by the name of what was started."""
    root = make_root(place)
    home = place / "agent"
    home.mkdir()
    house = House(home, root, isolation.probe(home))
    box = Container(str(root), entrypoint=["/bin/true"])
    starts: dict[str, Start] = {
        "subprocess, no container": program("/bin/true"),
        "moorage, process": lambda number: house.run(number, None),
        "moorage, container": lambda number: house.run(100_000 + number, box),
    }
    if shutil.which("bwrap"):
        starts["bwrap"] = program(
            *("bwrap", "--unshare-all", "--bind", str(root), "/", "--proc", "/proc"),
            *("--dev", "/dev", "/bin/true"),
        )
    if shutil.which("runc"):
        bundle = runc_bundle(place, root)
        starts["runc run"] = program("runc", "run", "-b", str(bundle), f"bench-{os.getpid()}")
    if shutil.which("podman"):
        starts["podman run"] = podman(place, root)
        engine = Podman(home)
        if why := engine.why_not():
            sys.exit(why)
        starts["moorage, container by podman"] = lambda number: house.run(
            200_000 + number, box, engine
        )
    if address:
        os.environ["DOCKER_HOST"] = address  # the engine's, and the command's
        starts["docker run"] = docker(address, root)
        daemon = Docker(home)
        if why := daemon.why_not():
            sys.exit(why)
        starts["moorage, container by docker"] = lambda number: house.run(
            300_000 + number, box, daemon
        )
    await house.keeper.connect()
    found: dict[str, list[float]] = {name: [] for name in starts}
    try:
        for number in range(ROUNDS + 1):
            for name, start in starts.items():
                began = time.perf_counter()
                await start(number)
                if number:  # the first of each warms up
                    found[name].append(time.perf_counter() - began)
    finally:
        if address:
            for directory in (home / "attempts").glob("3*"):
                daemon.remove(directory)
            daemon.tidy(home / "images" / "roots")
        await house.keeper.dismiss()
        await house.keeper.close()
    return found


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--docker", default="", metavar="ADDRESS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as place:
        found = asyncio.run(measure(Path(place), options.docker))
    ours = percentile(found["moorage, container"], 0.5)
    rows = [
        (name, milliseconds(times), f"{percentile(times, 0.5) / ours:.1f}")
        for name, times in found.items()
    ]
    show(
        f"/bin/true in a container, {ROUNDS} rounds",
        [("", "median (p95), ms", "ratio"), *rows],
    )


if __name__ == "__main__":
    main()
