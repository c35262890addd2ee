"""The agent's connection to the server: dialled from here, kept up, caught up after each break.

Only what changed travels, and only its latest state: while one `Report` waits for its `Ack`,
further changes of a claim replace each other. Nothing is queued over a break, because the `Hello`
of the next connection carries every claim; so jobs do not care whether a server is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.frames import CloseCode

from moorage import protocol
from moorage.agent.uplink import dialling
from moorage.agent.uplink.addresses import Addresses, websocket_url
from moorage.agent.uplink.lease import Lease
from moorage.agent.uplink.pauses import pause
from moorage.agent.uplink.refusals import STANDBY, reason_of
from moorage.protocol.agent import (
    Ack,
    Beaten,
    Held,
    Hello,
    Report,
    ToAgent,
    ToServer,
    Welcome,
    encode,
    unbundle,
)

log = logging.getLogger("moorage.agent")

MESSAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of the largest message taken from the server: a `Start` with a large environment."""
_LAZY = 0.05  # seconds in which changes that nobody waits for are gathered
_PACE = 0.01  # seconds between two reports: what short jobs change meanwhile goes together
_LASTING = 5.0
_BROKEN = 3
"""Failures that count at most where a server that had greeted is gone without a word: it crashed,
and is back sooner than a pause that grew with each of its crashes would end."""
_OPEN_TIMEOUT = _WELCOME_TIMEOUT = 10.0
_PULSE = 4.0
"""Seconds between two signs of life that a server must give where another one could be asked."""


class ProtocolMismatch(Exception):
    """Server and agent speak different versions: waiting does not help."""


class _Refused(Exception):
    """This connection will not do; another may."""


class Link:
    """Delivers messages to `handle` and carries reports and answers back.

    `hello` is asked before each connect, `held` gives the present state of a claim (None: no such
    claim), `down` is called when a connection that was up ends. All run on the loop's thread.
    """

    def __init__(
        self,
        addresses: Addresses,
        token: Path,
        epochs: Path,
        *,
        hello: Callable[[], Hello],
        held: Callable[[str], Held | None],
        handle: Callable[[ToAgent], None],
        down: Callable[[], None],
        lease: Lease | None = None,
        known: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        self._addresses = addresses
        self._token = token
        self._epochs = epochs
        self._hello, self._held, self._handle, self._down = hello, held, handle, down
        self._lease = lease or Lease(lambda _: None, lambda: None)
        self._known, self._told = known, list[str]()
        self.retry = asyncio.Event()
        """Set by whoever knows that the way to the server is another one from now on."""
        self._changed: dict[str, Held | None] = {}
        self._answers: deque[Callable[[], ToServer]] = deque()
        self._stirred = asyncio.Event()
        self._several = asyncio.Event()
        """More than one server is known."""
        self._lazy: asyncio.TimerHandle | None = None
        self._paced: asyncio.TimerHandle | None = None
        self._reported = 0.0
        self._hurried = False
        self._up = False
        self._since = 0.0
        self._sent = self._acked = 0
        self._complaints: set[str] = set()

    def changed(self, key: str, urgent: bool) -> None:
        """A claim has a new state; not urgent where another one is likely to follow at once."""
        self._changed[key] = None
        self._stir(urgent)

    def tell(self, held: Held) -> None:
        """Report something that is no claim here."""
        self._changed[held.key] = held
        self._stir(True)

    def hurry(self) -> None:
        """Let the next report go as soon as the last is acknowledged: work runs out here."""
        self._hurried = True
        self._stir(True)

    def answer(self, message: Callable[[], ToServer]) -> None:
        """Send what the call gives, when its turn comes; dropped when the connection is gone, and
        the request with it."""
        if self._up:
            self._answers.append(message)
            self._stirred.set()

    async def run(self) -> None:
        """Stay connected until cancelled. ProtocolMismatch."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            hinted = broken = False
            try:
                await self._connection()
            except (OSError, EOFError, _Refused, InvalidHandshake, ConnectionClosed) as error:
                self._complain(reason_of(error))
                hinted = self._hinted(error)
                broken = self._up and isinstance(error, ConnectionClosed) and error.rcvd is None
            # A connection that does not last counts as none: two agents under one name would
            # otherwise push each other out as fast as they can.
            lasted = self._up and loop.time() - self._since > _LASTING
            failures = 0 if lasted else failures + 1
            if broken:
                failures = min(failures, _BROKEN)
            self._hang_up()
            if not hinted:
                self._addresses.next()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause(failures, len(self._addresses.known))):
                    await self.retry.wait()

    def _hinted(self, error: Exception) -> bool:
        """A server that does not lead said which one does."""
        closed = error.rcvd if isinstance(error, ConnectionClosed) else None
        if closed is None or closed.code != STANDBY:
            return False
        return self._addresses.follow(closed.reason)

    async def _connection(self) -> None:
        try:
            token = self._token.read_text().strip()
        except OSError as error:
            raise _Refused(f"{self._token} cannot be read: {error.strerror}") from None
        self.retry.clear()  # before the way is looked at: a newer one is tried at once
        present = self._addresses.present
        url = websocket_url(present)
        trusted = self._addresses.trust(url)
        near = await dialling.near(url, self._addresses.owner)
        async with dialling.unless(self._turned(present)):  # a dead one may be silent for long
            opened = await connect(
                url,
                sock=near,
                ssl=trusted,
                additional_headers={"Authorization": f"Bearer {token}"},
                compression=None,
                max_size=MESSAGE_LIMIT,
                ping_interval=None,  # `_beat` does that
                open_timeout=_PULSE if len(self._addresses.known) > 1 else _OPEN_TIMEOUT,
                close_timeout=1,
                proxy=None if near else True,
            )
        async with opened as socket:
            # The claims are complete in Hello; only what changes after it needs a report.
            self._changed.clear()
            self._lease.greet()
            hello = self._hello()
            self._told = [held.key for held in hello.held]
            await socket.send(encode(hello))
            first = await self._welcome(socket)
            duties = (self._write, self._beat, self._feel_pulse)
            tasks = [asyncio.create_task(duty(socket)) for duty in duties]
            tasks.append(asyncio.create_task(self._leave_old_way(socket, present)))
            try:
                self._take_all(first)
                async for raw in socket:
                    self._take_all(decode(raw))
            finally:
                await _end(tasks)
        raise _Refused(f"the server closed the connection ({socket.close_reason or 'no reason'})")

    async def _welcome(self, socket: ClientConnection) -> list[ToAgent]:
        """Take the greeting; what came in one frame with it."""
        try:
            async with asyncio.timeout(_WELCOME_TIMEOUT):
                welcome, *rest = decode(await socket.recv())
        except TimeoutError:
            raise _Refused("the server does not answer the greeting") from None
        except ConnectionClosed as error:
            if error.rcvd and error.rcvd.code == CloseCode.PROTOCOL_ERROR:
                raise ProtocolMismatch(reason_of(error)) from None
            raise
        if not isinstance(welcome, Welcome):
            raise _Refused("the server does not greet back")
        if welcome.protocol != protocol.VERSION:
            raise ProtocolMismatch(
                f"the server ({welcome.version}) speaks protocol {welcome.protocol}, this agent "
                f"{protocol.VERSION}; install the same version of moorage on both"
            )
        self._check_epoch(welcome.epoch)
        self._lease.welcome(welcome.lease)
        self._known(self._told)
        self._up, self._since = True, asyncio.get_running_loop().time()
        self._complaints.clear()
        self._sent = self._acked = 0
        self._stirred.set()
        self._learn(welcome.servers)
        where = self._addresses.present
        log.info("connected to %s as node %d, epoch %d", where, welcome.node_id, welcome.epoch)
        return rest

    def _learn(self, servers: list[str]) -> None:
        self._addresses.learn(servers)
        if len(self._addresses.known) > 1:
            self._several.set()

    async def _feel_pulse(self, socket: ClientConnection) -> None:
        """Leave a server that answers nothing any more where there are others: it may be frozen,
        and another one lead."""
        await self._several.wait()
        while True:
            answered = await socket.ping()
            try:
                async with asyncio.timeout(_PULSE):
                    await answered
            except TimeoutError:
                log.warning("the server gives no sign of life: looking for another one")
                socket.transport.abort()
                return
            await asyncio.sleep(_PULSE)

    async def _beat(self, socket: ClientConnection) -> None:
        """Signs of life, until one is not answered in time: a connection that is cut, in one
        direction or both, says nothing of it."""
        while not self._lease.silent:
            await asyncio.sleep(self._lease.interval)
            self.answer(self._lease.beat)
        log.warning("the server does not answer: connecting anew")
        socket.transport.abort()

    async def _leave_old_way(self, socket: ClientConnection, way: str) -> None:
        """A way to the server that was replaced is dead, which may take long to show; whoever
        says that there is a new one may mean this."""
        await self._turned(way)
        socket.transport.abort()

    async def _turned(self, way: str) -> None:
        """Until there is another way to the server than this one."""
        while True:
            await self.retry.wait()
            if self._addresses.present != way:
                return
            self.retry.clear()

    def _check_epoch(self, epoch: int) -> None:
        """Refuse a server that was replaced and does not know it yet."""
        known = 0
        with suppress(OSError, ValueError):
            known = int(self._epochs.read_text())
        if epoch < known:
            raise _Refused(
                f"the server is of epoch {epoch}, a newer one ({known}) was here before"
            )
        if epoch > known:
            with suppress(OSError):  # a full disk is no reason to leave the server
                self._epochs.write_text(str(epoch))

    def _take_all(self, messages: Sequence[ToAgent]) -> None:
        """_Refused where the lease is over: they may be old, and the server has given up on us."""
        if messages and not self._lease.valid():
            raise _Refused("there was no contact for too long")
        for message in messages:
            self._take(message)

    def _take(self, message: ToAgent) -> None:
        if isinstance(message, Ack):
            self._acked = max(self._acked, message.seq)
            if self._acked == self._sent:
                self._known(self._told)
            self._stirred.set()
        elif isinstance(message, Beaten):
            self._lease.answered(message.number)
        elif isinstance(message, Welcome):
            self._learn(message.servers)
        else:
            self._handle(message)

    async def _write(self, socket: ClientConnection) -> None:
        """Send while there is something to send: reports first, then one answer at a time."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            while message := self._next():
                await socket.send(encode(message))

    def _next(self) -> ToServer | None:
        if self._changed and self._sent == self._acked and self._due():
            held = [told or self._held(key) for key, told in self._changed.items()]
            self._told = list(self._changed)
            self._changed.clear()
            self._sent += 1
            return Report(self._sent, [known for known in held if known is not None])
        return self._answers.popleft()() if self._answers else None

    def _due(self) -> bool:
        """Whether it is time for a report; if not, it will be looked at again when it is."""
        loop = asyncio.get_running_loop()
        left = self._reported + _PACE - loop.time()
        if left <= 0 or self._hurried:
            self._reported, self._hurried = loop.time(), False
            return True
        if self._paced is None:
            self._paced = loop.call_later(left, self._go_on)
        return False

    def _go_on(self) -> None:
        self._paced = None
        self._stirred.set()

    def _stir(self, urgent: bool) -> None:
        if not self._up:
            return
        if urgent:
            self._stirred.set()
        elif self._lazy is None:
            self._lazy = asyncio.get_running_loop().call_later(_LAZY, self._wake)

    def _wake(self) -> None:
        self._lazy = None
        self._stirred.set()

    def _hang_up(self) -> None:
        for handle in (self._lazy, self._paced):
            if handle is not None:
                handle.cancel()
        self._lazy = self._paced = None
        self._answers.clear()
        self._stirred.clear()
        if self._up:
            self._up = False
            self._down()

    def _complain(self, reason: str) -> None:
        """Say why there is no connection, once for each server and reason."""
        complaint = f"no server at {self._addresses.present}: {reason}"
        if complaint not in self._complaints:
            self._complaints.add(complaint)
            log.warning("%s; jobs go on, trying again", complaint)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel them and wait. A cancellation of the caller's own, which may come just now, passes:
    an agent that is told to leave while its server stops must not miss it."""
    for task in tasks:
        task.cancel()
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(error, Exception) and not isinstance(error, ConnectionClosed):
            raise error


def decode(raw: str | bytes) -> list[ToAgent]:
    """The messages of a frame of the server, at least one."""
    try:
        messages = unbundle(raw if isinstance(raw, bytes) else raw.encode())
    except msgspec.MsgspecError as error:
        raise _Refused(f"the server sent what this agent does not understand: {error}") from None
    if not messages:
        raise _Refused("the server sent an empty frame")
    return messages
