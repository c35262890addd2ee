"""What mounts a bucket in benchmarks: moorage as its agent does it, and its peers by their own
command lines."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import seaweed
from msgspec import structs

from moorage.data.base import Place
from moorage.data.rclone import fuse, program
from moorage.data.rclone.mount import RcloneMount
from moorage.data.sources import Sources
from moorage.specs.mounts import Bucket, BucketMode, Preset
from moorage.specs.stores.record import Access

_PATIENCE = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")
SKYPILOT = (
    "--vfs-cache-mode", "full", "--dir-cache-time", "10s", "--vfs-cache-poll-interval", "10s",
    "--vfs-fast-fingerprint", "--vfs-cache-max-size", "10G", "--vfs-write-back", "1s",
    "--log-level", "INFO",
)  # fmt: skip
"""MOUNT_CACHED of SkyPilot 0.14, as published."""


class Mounted(Protocol):
    """One mount."""

    place: Path

    def flush(self) -> None:
        """Return when all is in the bucket, where the engine can tell."""

    def cpu(self) -> float:
        """Seconds that it has used until now."""

    def end(self) -> None:
        """Unmount it, and leave nothing."""


@dataclass(frozen=True)
class Engine:
    """One way to mount. `beside` is the engine that its times are compared with."""

    name: str
    beside: str
    mount: Callable[[Access, str, Path], Mounted]
    writes: bool = True


class Ours:
    """As a job of that mode has it, by the code that the agent runs."""

    def __init__(self, access: Access, bucket: Bucket, directory: Path) -> None:
        own = structs.replace(access, kind="moorage")
        self._sources = Sources(directory, lambda digests: iter(()), access=lambda *_: own)
        self._bucket = bucket
        attempt = directory / "attempts" / "1.1.0"
        attempt.mkdir(parents=True)
        self._place = Place(attempt, attempt / "work", directory)
        handle = self._sources.buckets.prepare(bucket, self._place, 0)
        self.place = handle.binds[0].source
        self._pid = RcloneMount(attempt / "mounts" / "0").find() or 0

    def flush(self) -> None:
        """See `Mounted`."""
        self._sources.buckets.flush(self._bucket, self._place, 0, lambda moved: None, 600.0)

    def cpu(self) -> float:
        """See `Mounted`."""
        return cpu_of(self._pid)

    def end(self) -> None:
        """See `Mounted`."""
        self._sources.buckets.release(self._bucket, self._place, 0)


class Theirs:
    """A program that mounts and stays in the foreground; ends with the benchmark."""

    def __init__(self, words: list[str], place: Path, variables: Mapping[str, str]) -> None:
        self.place = place
        place.mkdir(parents=True)
        with open(place.parent / "log", "wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig=TERM", *words], stdout=log, stderr=log,
                env={**os.environ, **variables},
            )  # fmt: skip
        watched = os.pidfd_open(self._process.pid)
        try:
            if not fuse.wait_mounted(place, (watched, -1), _deadline()):
                raise RuntimeError((place.parent / "log").read_text(errors="replace")[-500:])
        finally:
            os.close(watched)

    def flush(self) -> None:
        """It tells nobody."""

    def cpu(self) -> float:
        """See `Mounted`."""
        return cpu_of(self._process.pid)

    def end(self) -> None:
        """See `Mounted`."""
        fuse.unmount(self.place)
        watched = os.pidfd_open(self._process.pid)
        if not select.select([watched], [], [], 2)[0]:
            self._process.kill()
        os.close(watched)
        self._process.wait()


def _deadline() -> float:
    return time.monotonic() + _PATIENCE


def cpu_of(pid: int) -> float:
    """CPU seconds, user and system."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def ours(
    mode: BucketMode, preset: Preset | None = None, read_only: bool = False
) -> Callable[[Access, str, Path], Mounted]:
    """moorage in one of its modes."""

    def mount(access: Access, name: str, directory: Path) -> Mounted:
        bucket = Bucket(
            "/data", store="s3", bucket=name, mode=mode, preset=preset, read_only=read_only
        )
        return Ours(access, bucket, directory)

    return mount


def rclone(*options: str) -> Callable[[Access, str, Path], Mounted]:
    """rclone with these options and its own defaults."""

    def mount(access: Access, name: str, directory: Path) -> Mounted:
        place = directory / "at"
        words = [str(program.find()), "mount", f"BENCH:{name}", str(place), *options]
        words += ["--cache-dir", str(directory / "cache"), "--allow-other"]
        return Theirs(words, place, rclone_variables(access))

    return mount


def rclone_variables(access: Access) -> dict[str, str]:
    """The store as the remote `BENCH`."""
    return {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_BENCH_TYPE": "s3",
        "RCLONE_CONFIG_BENCH_PROVIDER": "SeaweedFS",
        "RCLONE_CONFIG_BENCH_ENDPOINT": access.endpoint,
        "RCLONE_CONFIG_BENCH_ACCESS_KEY_ID": seaweed.KEY,
        "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY": seaweed.SECRET,
        "RCLONE_CONFIG_BENCH_REGION": "us-east-1",
    }


def s3fs(access: Access, name: str, directory: Path) -> Mounted:
    """s3fs with what its manual says for such stores."""
    place = directory / "at"
    directory.mkdir(parents=True, exist_ok=True)
    secret = directory / "secret"
    secret.touch(mode=0o600)
    secret.write_text(f"{seaweed.KEY}:{seaweed.SECRET}\n")
    words = [
        str(shutil.which("s3fs")), name, str(place), "-f", "-o", f"url={access.endpoint}",
        "-o", "use_path_request_style", "-o", f"passwd_file={secret}", "-o", "allow_other",
        "-o", "parallel_count=8", "-o", "multipart_size=16", "-o", f"tmpdir={directory}",
    ]  # fmt: skip
    return Theirs(words, place, {})


STREAM, CACHE = "rclone", "rclone full"


def engines() -> list[Engine]:
    """All that can run here; says what cannot."""
    found = [
        Engine(STREAM, STREAM, rclone()),
        Engine("MOUNT", STREAM, ours("mount")),
        Engine("MOUNT, read only", STREAM, ours("mount", read_only=True), writes=False),
        Engine(CACHE, CACHE, rclone("--vfs-cache-mode", "full")),
        Engine("MOUNT_CACHED", CACHE, ours("cached")),
        Engine("MOUNT_CACHED, DATASET_RO", CACHE, ours("cached", "dataset-ro", True), False),
        Engine("SkyPilot's MOUNT_CACHED", CACHE, rclone(*SKYPILOT)),
    ]
    if shutil.which("s3fs"):
        found.append(Engine("s3fs", STREAM, s3fs))
    else:
        print("s3fs is not measured: it is not installed", file=sys.stderr)
    return found
