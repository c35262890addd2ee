"""The far end of a tunnel: tells the agent which port it has, as long as the tunnel stands."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any, BinaryIO

from moorage.backends.ssh.onhost import place

STANDS = "moorage-tunnel-stands"


def main(arguments: dict[str, Any], stream: BinaryIO) -> dict[str, Any]:
    """`directory`; the port follows in `stream`, which ends when the tunnel does."""
    path = "%s/%s" % (arguments["directory"], place.ADDRESS)
    port = int(stream.readline() or b"0")
    if not port:
        return {}
    # sshd listens as the user who logged in, whom sudo may have made root since.
    owner = int(os.environ.get("SUDO_UID", os.geteuid()))
    told = "http://127.0.0.1:%d %d\n" % (port, owner)
    place.write(path, told)
    agent = place.holder(arguments["directory"] + "/home/agent/lock")
    with contextlib.suppress(ProcessLookupError):
        if agent:
            os.kill(agent, signal.SIGUSR1)
    sys.stdout.write("\n" + STANDS + "\n")
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        stream.read()
    # Another tunnel may have been opened since.
    if place.read(path) == told:
        os.unlink(path)
    return {}
