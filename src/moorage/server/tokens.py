"""Bearer tokens: made here, kept as files of their owner, known to the server only by hash."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["user", "node"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a token speaks for: a user's account name, or a label of a node."""

    kind: Kind
    subject: str


def make(kind: Kind) -> str:
    """A new secret with 256 bits; the prefix lets secret scanners recognise it."""
    return f"moorage_{kind}_{secrets.token_urlsafe(32)}"


def digest(token: str) -> str:
    """What the database keeps. A plain hash is enough: the input cannot be guessed."""
    return hashlib.sha256(token.encode()).hexdigest()


def write_secret(path: Path, text: str) -> None:
    """Replace a file as a whole; nobody but its owner can read it at any moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_or_make(path: Path, kind: Kind) -> str:
    """The token kept at `path`; made at first use."""
    try:
        kept = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        kept = ""
    if kept:
        return kept
    token = make(kind)
    write_secret(path, token + "\n")
    return token
