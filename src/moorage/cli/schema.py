"""`moorage schema`: what a file may contain, for editors."""

from __future__ import annotations

import sys

import click
import msgspec

from moorage.errors import InvalidInput
from moorage.specs.schema import KINDS
from moorage.specs.schema import schema as schema_of


@click.command()
@click.argument("kind", metavar=f"[{'|'.join(KINDS)}]", shell_complete=lambda *_: list(KINDS))
def schema(kind: str) -> None:
    """Print the JSON Schema of a kind of file.

    Editors with a YAML language server then complete and check fields.

    \b
    Example:
      moorage schema task > task.schema.json
    """
    if kind not in KINDS:
        raise InvalidInput(f"there is no schema of {kind}; known: {', '.join(KINDS)}")
    text = msgspec.json.format(msgspec.json.encode(schema_of(kind)), indent=2)
    sys.stdout.write(text.decode() + "\n")
