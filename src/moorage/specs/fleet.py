"""`type: fleet`: machines that are reached by ssh, and how jobs may use them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Placement = Literal["any", "cluster"]
Runtime = Literal["any", "process", "container"]
EngineName = Literal["moorage", "podman", "docker", "apptainer"]
ENGINES: tuple[EngineName, ...] = ("moorage", "podman", "docker")
HostKey = Literal["strict", "accept-new"]
Blocks = int | Literal["auto"]

LOCAL = "local"
"""The fleet of the server's own machine. Nobody writes it in a file."""


class Jump(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A host on the way. Empty fields are as the server's own ssh configuration says."""

    hostname: str
    port: int = 0
    user: str = ""
    identity_file: str = ""


class Host(Struct, frozen=True, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """A host with what the fleet says for all of its hosts filled in. `jumps`: the nearest to the
    server first."""

    hostname: str
    port: int = 0
    user: str = ""
    identity_file: str = ""
    jumps: tuple[Jump, ...] = ()
    network: str = ""
    """CIDR in which the address of the host lies that other nodes use."""
    internal_ip: str = ""
    """That address, where it was written."""
    host_key: HostKey = "strict"
    blocks: Blocks | None = None
    """None: jobs share the node by what they reserve."""

    @property
    def address(self) -> str:
        """What tells hosts of a fleet apart: one machine may run several ssh servers."""
        return f"{self.hostname}:{self.port}" if self.port else self.hostname


class Health(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An administrator's own check, run on every node of the fleet. Seconds."""

    command: str
    interval: float = 300.0
    timeout: float = 60.0


class Fleet(
    Struct,
    frozen=True,
    omit_defaults=True,
    kw_only=True,
    tag_field="type",
    tag="fleet",
    forbid_unknown_fields=True,
):
    """What a user applies, after grammars and `${{ env.* }}` are resolved."""

    name: str
    hosts: tuple[Host, ...]
    placement: Placement = "any"
    env: dict[str, str] = {}
    """Variables of every job on its nodes."""
    runtime: Runtime = "any"
    engines: tuple[EngineName, ...] = ENGINES
    """The first that works on a node, and can run the image, runs it."""
    docker: bool = False
    """Jobs may have a Docker daemon of their own."""
    health: Health | None = None
