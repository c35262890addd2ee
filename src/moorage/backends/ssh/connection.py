"""One host's shared ssh connection: opened by the first call, kept for the next ones.

The system's ssh does all of it, so aliases, agents, jump hosts and hardware keys work; it never
asks, and each call has a deadline after which it is killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from moorage.backends.ssh.complaints import NOT_SSH, explain, explain_silence, where
from moorage.backends.ssh.config import check_keys, target, write_config
from moorage.backends.ssh.fingerprint import with_fingerprint
from moorage.backends.ssh.interface import HostConfig, HostProblem
from moorage.backends.ssh.program import Program, answer, command, new_word

DEADLINE = 45.0
"""Seconds for one call that carries little: a login through a slow chain, then some work."""
_MOST = 4 * 1024 * 1024
"""Bytes of output taken: a login that prints without end is an error, not a full memory."""
_SOCKET_ROOM = 104 - len("/") - 40 - len(".XXXXXXXXXXXXXXXX")
"""A socket's address holds 107 bytes; ssh makes it of our directory, 40 digits and, until it is
ready, 17 more."""
_PIECE = 256 * 1024
_HEAD_START = 5.0
"""Seconds for a login through others, after which it is looked at what they say."""
_WORDS_DEADLINE = 20.0
"""Seconds for all of them to have said it; ssh gives up earlier."""

_log = logging.getLogger(__name__)


class Connection:
    """Calls on one host. Not more than a few at a time: sshd takes ten sessions a connection."""

    def __init__(self, config: HostConfig, known: Path) -> None:
        """`known`: a file of host keys, besides the user's own."""
        self.config = config
        self._known = known
        self._directory: Path | None = None

    async def call(
        self,
        program: Program,
        arguments: Mapping[str, Any],
        *,
        pythons: Sequence[str],
        privilege: str = "",
        payload: AsyncIterator[bytes] | None = None,
        deadline: float | None = None,
    ) -> Any:
        """Run a program over there and return what it answers. `payload` follows on its standard
        input; secrets go in `arguments`, which are sent the same way. `deadline`: in seconds,
        DEADLINE unless given. HostProblem."""
        deadline = DEADLINE if deadline is None else deadline
        word = new_word()
        request = program.request(word, arguments)
        process = await self._ssh([command(pythons, privilege)])
        failed = asyncio.Event()
        words = asyncio.create_task(self._words_of_jumps(failed)) if self.config.jumps else None
        try:
            out, said, status = await self._heard(process, request, payload, deadline)
            if words is not None and status == NOT_SSH and answer(word, out) is None:
                failed.set()
                said = await words
            return await self._judged(word, status, out, said)
        finally:
            if words is not None:
                words.cancel()
                await asyncio.wait({words})
            await reap(process)

    async def _heard(
        self,
        process: asyncio.subprocess.Process,
        request: bytes,
        payload: AsyncIterator[bytes] | None,
        deadline: float,
    ) -> tuple[str, str, int]:
        try:
            async with asyncio.timeout(deadline):
                out, said = await _converse(process, request, payload)
                return out, said, await process.wait()
        except TimeoutError:
            await self.close()
            raise HostProblem(
                f"{where(self.config)} did not answer within {deadline:.0f} s",
                "is it overloaded or frozen, or the network to it slow?",
                passing=True,
            ) from None

    async def _judged(self, word: str, status: int, out: str, said: str) -> Any:
        found = answer(word, out)
        if found is not None:
            return found[0]
        if len(out) > _MOST:
            raise HostProblem(
                f"the login on {where(self.config)} prints without end", "look at its rc files"
            )
        if status == NOT_SSH:
            raise await with_fingerprint(self.config, explain(self.config, said), said)
        raise explain_silence(self.config, status, out, said)

    async def _words_of_jumps(self, failed: asyncio.Event) -> str:
        """What ssh says without a shared connection: with one, it hides the words of those on
        the way. Asked for when it `failed`, or takes long: both, one after the other, would take
        the patience with a silent host twice."""
        try:
            async with asyncio.timeout(_HEAD_START):
                await failed.wait()
        except TimeoutError:
            if await asyncio.to_thread(self._is_open):
                await failed.wait()
        process = await self.apart(["exit 0"], ())
        try:
            async with asyncio.timeout(_WORDS_DEADLINE):
                _, said = await _converse(process, b"", None)
                await process.wait()
        except TimeoutError:
            return ""
        finally:
            await reap(process)
        return said

    def _is_open(self) -> bool:
        """Is the shared connection there?"""
        directory = self._directory
        return directory is not None and any(path.is_socket() for path in directory.glob("*"))

    async def _ssh(
        self, arguments: Sequence[str], options: Sequence[str] = (), *, to: str = ""
    ) -> asyncio.subprocess.Process:
        """`to`: another destination than the host, as ssh knows it."""
        check_keys(self.config)
        path = await asyncio.to_thread(self._prepare)
        place = to or target(self.config)
        try:
            return await asyncio.create_subprocess_exec(
                "ssh",
                *("-F", str(path), "-T", "-x", *options, "--", place, *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "SSH_ASKPASS_REQUIRE": "never"},
                start_new_session=True,  # no terminal to ask on, whatever a jump's ssh thinks
            )
        except FileNotFoundError:
            raise HostProblem(
                "the server's machine has no ssh", "install openssh-client there"
            ) from None

    async def apart(
        self, arguments: Sequence[str], options: Sequence[str]
    ) -> asyncio.subprocess.Process:
        """A connection of its own with a command on it, for what lasts."""
        alone = ("ControlMaster=no", "ControlPath=none", "ControlPersist=no")
        words = [word for option in alone for word in ("-o", option)]
        return await self._ssh(arguments, [*words, *options])

    async def forwarded(self, place: str, through: str) -> asyncio.subprocess.Process:
        """What listens at `place` ("[host]:port"), by hosts on the way as ssh writes them in
        ProxyJump; as ssh itself does it."""
        *before, last = through.split(",")
        way = ("-J", ",".join(before)) if before else ()
        return await self._ssh((), [*way, "-W", place], to=f"ssh://{last}")

    async def resolved(self) -> tuple[str, int, str] | None:
        """The address and port that ssh connects to, and its ProxyJump, empty for none; None where
        there is no telling, by a ProxyCommand."""
        process = await self._ssh((), ("-G",))
        try:
            out, _ = await _converse(process, b"", None)
        finally:
            await reap(process)
        found = dict(line.split(" ", 1) for line in out.splitlines() if " " in line)
        if found.get("proxycommand", "none") != "none" or not found.get("port", "").isdigit():
            return None
        through = found.get("proxyjump", "none")
        return found["hostname"], int(found["port"]), "" if through == "none" else through

    def _prepare(self) -> Path:
        if self._directory is None or not self._directory.is_dir():
            self._directory = Path(tempfile.mkdtemp(prefix="mrg-", dir=_short_place()))
        return write_config(self.config, self._directory, self._known)

    async def close(self) -> None:
        """End the shared connection, if there is one."""
        directory, self._directory = self._directory, None
        if directory is None:
            return
        process = await asyncio.create_subprocess_exec(
            *("ssh", "-F", str(directory / "config"), "-O", "exit", "--", target(self.config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            _log.warning("the connection to %s does not end by itself", where(self.config))
        finally:
            await reap(process)
            shutil.rmtree(directory, ignore_errors=True)


def _short_place() -> str:
    """Where sockets of ssh may lie: a directory with a short name."""
    for place in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108
        if (
            place
            and len(place) + len("/mrg-12345678") < _SOCKET_ROOM
            and os.access(place, os.W_OK)
        ):
            return place
    raise HostProblem("no directory for ssh's sockets can be written", "set TMPDIR to one")


async def _converse(
    process: asyncio.subprocess.Process, request: bytes, payload: AsyncIterator[bytes] | None
) -> tuple[str, str]:
    """Send all and hear all, both ways at once; killed where that does not end."""
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.TaskGroup() as group:
        out = group.create_task(_hear(process, process.stdout))
        said = group.create_task(_hear(process, process.stderr))
        group.create_task(_say(process, request, payload))
    return out.result(), said.result()


async def _say(
    process: asyncio.subprocess.Process, request: bytes, payload: AsyncIterator[bytes] | None
) -> None:
    stream = process.stdin
    assert stream is not None
    # Whoever hangs up has said why elsewhere.
    with suppress(ConnectionError):
        stream.write(request)
        await stream.drain()
        if payload is not None:
            async for piece in payload:
                stream.write(piece)
                await stream.drain()
        stream.write_eof()
        await stream.wait_closed()


async def _hear(process: asyncio.subprocess.Process, stream: asyncio.StreamReader) -> str:
    heard = bytearray()
    while piece := await stream.read(_PIECE):
        heard += piece
        if len(heard) > _MOST:
            _kill(process)
            break
    return heard.decode(errors="replace")


def _kill(process: asyncio.subprocess.Process) -> None:
    # Its own kill() looks whether it has ended, and takes that away from the loop's watcher, which
    # then warns of a child that it does not know.
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)


async def reap(process: asyncio.subprocess.Process) -> None:
    """No process of ours stays, nor its pipes."""
    if process.returncode is None:
        _kill(process)
        await process.wait()
    if process.stdin is not None:
        process.stdin.close()
        with suppress(ConnectionError):
            await process.stdin.wait_closed()
    process._transport.close()  # type: ignore[attr-defined]


async def read_file(path: Path) -> AsyncIterator[bytes]:
    """A file in pieces, read beside the loop."""
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
