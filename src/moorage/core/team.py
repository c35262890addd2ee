"""What a rank is told of the others: where they are, and how many GPUs they have."""

from __future__ import annotations

from typing import NamedTuple

from moorage.core.cluster import Cluster
from moorage.core.job import Job, Live, ranks_of
from moorage.core.peers import LOOPBACK, address, peers_of
from moorage.protocol.peers import Peers


class Team(NamedTuple):
    """One rank's view of its job; `addresses` and `gpus` (how many) by rank."""

    rank: int
    addresses: tuple[str, ...]
    gpus: tuple[int, ...]
    peers: Peers | None = None

    @property
    def nodes(self) -> int:
        return len(self.addresses)

    @property
    def hosts(self) -> list[str]:
        """Lines of a host file for MPI: as many slots as GPUs, at least one."""
        pairs = zip(self.addresses, self.gpus, strict=True)
        return [f"{address} slots={max(1, gpus)}" for address, gpus in pairs]


ALONE = Team(0, (LOOPBACK,), (0,))
"""A job with one rank; its claim says how many GPUs that has."""


def team_of(cluster: Cluster, job: Job, rank: int) -> Team:
    """For a rank of a live job."""
    assert isinstance(job.state, Live)
    nodes = [cluster.nodes[place.node] for place in ranks_of(job.state)]
    gpus = tuple(len(node.claims[job.id].gpus) for node in nodes)
    peers = peers_of(cluster.secret, job, nodes, rank)
    return Team(rank, tuple(map(address, nodes)), gpus, peers)
