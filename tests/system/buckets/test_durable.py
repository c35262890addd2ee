"""`durable: fsync`: what `fsync` has returned for is in the bucket."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.root

PROGRAM = """
import os, sys
def told(word):
    print(word, flush=True)
    with open("/workflow/go") as go:
        go.read()
"""


def program(text: str) -> str:
    """A command: `told(word)` prints it, and waits until the test lets it `go`."""
    return f"mkfifo /workflow/go; exec {sys.executable} -c {shlex.quote(PROGRAM + text)}"


def go(b: Any, key: str) -> None:
    descriptor = os.open(b.world.attempt(key) / "work" / "go", os.O_WRONLY)
    os.close(descriptor)


def run(main: Callable[[Any], Any], buckets: Any) -> None:
    async def body() -> None:
        async with buckets() as b:
            await main(b)
            assert b.leftovers() == []

    asyncio.run(body())


def test_it_is_there_when_fsync_returns(buckets: Any) -> None:
    write = '''
file = open("/data/new", "wb", buffering=0)
file.write(b"x" * 3_000_000)
os.fsync(file)
told("first")
file.write(b"y" * 5)
os.fdatasync(file)
told("second")
file.write(b"z")
'''

    async def main(b: Any) -> None:
        key = await b.desk.start(b.launch(program(write), b_durable="fsync"))
        await b.said(key, "first")
        assert b.store.listing(b.bucket) == {"new": 3_000_000}
        go(b, key)
        await b.said(key, "second")
        assert b.store.listing(b.bucket) == {"new": 3_000_005}
        go(b, key)
        held = await b.desk.done(key)
        assert held.outcome.exit_code == 0, held.outcome
        assert b.store.read(b.bucket, "new") == b"x" * 3_000_000 + b"yyyyyz"
        await b.desk.forget(key)

    run(main, buckets)
