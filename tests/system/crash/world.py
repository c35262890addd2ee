"""A home with a real server, agent and keeper, which are started again whenever they die."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from moorage.cli.client import Client
from moorage.specs.task import Task
from system.crash.ledger import Ledger
from system.crash.notice import PATIENCE, until
from system.keeper_harness import end_all, gone
from system.servers import Reply, Server

FAULTS = Path(__file__).parent / "faults"
FINAL = ("succeeded", "failed", "cancelled")


def outside() -> Path:
    """A directory that jobs see as the node does: /tmp and /dev/shm are private to them."""
    return Path("/run") if os.access("/run", os.W_OK) else Path.home()


class World:
    """`source`: where to import moorage from, None for this one."""

    def __init__(self, home: Path, ledger: Ledger, faults: Path, source: Path | None = None):
        self.home, self.ledger, self.faults = home, ledger, faults
        for name in ("armed", "fired"):
            (faults / name).mkdir(parents=True, exist_ok=True)
        self.server = Server(home)
        self.agent: subprocess.Popen[bytes] | None = None
        self.deaths = {"server": 0, "agent": 0, "keeper": 0}
        self.closing = False
        self.unexpected: list[str] = []
        """Ends of processes that nobody killed."""
        self.repaired = threading.Event()
        """Set once what keeps a server from starting is repaired; tests clear it who break it."""
        self._starts = 0
        self._started = threading.Condition()
        self._watching: list[threading.Thread] = []
        self._requests = itertools.count(1)
        self.use(source)

    def use(self, source: Path | None) -> None:
        """What is started from now on comes from this source."""
        paths = [str(FAULTS), str(source or ""), os.environ.get("PYTHONPATH", "")]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
        self.environment = {
            **kept,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "MOORAGE_FAULTS": str(self.faults),
        }
        self.server.environment = self.environment

    # Processes

    def start(self) -> None:
        """Start server and agent, and watch over them."""
        self.closing = False
        self._start_server()
        self._watch(self._watch_server)
        self._start_agent()
        self._watch(self._watch_agent)

    def _watch(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._watching.append(thread)
        thread.start()

    def _start_agent(self) -> None:
        log = os.open(
            self.home.parent / "agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )
        command = [sys.executable, "-m", "moorage.agent.main", "--server", self.server.url]
        try:
            self.agent = subprocess.Popen(
                [*command, "--home", str(self.home), "--name", "n1"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self.environment,
                start_new_session=True,
            )
        finally:
            os.close(log)
        with self._started:
            self._started.notify_all()

    def _start_server(self) -> None:
        """Again, where it was killed before it was ready."""
        while True:
            try:
                self.server.start()
            except AssertionError:
                process = self.server.process
                if process is None or self.closing:
                    raise
                if process.returncode == -signal.SIGKILL:
                    self.deaths["server"] += 1
                elif not self.repaired.wait(PATIENCE):
                    raise
                continue
            break
        with self._started:
            self._starts += 1
            self._started.notify_all()

    def _watch_server(self) -> None:
        while not self._ended("server", self.server.process):
            self._start_server()

    def _watch_agent(self) -> None:
        while not self._ended("agent", self.agent):
            self._start_agent()

    def _ended(self, name: str, process: subprocess.Popen[bytes] | None) -> bool:
        """Wait for its end; whether it is to stay ended."""
        assert process is not None
        code = process.wait()
        if self.closing:
            return True
        if code == -signal.SIGKILL:
            self.deaths[name] += 1
        else:
            self.unexpected.append(f"{name} ended with code {code}")
        return len(self.unexpected) > 50

    def pid(self, name: str) -> int:
        """Of the present server, agent or keeper; 0 where there is none just now."""
        if name == "keeper":
            with suppress(OSError, ValueError):
                return int((self.home / "agent" / "keeper.pid").read_text())
            return 0
        process = self.server.process if name == "server" else self.agent
        return process.pid if process is not None and process.returncode is None else 0

    def kill(self, name: str) -> bool:
        """kill -9; whether there was something to kill."""
        pid = self.pid(name)
        if not pid or (name == "keeper" and not self._is_keeper(pid)):
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        if name == "keeper":
            self.deaths["keeper"] += 1
        return True

    def kill_surely(self, name: str) -> None:
        """As `kill`, of the next one where there is none just now."""
        with self._started:
            assert self._started.wait_for(lambda: self.kill(name), PATIENCE), f"there is no {name}"

    def _is_keeper(self, pid: int) -> bool:
        with suppress(OSError):
            return str(self.home).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End server and agent; the keeper stays where it has work."""
        self.closing = True
        for process in (self.server.process, self.agent):
            if process is not None and process.returncode is None:
                process.send_signal(number)
        for thread in self._watching:
            thread.join(PATIENCE)
        self._watching.clear()

    def close(self) -> None:
        """End everything, whatever state it is in."""
        try:
            self.stop()
            keeper = self.pid("keeper")
            if keeper and self._is_keeper(keeper):
                gone(keeper)
        finally:
            end_all(self.home)

    # Faults

    def arm(self, point: str, content: str = "") -> None:
        (self.faults / "fired" / point).unlink(missing_ok=True)
        (self.faults / "armed" / point).write_text(content)

    def disarm(self, point: str) -> bool:
        """Whether it had fired."""
        (self.faults / "armed" / point).unlink(missing_ok=True)
        if not (self.faults / "fired" / point).exists():
            return False
        if point.startswith("keeper"):
            self.deaths["keeper"] += 1
        return True

    def fired(self, point: str, patience: float = PATIENCE) -> bool:
        place = self.faults / "fired"
        return until(place, lambda: (place / point).exists(), patience)

    def set_clock(self, ahead: float) -> None:
        """Seconds that the clock of servers started from now on is ahead."""
        (self.faults / "clock").write_text(str(ahead))

    def restart_server(self) -> None:
        """kill -9, and wait for the next one."""
        starts = self._starts
        assert self.kill("server")
        with self._started:
            assert self._started.wait_for(lambda: self._starts > starts, PATIENCE)

    # What users do

    def call(self, method: str, path: str, body: Any = None) -> Reply:
        """As a patient client: repeated until a server answers, and not with 503."""
        deadline = time.monotonic() + PATIENCE
        while True:
            starts = self._starts
            try:
                reply = self.server.call(method, path, body)
                if reply.status != 503:
                    return reply
            except (OSError, HTTPException):
                pass
            assert time.monotonic() < deadline, f"no server answers; see {self.home}"
            with self._started:
                self._started.wait_for(lambda seen=starts: self._starts > seen, 1.0)

    def client(self) -> Client:
        return Client(self.server.url, self.server.token, self.home.parent / "client")

    def submit(self, **spec: Any) -> int:
        """One run; its number, once it was acknowledged."""
        return self.submit_all([spec])[0]

    def submit_all(self, specs: list[dict[str, Any]]) -> list[int]:
        """A request for several runs, repeated with its own id until it is acknowledged."""
        tasks = [{"type": "task", "commands": ["true"], **spec} for spec in specs]
        number = f"{id(self)}-{next(self._requests)}"
        body = {"request_id": number, "runs": [{"spec": task} for task in tasks]}
        reply = self.call("POST", "/v1/runs", body)
        assert reply.status == 200, reply.body
        return [run["id"] for run in reply.json["runs"]]

    def show(self, run: int) -> Any:
        return self.call("GET", f"/v1/runs/{run}").json

    def job_of(self, run: int) -> int:
        """The number of its first job, once it has one."""
        while not (jobs := self.show(run)["jobs"]):
            self.call("GET", f"/v1/runs/{run}/wait?timeout=1")
        return int(jobs[0]["id"])

    def nodes(self) -> Any:
        return self.call("GET", "/v1/nodes").json["nodes"]

    def until_connected(self) -> None:
        """Wait until the node greeted the present server."""
        connection = self.server.connection()
        headers = {"Authorization": f"Bearer {self.server.token}"}
        connection.request("GET", "/v1/events?follow=1&since=0", headers=headers)
        response = connection.getresponse()
        while not any(node["state"] == "up" for node in self.nodes()):
            assert response.readline(), "the server ended"
        response.close()
        connection.close()

    def until_running(self, run: int) -> None:
        """Wait until the server knows that the process runs."""
        while self.show(run)["summary"]["state"] != "running":
            self.call("GET", f"/v1/runs/{run}/wait?timeout=0.1")

    def end(self, run: int, patience: float = PATIENCE) -> Any:
        """Wait until the run is over; its view."""
        deadline = time.monotonic() + patience
        while True:
            reply = self.call("GET", f"/v1/runs/{run}/wait?timeout=20")
            assert reply.status == 200, reply.body
            if reply.json["summary"]["state"] in FINAL:
                return reply.json
            assert time.monotonic() < deadline, f"run {run} does not end: {reply.json}"

    def upload(self, task: Task) -> Task:
        with self.client() as client:
            return client.upload(task, self.home.parent)


def new_world(root: Path) -> World:
    """A world in an empty directory, not started."""
    home = root / "home"
    home.mkdir(mode=0o700)
    return World(home, Ledger(root / "ledger"), root / "faults")


@contextmanager
def living_world(source: Path | None = None) -> Iterator[World]:
    """A world that runs; its directory goes with it."""
    with tempfile.TemporaryDirectory(prefix="moorage-crash-", dir=outside()) as name:
        world = new_world(Path(name))
        world.use(source)
        try:
            world.start()
            world.until_connected()
            yield world
        finally:
            world.close()


def told(view: Any) -> str:
    """A run's view, for the message of a failed assertion."""
    return json.dumps({key: view[key] for key in ("summary", "jobs")}, indent=1)
