"""Loaded by every Python that a crash test starts: arms the points of whatever it becomes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if os.environ.get("MOORAGE_FAULTS"):
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    if "moorage.server.main" in sys.orig_argv:
        import server_faults  # noqa: F401
    elif "moorage.agent.main" in sys.orig_argv:
        import agent_faults  # noqa: F401
