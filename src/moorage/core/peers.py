"""What the ranks of a job need to reach each other by ssh, made up the same each time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache

from moorage.core.job import Job
from moorage.core.node import Node
from moorage.protocol.peers import Peer, Peers

LOOPBACK = "127.0.0.1"
FIRST_PORT, PORTS = 16_384, 12_288
"""Below those that kernels give to whoever asks for any."""


def peers_of(secret: bytes, job: Job, nodes: Sequence[Node], rank: int) -> Peers | None:
    """For a rank of the job's present attempt; None where the server has no secret."""
    if not secret:
        return None
    label = f"ssh between ranks of {job.id}.{job.state.attempt}"
    own = hmac.digest(secret, label.encode(), hashlib.sha256)
    # Known beforehand, so that nobody has to wait for it; another for each attempt, should a
    # program of the node have it.
    first = int.from_bytes(own[:4], "big")
    ranks = []
    for number, node in enumerate(nodes):
        public = _key(own, f"host {number}")[1]
        ranks.append(_peer(node, FIRST_PORT + (first + number) % PORTS, public))
    private, public = _key(own, "client")
    return Peers(ranks, private, public, _key(own, f"host {rank}")[0])


def address(node: Node) -> str:
    """Where other nodes reach it; one that does not say is on this machine."""
    return node.address or LOOPBACK


def _peer(node: Node, port: int, host_key: str) -> Peer:
    isolation = node.isolation
    why = isolation.ssh or ""
    return Peer(node.name, address(node), isolation.user, port, host_key, why)


@lru_cache(maxsize=256)
def _key(secret: bytes, label: str) -> tuple[str, str]:
    """The private and the public key of this name; each rank of a job asks for all."""
    # Here, because few servers have such jobs, and it takes a while to load.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    seed = hmac.digest(secret, label.encode(), hashlib.sha256)
    key = Ed25519PrivateKey.from_private_bytes(seed)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private.decode(), public.decode()
