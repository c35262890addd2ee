"""Nodes that a task names."""

from __future__ import annotations

from msgspec import Struct


class Instance(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A node by its name, or by the host name that its fleet's file gives it: one of the two."""

    name: str = ""
    hostname: str = ""
