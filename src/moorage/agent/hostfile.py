"""The list of the nodes of a job, for `mpirun`: a line a rank, in a file of its attempt."""

from __future__ import annotations

import os

from moorage.protocol.agent import Launch

NAME = "hosts"


def variables(launch: Launch, path: str) -> dict[str, str]:
    """Where a job with several ranks finds it; `path` is as the job sees it."""
    if not launch.hosts:
        return {}
    found = {"MOORAGE_MPI_HOSTFILE": path}
    if "dstack" in launch.compat:
        found["DSTACK_MPI_HOSTFILE"] = path
    return found


def write(launch: Launch, directory: str) -> None:
    """Into the attempt's directory, before its process starts. OSError."""
    if launch.hosts:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(f"{directory}/{NAME}", flags, 0o644), "w", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in launch.hosts)
