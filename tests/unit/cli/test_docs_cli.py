from __future__ import annotations

import inspect
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from moorage import Client

ROOT = Path(__file__).parents[3]


def test_the_page_about_the_command_is_fresh():
    path = ROOT / "scripts" / "gen_cli.py"
    spec = spec_from_file_location("gen_cli", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "reference" / "cli.md").read_text()
    assert written == module.page(), "run scripts/gen_cli.py"


def test_every_public_method_of_the_client_is_on_its_page():
    page = (ROOT / "docs" / "reference" / "client.md").read_text()
    names = [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if name[0] != "_"]
    assert [name for name in names if f"`{name}(" not in page] == []
