"""`python -m moorage`: the command, where its script is not on PATH."""

from __future__ import annotations

from moorage.cli.main import main

main()
