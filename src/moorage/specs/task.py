"""`type: task`: commands that run to their end. Every other run type reuses `RunSpec`'s fields."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from moorage.specs.container import RegistryAuth
from moorage.specs.gang import NodeGroup, StartupOrder, StopCriteria
from moorage.specs.instances import Instance
from moorage.specs.mounts import Mount
from moorage.specs.ports import Port
from moorage.specs.resources import Resources
from moorage.specs.retry import OnNodeLoss, Retry
from moorage.specs.schedule import Schedule

Dialect = Literal["native", "dstack", "skypilot"]

DEFAULT_STOP_DURATION = 300.0
"""Seconds between the polite signal and SIGKILL (dstack's default)."""


class Task(
    Struct,
    frozen=True,
    omit_defaults=True,
    kw_only=True,
    tag_field="type",
    tag="task",
    forbid_unknown_fields=True,
):
    """What a user submits, after the dialect, the grammars and `${{ env.* }}` are resolved.

    Durations are seconds; None means no limit.
    """

    name: str | None = None
    """The server picks one when None."""
    commands: list[str] = []
    shell: str | None = None
    """`sh`, `bash` or an absolute path; None: bash where the node has it, else sh; in a container
    `/bin/sh`."""
    image: str | None = None
    """None: a process of the node."""
    entrypoint: str | None = None
    """Gets the commands as arguments. Without it a shell runs them, and without commands the image
    says what runs."""
    user: str | None = None
    registry_auth: RegistryAuth | None = None
    """Templates, as commands are."""
    privileged: bool = False
    docker: bool = False
    """It gets a Docker daemon of its own."""
    python: str | None = None
    """`3.11`: the interpreter that `python` and `python3` mean in the job."""
    working_dir: str | None = None
    env: dict[str, str] = {}
    mounts: list[Mount] = []
    """`files`, `repos`, `volumes` and buckets of the document, in that order; what `file_mounts`
    uploads is beside `files`."""
    resources: Resources = Resources()
    nodes: int = 1
    """Ranks, each on a node of its own; of a task with groups see `gang.ranks`."""
    groups: list[NodeGroup] = []
    """Instead of `nodes`, `commands` and `resources`."""
    startup_order: StartupOrder = "any"
    stop_criteria: StopCriteria = "all-done"
    ports: list[Port] = []
    """Forwarded from the user's machine while the run is attached."""
    fleets: list[str] = []
    """Only nodes of these; empty: of any."""
    instances: list[Instance] = []
    """Only these nodes; empty: any."""
    exclusive: bool = False
    """Each rank wants its node alone."""
    priority: int = 0
    """0 to 100, higher first."""
    retry: Retry | None = None
    on_node_loss: OnNodeLoss | None = None
    """None: as `retry.on_loss_of` says."""
    max_duration: float | None = None
    stop_duration: float | None = DEFAULT_STOP_DURATION
    schedule: Schedule | None = None
    tags: dict[str, str] = {}
    compat: list[Dialect] = []
    """Dialects whose environment variables are set beside `MOORAGE_*`."""
