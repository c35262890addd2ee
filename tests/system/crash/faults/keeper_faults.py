"""The points of a keeper."""

from __future__ import annotations

import faultpoints
from faultpoints import Counter, Patches, around


def _job(module):
    faultpoints.boot_id(module)
    around(module.Job, "note_pid", "keeper.note")
    around(module.Job, "save", "keeper.save")
    around(module.Job, "ended", "keeper.ended", before=False)


def _spawning(module):
    around(module, "spawn", "keeper.clone")


def _keeper(module):
    around(module.Keeper, "_exited", "keeper.tell")


Patches(
    {
        "moorage.agent.keeper.job": _job,
        "moorage.agent.keeper.spawning": _spawning,
        "moorage.agent.keeper.main": _keeper,
    }
)
Counter("keeper")
