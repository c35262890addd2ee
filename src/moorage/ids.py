"""Distinct types for the names of things, so that a run's number never passes for a job's."""

from __future__ import annotations

from typing import NamedTuple, NewType

RunId = NewType("RunId", int)
JobId = NewType("JobId", int)
NodeId = NewType("NodeId", int)
Digest = NewType("Digest", str)
"""64 lowercase hex digits: the BLAKE3 hash of a blob's uncompressed bytes."""


class AttemptKey(NamedTuple):
    """One try of one rank of one job: what the start-once protocol is about.

    Written `job.attempt.rank` (`12.1.0`) in paths, messages and logs; attempts count from 1,
    ranks from 0.
    """

    job: JobId
    attempt: int
    rank: int

    def __str__(self) -> str:
        return f"{self.job}.{self.attempt}.{self.rank}"

    @classmethod
    def parse(cls, text: str) -> AttemptKey:
        """The key that `str()` gave; ValueError for anything else."""
        job, attempt, rank = text.split(".")
        return cls(JobId(int(job)), int(attempt), int(rank))
