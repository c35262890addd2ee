"""The agent: `python -m moorage.agent.main --server URL[,URL...] --home DIR [--name NODE]`.

One for each home, held by a lock. SIGTERM ends it at once; jobs go on under the keeper, and the
next agent finds them. SIGUSR1: the way to the server is new, connect now.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import platform
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from moorage.agent.agent import Agent
from moorage.agent.containers.engines import NAMES
from moorage.agent.flushing import PATIENCE
from moorage.agent.output.logs import DEFAULT_LIMIT
from moorage.agent.uplink.addresses import Addresses, websocket_url
from moorage.agent.uplink.link import ProtocolMismatch
from moorage.agent.uplink.tunnel import TunnelEnd
from moorage.errors import MoorageError, Unavailable

EXIT_PROTOCOL = 6
"""Server and agent do not understand each other; starting again does not help."""
_LOCK_PATIENCE = 1.5  # seconds: an agent that ends, or somebody who only looks at the lock

log = logging.getLogger("moorage.agent")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; the exit code."""
    options = _options(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    # The library's own lines repeat, in more words, what the link says.
    logging.getLogger("websockets").setLevel(logging.ERROR)
    # Not ignored: that would be inherited by what this starts, a handler is not.
    for number in (signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, _take_no_notice)  # SIGUSR1: until somebody would have use for it
    home = options.home.absolute() / "agent"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _lock(home / "lock")
        # Not asyncio.run: that waits for threads, and one may be fetching for minutes. Whatever
        # it was doing, the next agent undoes.
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(_run(options, home))
        finally:
            loop.close()
            os.close(lock)
    except ProtocolMismatch as error:
        log.error("%s", error)
        return EXIT_PROTOCOL
    except MoorageError as error:
        log.error("%s", error)
        return error.exit_code
    except OSError as error:
        log.error("%s", error)
        return 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="moorage-agent", description="Runs jobs on this node.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", metavar="URL[,URL...]", help="http://HOST:PORT, tried in turn")
    where.add_argument(
        "--tunnel", type=Path, metavar="FILE", help="holds the address at present, and its user"
    )
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="whom to trust on TLS (default: the system's)"
    )
    parser.add_argument("--home", required=True, type=Path, metavar="DIR", help="$MOORAGE_HOME")
    parser.add_argument(
        "--name", default=platform.node(), metavar="NODE", help="default: hostname"
    )
    parser.add_argument(
        "--address", default="", metavar="IP", help="where other nodes reach this one"
    )
    parser.add_argument(
        "--engines",
        default=",".join(NAMES),
        metavar="NAME[,NAME...]",
        help="what runs containers: the first that works here (default: %(default)s)",
    )
    parser.add_argument(
        "--docker", choices=("yes", "no"), default="no", help="jobs may have Docker daemons"
    )
    parser.add_argument(
        "--log-limit",
        type=int,
        default=DEFAULT_LIMIT,
        metavar="BYTES",
        help="output kept for one attempt (default: %(default)s; 0: no limit)",
    )
    parser.add_argument(
        "--flush-timeout",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help="without a byte moved, until a flush is given up (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.tunnel is not None:
        return options
    options.servers = [url for url in options.server.split(",") if url]
    try:
        for url in options.servers or [options.server]:
            websocket_url(url)
    except ValueError as error:
        parser.error(f"--server: {error}")
    return options


async def _run(options: argparse.Namespace, home: Path) -> int:
    loop = asyncio.get_running_loop()
    leaving = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leaving.set)
    agent = Agent(
        _addresses(options, home),
        home,
        options.name,
        options.log_limit,
        options.address,
        options.engines.split(","),
        options.docker == "yes",
        flush_timeout=options.flush_timeout,
    )
    try:
        await agent.begin()
        loop.add_signal_handler(signal.SIGUSR1, agent.retry)
        serving = asyncio.create_task(agent.serve())
        signalled = asyncio.create_task(leaving.wait())
        await asyncio.wait({serving, signalled}, return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        if serving.done():
            await serving
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
        log.info("leaving; jobs go on")
    finally:
        await agent.leave()
    return 0


def _take_no_notice(_number: int, _frame: FrameType | None) -> None:
    pass


def _addresses(options: argparse.Namespace, home: Path) -> Addresses:
    if options.tunnel is not None:
        return TunnelEnd(options.tunnel)
    return Addresses(options.servers, home / "servers", options.ca)


def _lock(path: Path) -> int:
    """Be the only agent of this home; the descriptor holds the lock. Unavailable."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def too_late(_number: int, _frame: FrameType | None) -> NoReturn:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, _LOCK_PATIENCE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except TimeoutError:
        pid = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
        os.close(descriptor)
        raise Unavailable(f"another agent (pid {pid}) runs in {path.parent}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    with suppress(OSError):  # a full disk is no reason to leave jobs alone
        os.ftruncate(descriptor, os.pwrite(descriptor, str(os.getpid()).encode(), 0))
    return descriptor


def _leave_at_once(code: int) -> NoReturn:
    """End without waiting for threads, and with this code even where the disk of the log is
    full."""
    logging.shutdown()
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave_at_once(main())
