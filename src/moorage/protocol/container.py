"""The container of a launch."""

from __future__ import annotations

from msgspec import Struct

from moorage.specs.container import RegistryAuth


class Container(Struct, frozen=True, omit_defaults=True):
    """What the job's files are and how its first process is started in them."""

    image: str
    """As `specs.container.check_image` allows it."""
    entrypoint: list[str] | None = None
    """Gets the commands as arguments; None: a shell runs them, and without commands the image says
    what runs."""
    user: str | None = None
    auth: RegistryAuth | None = None
    privileged: bool = False
