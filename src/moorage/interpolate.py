"""`${{ namespace.name }}` in any string of a document.

Values become known in three stages (the file is read, the run is submitted, a job is launched), so
filling a string in gives another string of the same language until the last stage.

Escape: only dollars directly in front of `{{` are special, and there two dollars mean one. So
`$${{ x }}` is the text `${{ x }}`, `$$${{ env.A }}` is a dollar and the value of A, and the
shell's `$$`, `$HOME` and `${HOME}` are left alone everywhere. A value that is filled in is plain
text: it is never read as a reference, not even in a later stage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

RUN_NAMES = frozenset({"run.name", "run.id", "run.user"})
"""Known when the server has accepted the run."""
JOB_NAMES = frozenset(
    {
        *("moorage.job_id", "moorage.job_index", "moorage.attempt", "moorage.rank"),
        *("moorage.nodes", "moorage.run_id", "moorage.run_name", "moorage.user"),
        *("dstack.job_num", "dstack.node_rank", "dstack.run_name"),
    }
)
"""Known when a job is launched."""
ARGS = "run.args"
"""What follows `--` on the command line, quoted for the shell; known when the file is read."""
NAMESPACES = ("env", "run", "moorage", "dstack", "secrets")

_OPENING = r"(\$+)\{\{"
_BODY = r"\s*([A-Za-z_][A-Za-z0-9_-]*)\.([A-Za-z_][A-Za-z0-9_-]*)\s*"


class Reference(NamedTuple):
    """One `${{ ... }}`: its text and offsets in the string. `namespace` and `name` are empty where
    the inside is not `namespace.name` or the closing braces are missing."""

    text: str
    start: int
    end: int
    namespace: str = ""
    name: str = ""

    @property
    def key(self) -> str:
        """`env.HOME`, as in the mappings given to `fill`."""
        return f"{self.namespace}.{self.name}" if self.namespace else ""


class Unresolved(ValueError):
    """The last stage met a reference without a value."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        super().__init__(f"{reference.text} has no value here")


def scan(text: str) -> list[str | Reference]:
    """The string as plain text (escapes undone) and references, in order."""
    tokens: list[str | Reference] = []
    literal = ""
    at = 0
    search = re.compile(_OPENING).search
    while (opening := search(text, at)) is not None:
        dollars = len(opening[1])
        literal += text[at : opening.start()] + "$" * (dollars // 2)
        if dollars % 2 == 0:
            literal += "{{"
            at = opening.end()
            continue
        if literal:
            tokens.append(literal)
            literal = ""
        reference = _reference(text, opening.end() - 3)
        tokens.append(reference)
        at = reference.end
    literal += text[at:]
    return [*tokens, literal] if literal else tokens


def _reference(text: str, start: int) -> Reference:
    newline = text.find("\n", start)
    line_end = len(text) if newline < 0 else newline
    end = text.find("}}", start, line_end)
    if end < 0:
        return Reference(text[start:line_end], start, line_end)
    body = re.fullmatch(_BODY, text[start + 3 : end])
    whole = text[start : end + 2]
    if body is None:
        return Reference(whole, start, end + 2)
    return Reference(whole, start, end + 2, body[1], body[2])


def references(text: str) -> list[Reference]:
    """The references of a string, in order."""
    if "{{" not in text:
        return []
    return [token for token in scan(text) if isinstance(token, Reference)]


def fill(text: str, values: Mapping[str, str], *, last: bool = False) -> str:
    """The string with the given values (`{"env.HOME": ...}`) filled in.

    Other references stay as they are, and the result is to be filled again; with `last` it is the
    final text, and a reference without a value raises `Unresolved`.
    """
    if "{{" not in text:
        return text
    result = ""
    literal = ""
    for token in scan(text):
        if isinstance(token, str):
            literal += token
        elif token.key in values:
            literal += values[token.key]
        elif last:
            raise Unresolved(token)
        else:
            result += escape(literal, before_reference=True) + token.text
            literal = ""
    return result + (literal if last else escape(literal))


def escape(text: str, *, before_reference: bool = False) -> str:
    """Plain text written so that filling in gives it back."""
    text = re.sub(r"\$+(?=\{\{)", lambda run: run[0] * 2, text)
    if not before_reference:
        return text
    dollars = len(text) - len(text.rstrip("$"))
    return text + "$" * dollars
