"""Moves everything from one store to another, of whatever kind, and proves that it arrived.

Both ends are locked against servers. On the target all happens in one transaction, the proof
included, so that a kill at any moment leaves it empty or whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from blake3 import blake3

from moorage.errors import InvalidInput, Problem, Unavailable
from moorage.store import sql
from moorage.store.telling import Tell

_TABLE = re.compile(r"^CREATE TABLE (\w+) \($", re.MULTILINE)
_NOT_MOVED = ("servers", "pack_parts")
"""The servers of the old database are not those of the new; content goes pack by pack."""
_PARTLY = ("meta", *_NOT_MOVED)
"""Tables that are not empty in a new database."""
NUMBERED = ("events", "seq")
"""The column whose numbers the database itself gives out."""
TELL_EVERY = 2000

Cells = tuple[Any, ...]


class Source(Protocol):
    """What can be moved, or copied: it stays as it is meanwhile."""

    def columns(self, table: str) -> tuple[str, ...]:
        """Names in the order of the table."""

    def count(self, table: str) -> int:
        """How many rows there are."""

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Cells]:
        """All rows, in any order."""

    def pieces(self, pack: str) -> Iterator[bytes]:
        """The bytes of a pack; FileNotFoundError where there are none."""

    def last_number(self) -> int:
        """The highest number that NUMBERED ever had."""


class End(Source, Protocol):
    """A store to move from or to, held so that no server can use it."""

    @property
    def place(self) -> str:
        """Which one, in words."""

    @property
    def remedy(self) -> str:
        """How to get an empty one in its place."""

    def fill(self, table: str, columns: Sequence[str], rows: Iterable[Cells]) -> None:
        """Replace what is in a table."""

    def fill_pack(self, pack: str, pieces: Iterable[bytes]) -> None:
        """Keep these as the bytes of a pack."""

    def number_from(self, last: int) -> None:
        """Go on numbering after this one."""

    def commit(self) -> None:
        """Make all of it durable; without it nothing happened."""

    def close(self) -> None:
        """Let servers use it again."""


class Moved(NamedTuple):
    """What was moved and found again."""

    rows: dict[str, int]
    """By table."""
    packs: int
    bytes: int
    """Of all packs."""


def transfer(source: Source, target: End, tell: Tell) -> Moved:
    """Move all, prove it, commit. InvalidInput where the target is not empty; Unavailable where
    something is missing or did not arrive as it was: then the target stays empty."""
    require_empty(target)
    rows = {table: _move(source, target, table, tell) for table in _tables()}
    packs, size = _move_packs(source, target, tell)
    target.number_from(source.last_number())
    target.commit()
    return Moved(rows, packs, size)


def copy_rows(source: Source, target: End, tell: Tell) -> None:
    """All but content to a new store, proven and committed. Unavailable as of `transfer`."""
    for table in _tables():
        _move(source, target, table, tell)
    target.number_from(source.last_number())
    target.commit()


def is_empty(end: End) -> bool:
    """Whether nothing was ever kept there."""
    return not any(end.count(table) for table in _tables() if table not in _PARTLY)


def _tables() -> list[str]:
    """In an order in which rows come after those that they refer to."""
    return [name for name in _TABLE.findall(sql.schema()) if name not in _NOT_MOVED]


def require_empty(target: End) -> None:
    """InvalidInput, with the remedy, where something was kept there already."""
    filled = [
        f"{count} {table}"
        for table in _tables()
        if table not in _PARTLY and (count := target.count(table))
    ]
    if filled:
        raise InvalidInput(
            Problem(f"{target.place} is not empty ({', '.join(filled)})", target.remedy)
        )


def _move(source: Source, target: End, table: str, tell: Tell) -> int:
    columns = source.columns(table)
    total = source.count(table)
    sent, arrived = _Sum(), _Sum()
    target.fill(table, columns, _told(sent.of(source.rows(table, columns)), table, total, tell))
    for _ in arrived.of(target.rows(table, columns)):
        pass
    if (sent.count, sent.total) != (arrived.count, arrived.total) or sent.count != total:
        raise Unavailable(
            f"table {table} did not arrive as it was ({arrived.count} of {total} rows): nothing "
            "was moved; try again, and report it if it happens again"
        )
    return total


def _told(rows: Iterable[Cells], table: str, total: int, tell: Tell) -> Iterator[Cells]:
    done = 0
    for done, row in enumerate(rows, start=1):
        if done % TELL_EVERY == 0:
            tell(table, done, total)
        yield row
    tell(table, done, total)


class _Sum:
    """Count and digest of rows in no order: the sum of each one's own digest."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0

    def of(self, rows: Iterable[Cells]) -> Iterator[Cells]:
        """The same rows, added up as they go by. NUL, which PostgreSQL cannot keep, becomes
        U+FFFD, as it does in all that a server writes there."""
        for row in rows:
            clean = tuple(
                cell.replace("\0", "\ufffd") if type(cell) is str and "\0" in cell else cell
                for cell in row
            )
            self.count += 1
            digest = blake3(msgspec.msgpack.encode(clean)).digest()
            self.total = (self.total + int.from_bytes(digest)) % 2**256
            yield clean


def _move_packs(source: Source, target: End, tell: Tell) -> tuple[int, int]:
    rows = list(source.rows("packs", ("id", "bytes")))
    total = sum(size for _, size in rows)
    done = 0
    for pack, size in rows:
        sent, arrived = blake3(), blake3()
        try:
            target.fill_pack(pack, _hashed(source.pieces(pack), sent))
            for _ in _hashed(target.pieces(pack), arrived):
                pass
        except FileNotFoundError:
            raise Unavailable(
                f"the bytes of pack {pack} are missing: moorage server check says what to do"
            ) from None
        if sent.digest() != arrived.digest():
            raise Unavailable(f"pack {pack} did not arrive as it was: nothing was moved")
        done += size
        tell("content", done, total)
    return len(rows), total


def _hashed(pieces: Iterable[bytes], hasher: blake3) -> Iterator[bytes]:
    for piece in pieces:
        hasher.update(piece)
        yield piece
