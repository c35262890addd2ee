"""Connections to servers on other machines: always TLS, and whose certificates count."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PLAIN = ("http", "ws")
_CLOCK = "is the clock of this machine right?"
_VERIFY = {
    9: f"its certificate is not valid yet; {_CLOCK}",
    10: "its certificate has expired; a server renews its own, so "
    f"{_CLOCK} An operator's own certificate has to be renewed there",
    62: "its certificate is for other names; use one of the addresses that it was told to listen "
    "on (server status names them)",
    64: "its certificate is for other addresses; use one of those that it was told to listen on "
    "(server status names them)",
}
_STRANGE = (
    "its certificate is not of the authority that is trusted here; if this is the right server, "
    "take its authority's certificate from there (moorage server ca)"
)


def context(authority: str) -> ssl.SSLContext:
    """For clients: trusts the certificates of this authority (PEM) alone; of the system's where
    it is empty. ssl.SSLError (an OSError) for what is no certificate."""
    made = ssl.create_default_context(cadata=authority or None)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made


def in_the_clear(url: str) -> bool:
    """Whether a token sent there could be read on the way: plain HTTP to another machine."""
    parts = urlsplit(url)
    return parts.scheme in _PLAIN and parts.hostname not in _LOOPBACK


def complaint(error: ssl.SSLError) -> str:
    """What is wrong with the other side's TLS, and what to do about it; one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, _STRANGE)
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return (
            "it does not speak TLS on that port; is that one of the addresses that the server "
            "was told to listen on?"
        )
    return f"TLS failed: {error.reason or error}"
