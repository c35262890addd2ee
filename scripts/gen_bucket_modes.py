"""Write docs/reference/bucket-modes.md from the table of what each mode of buckets gives."""

from pathlib import Path

from moorage.specs.promises import page

target = Path(__file__).parents[1] / "docs" / "reference" / "bucket-modes.md"
target.write_text(page())
