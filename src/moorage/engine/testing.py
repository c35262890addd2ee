"""An agent without a socket and without processes, for tests and simulations: it says what it is
told to say, and shows what the engine sent."""

from __future__ import annotations

from collections import deque

from moorage.engine.links import Link
from moorage.engine.loop import Engine
from moorage.protocol import VERSION
from moorage.protocol.agent import (
    Held,
    Hello,
    Isolation,
    NodeResources,
    Outcome,
    Report,
    Retract,
    Start,
    ToAgent,
    Welcome,
    decode_to_agent,
)

GIB = 1024**3


def hello(name: str = "n1", *held: Held, cpus: int = 4, boot_id: str = "boot-1") -> Hello:
    """What a small node says first."""
    return Hello(
        protocol=VERSION,
        version="test",
        node=name,
        boot_id=boot_id,
        resources=NodeResources(cpus=cpus, arch="x86", memory=8 * GIB, disk=100 * GIB),
        isolation=Isolation(),
        pythons=["3.11"],
        held=list(held),
    )


class FakeAgent:
    """One node's agent; may connect again after `disconnect`."""

    def __init__(self, engine: Engine, name: str = "n1", cpus: int = 4) -> None:
        self.engine = engine
        self.name = name
        self.cpus = cpus
        self.link: Link | None = None
        self.seq = 0
        self._lines: dict[str, list[str]] = {}
        self._line_of: dict[str, str] = {}
        self._begun: deque[str] = deque()

    async def connect(self, *held: Held) -> Welcome:
        """Greet, and return the first message of the answer."""
        greeting = hello(self.name, *held, cpus=self.cpus)
        self.link = await self.engine.hello(greeting, self.engine.links.accept())
        welcome = await self.next()
        assert isinstance(welcome, Welcome)
        return welcome

    async def next(self) -> ToAgent:
        """The next message; EOFError when the engine closed the link."""
        assert self.link is not None
        data = await self.link.next()
        if data is None:
            raise EOFError(self.link.closed)
        message: ToAgent = decode_to_agent(data)
        return message

    async def start(self) -> str:
        """The key of the next attempt that begins here, by itself or in the place of another."""
        while not self._begun:
            message = await self.next()
            if isinstance(message, Start):
                self._take(message)
            elif isinstance(message, Retract):
                self._give_back(message.keys)
        return self._begun.popleft()

    def _take(self, message: Start) -> None:
        launch = message.launch
        key = f"{launch.job}.{launch.attempt}.{launch.rank}"
        line = self._lines.setdefault(launch.line, [])
        self._line_of[key] = launch.line
        if message.wait:
            line.append(key)
            return
        if key in line:
            line.remove(key)
        self._begun.append(key)

    def _give_back(self, keys: list[str]) -> None:
        given = [key for key in keys if key in self._lines[self._line_of[key]]]
        for key in given:
            self._lines[self._line_of[key]].remove(key)
        self.report(*(Held(key, "retracted") for key in given))

    def report(self, *held: Held) -> None:
        """Say how these claims are now."""
        assert self.link is not None
        self.seq += 1
        self.engine.report(self.link, Report(self.seq, list(held)))

    def finish(self, key: str, exit_code: int = 0) -> None:
        """Report that an attempt ran and is over, and that the next in its line has its place."""
        ended = Held(key, "done", outcome=Outcome("exited", exit_code=exit_code))
        line = self._lines.get(self._line_of.pop(key, ""), [])
        if not line:
            self.report(ended)
            return
        following = line.pop(0)
        self._begun.append(following)
        self.report(ended, Held(following, "staging"))

    def disconnect(self) -> None:
        """Be gone."""
        assert self.link is not None
        self.engine.lost(self.link)
