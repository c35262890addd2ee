"""What the ranks of a job need to reach each other by ssh, made up the same each time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from moorage.core.job import Job
from moorage.core.node import Node
from moorage.protocol.peers import Peer, Peers

LOOPBACK = "127.0.0.1"
FIRST_PORT, PORTS = 16_384, 12_288
"""Below those that kernels give to whoever asks for any."""


def peers_of(secret: bytes, job: Job, nodes: Sequence[Node]) -> Peers | None:
    """For the job's present attempt, by rank; None where the server has no secret."""
    if not secret:
        return None
    label = f"ssh between ranks of {job.id}.{job.state.attempt}"
    own = hmac.digest(secret, label.encode(), hashlib.sha256)
    # Known beforehand, so that nobody has to wait for it; another for each attempt, should a
    # program of the node have it.
    first = int.from_bytes(own[:4], "big")
    own = hmac.digest(own, b"keys", hashlib.sha256)
    ranks = [_peer(node, FIRST_PORT + (first + rank) % PORTS) for rank, node in enumerate(nodes)]
    return Peers(own, ranks)


def address(node: Node) -> str:
    """Where other nodes reach it; one that does not say is on this machine."""
    return node.address or LOOPBACK


def _peer(node: Node, port: int) -> Peer:
    isolation = node.isolation
    return Peer(node.name, address(node), isolation.user, port, isolation.ssh or "")
