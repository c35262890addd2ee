"""How the ranks of an attempt reach each other by ssh."""

from __future__ import annotations

from msgspec import Struct


class Peer(Struct, frozen=True, omit_defaults=True):
    """One rank: its node's name and address, and the account and port of its SSH server."""

    name: str
    address: str
    user: str
    port: int
    host_key: str
    """The public one that it shows: `ssh-ed25519 AAAA...`."""
    problem: str = ""
    """Why there is none; one line for the user."""


class Peers(Struct, frozen=True):
    """All ranks, in their order, and the keys of this attempt."""

    ranks: list[Peer]
    key: str
    """What a rank shows to be let in, as in a file that ssh reads."""
    public_key: str
    host_key: str
    """The private one of the rank that is told."""

    def __repr__(self) -> str:
        return f"Peers({len(self.ranks)} ranks)"
