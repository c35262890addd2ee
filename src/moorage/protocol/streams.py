"""Streams: bytes in both directions between a client and a job on its node.

Each is a WebSocket of its own on both sides of the server, which passes on what comes: flow
control is that of TCP, and no report of an agent waits behind a file. The client's first message
is a `StreamRequest` in JSON, the first it gets an `Opened`; from then on all messages are bytes,
cut anywhere. An empty one ends its direction, the end of the WebSocket both.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from moorage.decoding import json_decoder

CLIENT_PATH = "/v1/runs/{ref}/streams"
AGENT_PATH = "/v1/agent/streams/{id}"


class Command(Struct, frozen=True, omit_defaults=True, tag="exec"):
    """Run this in the job. The bytes are pieces as in `moorage.frames`."""

    argv: list[str]
    terminal: bool = False
    term: str = ""
    """What kind of terminal (`TERM`); empty without one."""
    rows: int = 24
    columns: int = 80


class Shell(Struct, frozen=True, omit_defaults=True, tag="ssh"):
    """Speak the SSH protocol, to whoever has the key."""

    public_key: str
    """A line for `authorized_keys`."""


class Port(Struct, frozen=True, omit_defaults=True, tag="port"):
    """Connect to this port of the job."""

    port: int


Purpose = Command | Shell | Port


class StreamRequest(Struct, frozen=True, omit_defaults=True):
    """What a client wants of a run. `job`: its position, the last where there is none."""

    purpose: Purpose
    job: int | None = None
    rank: int = 0


class Opened(Struct, frozen=True, omit_defaults=True):
    """The answer. With a `code`, as in an `ErrorBody`, there is no stream, but an `error`."""

    code: str = ""
    error: str = ""
    host_key: str = ""
    """Of an SSH stream: the public key that the node will show."""


def nothing_runs(name: str, state: str, *, ended: bool) -> str:
    """Why no stream leads into a run, or into a job of it, that is in this state."""
    how = f"has ended ({state})" if ended else f"is {state}"
    return f"run {name} {how}: nothing of it runs that could be reached"


encode = msgspec.json.Encoder().encode
decode_request = json_decoder(StreamRequest)
decode_opened = json_decoder(Opened)
