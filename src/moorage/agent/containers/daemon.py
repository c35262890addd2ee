"""A Docker daemon for a job alone (`docker: true`), where the fleet lets jobs have one."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import msgspec

from moorage.agent.keeper.main import group_name
from moorage.agent.keeping import SpawnRequest
from moorage.agent.sandbox import dockerd
from moorage.protocol.agent import Isolation

_NEEDED = ("dockerd", "docker", "containerd", "runc", "slirp4netns", "iptables")
_TUN = "/dev/net/tun"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from moorage.agent.sandbox.dockerd import main; main(*sys.argv[2:])"
)


def why_not(allowed: bool, isolation: Isolation) -> str | None:
    """Why jobs cannot have one on this node; None where they can, as far as can be told without
    starting one."""
    if not allowed:
        return "nobody allowed it: write docker: true into the fleet's file (here, config.yml)"
    if os.geteuid() != 0:
        return "moorage runs without root, and Docker's daemon needs it"
    if isolation.mounts or isolation.cgroup:
        return isolation.mounts or isolation.cgroup
    missing = [name for name in _NEEDED if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return None if Path(_TUN).exists() else f"there is no {_TUN}"


def give(request: SpawnRequest, home: Path) -> SpawnRequest:
    """The same, with a daemon first. `home`: `$MOORAGE_HOME/agent`."""
    parent = f"/moorage/{group_name(str(home))}/{request.key}"
    words = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, json.dumps(sys.path)]
    env = {**request.env, "DOCKER_HOST": f"unix://{dockerd.SOCKET}"}
    env["PATH"] = f"{env['PATH']}:/usr/sbin:/sbin"  # dockerd looks for iptables
    return msgspec.structs.replace(
        request,
        argv=[*words, request.directory, parent, *request.argv],
        direct=None,
        env=env,
        nests=True,
    )
