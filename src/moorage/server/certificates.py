"""What a server shows of itself on TLS: always a valid certificate, without a restart."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from moorage.errors import InvalidInput, Problem
from moorage.server.authority import certificate_of, issue

_log = logging.getLogger(__name__)


class Certificates(Protocol):
    """Of one server; used on one loop."""

    ca: str
    """What clients and agents trust (PEM); empty: what their systems trust."""

    def context(self) -> ssl.SSLContext:
        """For the next connection."""


class Own:
    """Signed by this database's own authority, and renewed in time."""

    def __init__(
        self, authority: str, names: Sequence[str], clock: Callable[[], float] = time.time
    ) -> None:
        self.ca = certificate_of(authority)
        self._authority, self._names, self._clock = authority, names, clock
        self._renew_at = 0.0
        self._context = self._renewed()

    def context(self) -> ssl.SSLContext:
        """See `Certificates`. Takes 2 ms where a new one is due."""
        if self._clock() >= self._renew_at:
            self._context = self._renewed()
        return self._context

    def _renewed(self) -> ssl.SSLContext:
        issued = issue(self._authority, self._names, self._clock())
        self._renew_at = issued.renew_at
        # ssl reads files only; this one is never on a disk.
        descriptor = os.memfd_create("certificate")
        try:
            os.write(descriptor, issued.pem.encode())
            return _context(f"/proc/self/fd/{descriptor}", None)
        finally:
            os.close(descriptor)


class Given:
    """An operator's own files, which are read again when they change."""

    def __init__(self, certificate: Path, key: Path, ca: Path | None) -> None:
        """InvalidInput where they cannot be used."""
        self._files = (certificate, key)
        self._seen = self._state()
        try:
            self.ca = ca.read_text("ascii") if ca else ""
            self._context = _context(str(certificate), str(key))
            if self.ca:
                ssl.create_default_context(cadata=self.ca)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise InvalidInput(
                Problem(
                    f"{certificate} and {key} cannot be used: {why}",
                    "name PEM files that the server's account can read, and that belong together",
                    field="tls",
                )
            ) from None

    def context(self) -> ssl.SSLContext:
        """See `Certificates`."""
        state = self._state()
        if state != self._seen:
            self._seen = state
            try:
                self._context = _context(*map(str, self._files))
            except (OSError, ValueError) as error:  # halfway through being replaced
                _log.error("the new certificate cannot be used, the old one stays: %s", error)
        return self._context

    def _state(self) -> list[tuple[int, int]]:
        try:
            return [(s.st_mtime_ns, s.st_ino) for s in (path.stat() for path in self._files)]
        except OSError:
            return []


def _context(certificate: str, key: str | None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    made.load_cert_chain(certificate, key)
    return made
