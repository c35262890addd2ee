"""A job that prints a gigabyte: what it does to itself, to the memory of server and agent, and to
everybody else; how soon its output can be followed from anywhere."""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from table import fresh_server, milliseconds, show
from throughput import cpu, processes
from waiting import SHARE, submit_to_start, timed

from moorage import Client
from moorage.specs.task import Task

SIZE = 1_000_000_000
FOLLOWERS = 50
PLACES = {"the beginning": 0, "the middle": SIZE // 2, "the end": SIZE - 100_000}
LINE = "loss=0.123456 step=000001 tokens/s=123456.7 and some more words to fill a line of it"
PRINT = f"yes '{LINE}' | head -c {SIZE}"
Row = tuple[str, str]


def resident(pid: int) -> float:
    """Megabytes in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


class Memory:
    """The most that server and agent had since the beginning."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = {role: pids[role] for role in ("server", "agent")}
        self._before = {role: resident(pid) for role, pid in self._pids.items()}
        self._most = dict(self._before)

    def look(self) -> None:
        """Call it often."""
        for role, pid in self._pids.items():
            self._most[role] = max(self._most[role], resident(pid))

    def __str__(self) -> str:
        return ", ".join(
            f"{role} {before:.0f} -> {self._most[role]:.0f} MB"
            for role, before in self._before.items()
        )


@contextlib.contextmanager
def reading(client: Client, run: int, query: str) -> Iterator[socket.socket]:
    """A connection on which the output was asked for, and nothing read yet."""
    address = client.transport.address
    parts = urlsplit(address.url)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        head = f"GET /v1/runs/{run}/logs?{query} HTTP/1.1\r\nHost: {parts.hostname}\r\n"
        connection.sendall(f"{head}Authorization: Bearer {address.token}\r\n\r\n".encode())
        yield connection


def first_byte(client: Client, run: int, query: str) -> float:
    """Seconds until the first byte of output."""
    began = time.perf_counter()
    with reading(client, run, query) as connection:
        seen = b""
        while not seen.partition(b"\r\n\r\n")[2]:
            seen += connection.recv(65536)
    return time.perf_counter() - began


def printing(client: Client, pids: dict[str, int], quiet: list[float]) -> tuple[int, list[Row]]:
    """While it prints: others' starts, the list, memory."""
    memory, before = Memory(pids), cpu(pids)
    began = time.perf_counter()
    (run,) = client.submit(Task(name="chatty", commands=[PRINT], resources=SHARE))
    starts, lists = [], []
    while client.run(run.id).summary.ended_at is None:
        starts.append(submit_to_start(client))
        lists.append(timed(lambda: client.page(limit=100)))
        memory.look()
    took, after = time.perf_counter() - began, cpu(pids)
    spent = ", ".join(f"{r} {after[r] - before[r]:.2f} s" for r in ("server", "agent", "keeper"))
    rows = [
        ("the job that prints it", f"{took:.1f} s"),
        ("CPU meanwhile", spent),
        ("memory meanwhile", str(memory)),
        ("another's submit to start, before it, ms", milliseconds(quiet)),
        ("another's submit to start, meanwhile, ms", milliseconds(starts)),
        ("GET runs meanwhile, ms", milliseconds(lists)),
    ]
    return run.id, rows


def streaming(client: Client, home: str, pids: dict[str, int], run: int) -> list[Row]:
    """One reader of it all, with others' requests in between."""
    memory = Memory(pids)
    began, read, asked = time.perf_counter(), 0, []
    with Client(home=home) as other:
        for chunk in client.logs(run):
            before, read = read, read + len(chunk)
            if read // 20_000_000 > before // 20_000_000:
                asked.append(timed(lambda: other.page(limit=100)))
                memory.look()
    rate = read / (time.perf_counter() - began) / 1e6
    return [
        (f"logs of {read / 1e9:.2f} GB", f"{rate:.0f} MB/s"),
        ("GET runs meanwhile, ms", milliseconds(asked)),
        ("memory meanwhile", str(memory)),
    ]


def stalled(client: Client, pids: dict[str, int], run: int, quiet: list[float]) -> list[Row]:
    """Followers that ask for everything and read nothing."""
    memory = Memory(pids)
    with contextlib.ExitStack() as stack:
        for _ in range(FOLLOWERS):
            stack.enter_context(reading(client, run, "follow=1"))
        starts = []
        for _ in range(10):
            starts.append(submit_to_start(client))
            memory.look()
    ratio = statistics.median(starts) / statistics.median(quiet)
    return [
        (f"{FOLLOWERS} followers that read nothing", str(memory)),
        ("another's submit to start, ms", f"{milliseconds(starts)}, {ratio:.2f}x"),
    ]


def beginnings(client: Client, run: int) -> list[Row]:
    """How soon the first byte comes, from places all over the output."""
    rows = []
    for name, offset in PLACES.items():
        times = [first_byte(client, run, f"follow=1&offset={offset}") for _ in range(10)]
        rows.append((f"logs -f from {name}, first byte, ms", milliseconds(times)))
    since = client.run(run).summary.submitted_at + 0.5
    times = [first_byte(client, run, f"follow=1&since={since}") for _ in range(10)]
    return [*rows, ("logs -f --since, first byte, ms", milliseconds(times))]


def main() -> None:
    """Everything on one server, one after the other."""
    with fresh_server() as environment, Client(home=environment["MOORAGE_HOME"]) as client:
        home = environment["MOORAGE_HOME"]
        pids = processes(Path(home))
        quiet = [submit_to_start(client) for _ in range(10)]
        run, rows = printing(client, pids, quiet)
        rows += streaming(client, home, pids, run)
        rows += beginnings(client, run)
        rows += stalled(client, pids, run, quiet)
    show(f"a job that prints {SIZE / 1e9:.0f} GB", [("", ""), *rows])


if __name__ == "__main__":
    main()
