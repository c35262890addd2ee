"""The server process: `python -m moorage.server.main`."""

from __future__ import annotations

import argparse
import errno
import ipaddress
import logging
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from moorage.errors import InvalidInput, MoorageError, Problem
from moorage.server import notes
from moorage.server.options import Options

NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    home = ""
    try:
        options = parse(arguments)
        home = str(options.home)
        if options.ready_fd is not None:
            notes.tell(options.ready_fd)
        import asyncio

        from moorage.server.process import serve

        return asyncio.run(serve(options))
    except MoorageError as error:
        _complain(error)
        return error.exit_code
    except OSError as error:
        _complain(refused(error, home))
        return 1


def refused(error: OSError, home: str) -> str:
    """What the system refused, where, and what to do about it."""
    place = error.filename or home
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{place}: the disk is full: free some space, then start the server again"
    return f"{place}: {error.strerror or error}"


def _complain(error: object) -> None:
    with suppress(OSError):  # the log may be on the disk that is full
        print(f"moorage server: {error}", file=sys.stderr)


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The command line; InvalidInput where it asks for what is not safe."""
    from moorage.server.settings import home_directory

    parser = argparse.ArgumentParser(
        prog="moorage.server.main", description="Run a moorage server in the foreground."
    )
    parser.add_argument("--home", help="where everything is kept (default: $MOORAGE_HOME)")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0: as last time, or any free one")
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="ADDRESS[:PORT]",
        help="also listen there, with TLS; several; off: loopback only",
    )
    parser.add_argument("--ready-fd", type=int, help="written to once the server answers")
    parser.add_argument("--no-node", action="store_true", help="do not make this machine a node")
    parser.add_argument("--node-name", default="", metavar="NAME", help="default: hostname")
    parser.add_argument(
        "--database", default="", metavar="URL", help="sqlite or postgresql://HOST/DATABASE"
    )
    given = parser.parse_args(arguments)
    require_loopback(given.host)
    return Options(
        home=home_directory(given.home),
        host="127.0.0.1" if given.host == "localhost" else given.host,
        port=given.port,
        ready_fd=given.ready_fd,
        with_node=not given.no_node,
        listen=tuple(given.listen),
        node_name=node_name(given.node_name),
        database=given.database,
    )


def node_name(given: str) -> str:
    """InvalidInput for what is no name for a node; empty means the host's."""
    if given and not NODE_NAME.fullmatch(given):
        raise InvalidInput(
            Problem(
                f"{given!r} is no name for a node",
                "use up to 63 letters, digits, dots and dashes, a letter or digit first",
                "--node-name",
            )
        )
    return given


def require_loopback(host: str) -> None:
    """InvalidInput for an address that others can reach: tokens and data would cross the network
    in the clear."""
    try:
        safe = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        safe = False
    if not safe:
        raise InvalidInput(
            Problem(
                f"{host} is not a loopback address, and tokens could be read on the way there",
                f"use --listen {host}, which has TLS",
                "--host",
            )
        )


def _leave(code: int) -> NoReturn:
    """End with this code, also where the log cannot be written any more: Python's own exit would
    put another code in its place."""
    logging.shutdown()
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
