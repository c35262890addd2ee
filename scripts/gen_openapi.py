"""Write docs/openapi.json from the route table; `--check` fails where it is out of date."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import moorage
from moorage.server.openapi import document

TARGET = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"

text = json.dumps(document(moorage.__version__), indent=1) + "\n"
if "--check" in sys.argv[1:]:
    if TARGET.read_text() != text:
        sys.exit(f"{TARGET.name} is out of date: run scripts/gen_openapi.py")
else:
    TARGET.write_text(text)
