"""Write docs/reference/states.md from the tables in the core."""

from pathlib import Path

from moorage.core.diagram import states_page

page = Path(__file__).parents[1] / "docs" / "reference" / "states.md"
page.parent.mkdir(parents=True, exist_ok=True)
page.write_text(states_page())
