"""Write docs/reference/{fields,fleet}.md and docs/schema/*.json from the field tables."""

from __future__ import annotations

import json
from pathlib import Path

from moorage.specs.reference import fleet_page, page
from moorage.specs.schema import KINDS, schema

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> None:
    """Replace the generated files."""
    (DOCS / "reference").mkdir(parents=True, exist_ok=True)
    (DOCS / "schema").mkdir(parents=True, exist_ok=True)
    (DOCS / "reference" / "fields.md").write_text(page())
    (DOCS / "reference" / "fleet.md").write_text(fleet_page())
    for kind in KINDS:
        text = json.dumps(schema(kind), indent=2) + "\n"
        (DOCS / "schema" / f"{kind}.json").write_text(text)


if __name__ == "__main__":
    main()
