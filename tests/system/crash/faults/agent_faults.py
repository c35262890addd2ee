"""The points of an agent."""

from __future__ import annotations

from pathlib import Path

import faultpoints
from faultpoints import Counter, FirstStep, Patches, around


def _claims(module):
    around(module.Claims, "take", "agent.take")
    around(module.Claims, "forget", "agent.forget")
    claim = module.Claim
    around(claim, "begin", lambda _claim, phase: f"agent.begin.{phase}", before=False)
    around(claim, "end", lambda _claim, phase, *_: f"agent.end.{phase}")
    around(claim, "decide", "agent.decide")
    around(claim, "finish", "agent.finish")


def _upkeep(module):
    around(module.Processes, "spawn", "agent.spawn")
    around(module.Processes, "wait", "agent.wait", before=False)
    around(module.Processes, "forget", "agent.keeper-forget")


def _keeping(module):
    spawn = module.Keeper.spawn

    async def asked(self, request):
        return await FirstStep(spawn(self, request), "agent.spawn-asked")

    module.Keeper.spawn = asked
    here = str(Path(__file__).resolve().parent)
    module._BOOT = (
        f"import sys; sys.path.insert(0, {here!r}); import keeper_faults; {module._BOOT}"
    )


def _link(module):
    around(module.Link, "_next", "agent.report", before=False)


Patches(
    {
        "moorage.agent.keeper.job": faultpoints.boot_id,
        "moorage.agent.claims": _claims,
        "moorage.agent.upkeep": _upkeep,
        "moorage.agent.keeping": _keeping,
        "moorage.agent.uplink.link": _link,
    }
)
Counter("agent")
