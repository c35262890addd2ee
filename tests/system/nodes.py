"""Several agents of this machine as the nodes of one server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from moorage import Client
from moorage.errors import NotFound
from moorage.protocol.api import FINAL_STATES, AttemptView, NodeView, RunView
from system.servers import Server

PATIENCE = 60.0


@dataclass
class Nodes:
    """A server, and agents by the names of their nodes."""

    server: Server
    directory: Path
    agents: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        return Client(self.server.url, self.server.token, self.server.home)

    def start(self, name: str, address: str = "") -> None:
        home = self.directory / name
        (home / "agent").mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "agent" / "token").write_text(self.server.node_token)
        (home / "agent" / "token").chmod(0o600)
        command = [sys.executable, "-m", "moorage.agent.main", "--server", self.server.url]
        with (home / "log").open("ab") as log:
            self.agents[name] = subprocess.Popen(
                [*command, "--home", str(home), "--name", name, "--address", address],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.follow(lambda: any(n.name == name and n.state == "up" for n in self._nodes()))

    def _nodes(self) -> list[NodeView]:
        with self.client as client:
            return list(client.nodes())

    def kill(self, name: str) -> None:
        self.agents[name].kill()
        self.agents.pop(name).wait()

    def follow(self, true: Callable[[], object], run: int | None = None) -> None:
        """Look again after each event until it is true; also after those between the first look
        and the moment from which events are followed."""
        with self.client as client:
            since = max((event.seq for event in client.events(run=run)), default=0)
            if true():
                return
            for _ in client.events(since=since, run=run, follow=True):
                if true():
                    return

    def reaches(self, run: int, state: str) -> None:
        """Wait until the run is in this state."""
        with self.client as client:
            self.follow(lambda: client.run(run).summary.state == state, run)

    def ended(self, run: int) -> RunView:
        with self.client as client:
            view = client.wait(run, PATIENCE)
        assert view.summary.state in FINAL_STATES, view.summary
        return view

    def output(self, run: int, rank: int) -> str:
        with self.client as client:
            return b"".join(client.logs(run, rank=rank)).decode()

    def end(self) -> None:
        with self.client as client:
            for run in client.runs(active=True):
                with suppress(NotFound):
                    client.stop(run.id, abort=True)
                self.ended(run.id)
        for agent in self.agents.values():
            agent.terminate()
        for agent in self.agents.values():
            agent.wait(PATIENCE)


def latest(view: RunView) -> list[AttemptView]:
    """The ranks of the latest attempt."""
    attempts = view.jobs[-1].attempts
    return [one for one in attempts if one.attempt == attempts[-1].attempt]


@contextmanager
def nodes(directory: Path, *names: str) -> Iterator[Nodes]:
    """A server with these nodes, for the length of a block."""
    home = directory / "server"
    home.mkdir()
    server = Server(home, ["--no-node"])
    server.start()
    found = Nodes(server, directory)
    try:
        for number, name in enumerate(names):
            found.start(name, f"127.0.0.{number + 1}")
        yield found
    finally:
        found.end()
        server.stop()
