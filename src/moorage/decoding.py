"""Bytes and plain values into typed ones, by any number of threads.

msgspec looks at a type when it is first asked for it, and keeps what it saw on the type itself.
A second thread that asks meanwhile finds this half filled, and the process dies of a segmentation
fault (0.22; tests/unit/test_decoding.py has how). So types are looked at here only, one thread at
a time; reading needs no lock. ruff keeps other modules from calling msgspec for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import RLock
from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")
_LOOKING = RLock()


@overload
def from_json(data: bytes | str, kind: type[T]) -> T: ...
@overload
def from_json(data: bytes | str, kind: Any) -> Any: ...
def from_json(data: bytes | str, kind: Any) -> Any:
    """What JSON says, as a `kind`; `msgspec.DecodeError` where it says something else."""
    return _json(kind)(data)


@overload
def converted(value: object, kind: type[T], *, strict: bool = True) -> T: ...
@overload
def converted(value: object, kind: Any, *, strict: bool = True) -> Any: ...
def converted(value: object, kind: Any, *, strict: bool = True) -> Any:
    """Dicts, lists and scalars as a `kind`; `msgspec.ValidationError` where they are none. Not
    `strict`: text may stand for a number or a truth value."""
    _json(kind)
    return msgspec.convert(value, kind, strict=strict)  # noqa: TID251 - the type is known by now


@overload
def json_decoder(kind: type[T]) -> Callable[[bytes | str], T]: ...
@overload
def json_decoder(kind: Any) -> Callable[[bytes | str], Any]: ...
def json_decoder(kind: Any) -> Callable[[bytes | str], Any]:
    """`from_json` for one kind, for what is read often."""
    return _json(kind)


@overload
def msgpack_decoder(kind: type[T]) -> Callable[[bytes], T]: ...
@overload
def msgpack_decoder(kind: Any) -> Callable[[bytes], Any]: ...
def msgpack_decoder(kind: Any) -> Callable[[bytes], Any]:
    """A function that reads MessagePack as a `kind`."""
    with _LOOKING:
        return msgspec.msgpack.Decoder(kind).decode  # noqa: TID251 - one thread at a time


@cache
def _json(kind: Any) -> Callable[[bytes | str], Any]:
    with _LOOKING:
        return msgspec.json.Decoder(kind).decode  # noqa: TID251 - one thread at a time
