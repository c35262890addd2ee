"""Secrets of stores at rest: sealed with a key that is in a file, never in the database.

A backup has the sealed texts and not the key, so that it gives nothing away by itself; whoever
restores elsewhere copies the key file as well, or declares the stores again. Servers that share a
database share the key file too.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from moorage.decoding import from_json
from moorage.errors import Conflict

VARIABLE = "MOORAGE_SECRETS_KEY_FILE"
_SETTING = f"{VARIABLE} (or `secrets_key_file` in config.yml)"


class Sealed(Conflict):
    """Secrets that cannot be read with this server's key: to try again is of no use."""


class Vault:
    """Over one key file. The key is made when the first secret is sealed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def seal(self, secrets: Mapping[str, str], others: Iterable[str]) -> str:
        """A text for the database. `others`: those that are there; Sealed where they have another
        key, as two keys for one database would leave each server half of it."""
        known = {mark for text in others if (mark := text.partition(":")[0])}
        key = self._read() if self.path.exists() or known else self._make()
        if known - {_mark(key)}:
            raise Sealed(self._other_key("the stores that are declared"))
        from cryptography.fernet import Fernet  # 30 ms that most servers never need

        return f"{_mark(key)}:{Fernet(key).encrypt(msgspec.json.encode(secrets)).decode()}"

    def open(self, text: str, store: str) -> dict[str, str]:
        """The secrets again; none of an empty text. Sealed."""
        if not text:
            return {}
        mark, _, token = text.partition(":")
        key = self._read()
        if mark != _mark(key):
            raise Sealed(self._other_key(f"store {store}"))
        from cryptography.fernet import Fernet, InvalidToken

        try:
            return from_json(Fernet(key).decrypt(token.encode()), dict[str, str])
        except (InvalidToken, msgspec.MsgspecError):
            raise Sealed(
                f"the secrets of store {store} are damaged: moorage store add {store} again"
            ) from None

    def _other_key(self, what: str) -> str:
        return (
            f"the secrets of {what} are sealed with another key than {self.path}: copy the key "
            f"file of the server that sealed them and name it with {_SETTING}, or declare the "
            "stores again with moorage store add"
        )

    def _read(self) -> bytes:
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise Sealed(
                f"the key of the stores' secrets cannot be read ({self.path}: "
                f"{(error.strerror or 'error').lower()}): copy it from the server that made it, "
                f"and name it with {_SETTING}, or delete the stores and add them again"
            ) from None
        with open(descriptor, "rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise Sealed(f"others can read {self.path}: run chmod 0600 {self.path}")
            key = file.read().strip()
        if len(key) != 44:
            raise Sealed(f"{self.path} is no key of moorage: it must have 44 characters")
        return key

    def _make(self) -> bytes:
        """A new key, durable; where another server was quicker, its key."""
        from cryptography.fernet import Fernet

        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(Fernet.generate_key() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                self.path.hardlink_to(partial)
        finally:
            partial.unlink(missing_ok=True)
        return self._read()


def _mark(key: bytes) -> str:
    """Tells keys apart and gives nothing away."""
    return hashlib.sha256(b"moorage store secrets\0" + key).hexdigest()[:12]
