"""Types that several threads meet for the first time."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from moorage.decoding import converted, from_json, json_decoder, msgpack_decoder

TWO_THREADS = """\
import threading
import msgspec
from moorage import decoding

class Slow:
    def __init__(self):
        self.looked, self.go_on = threading.Event(), threading.Event()
    def __getattr__(self, name):
        self.looked.set()
        self.go_on.wait(30)
        return int

slow = Slow()

class Inner(msgspec.Struct):
    number: "slow.int"

class Outer(msgspec.Struct):
    inner: Inner
    after: list[int] = []

found = []
def read(text):
    found.append({read})

first = threading.Thread(target=read, args=(b'{{"inner": {{"number": 1}}}}',))
first.start()
slow.looked.wait(30)
second = threading.Thread(target=read, args=(b'{{"inner": {{"number": 2}}}}',))
second.start()
second.join(0.3)
waited = second.is_alive()
slow.go_on.set()
first.join()
second.join()
print(waited, sorted(one.inner.number for one in found))
"""


def run(read: str) -> subprocess.CompletedProcess[str]:
    program = TWO_THREADS.format(read=read)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    "read",
    ["decoding.from_json(text, Outer)", "decoding.converted(msgspec.json.decode(text), Outer)"],
)
def test_a_second_thread_waits_until_a_type_is_known(read: str) -> None:
    done = run(read)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True [1, 2]\n"


def test_each_reader_says_what_it_reads() -> None:
    assert from_json("[1, 2]", list[int]) == [1, 2]
    assert from_json(b"null", int | None) is None
    assert json_decoder(set[str])(b'["a"]') == {"a"}
    assert msgpack_decoder(int)(b"\x07") == 7
    assert converted("7", int, strict=False) == 7
    with pytest.raises(msgspec.ValidationError):
        converted("7", int)
