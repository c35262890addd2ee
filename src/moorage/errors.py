"""Everything that can go wrong in front of a user: one class a failure, its exit code beside it.

    MoorageError (1)
    ├── InvalidInput (2)      what the user wrote cannot be right; carries every problem found
    │   └── Conflict (2)      right by itself, but not beside what exists (a name in use)
    ├── NotFound (3)
    ├── Forbidden (4)
    ├── Unreachable (5)       no server answers
    └── Unavailable (1)       the server or the machine cannot do it now (disk full, no git)

Layers below `cli/` raise these and never print; `cli/main.py` prints one and exits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

_FEW = 5
"""Names that are told in one line."""


class Problem(NamedTuple):
    """One thing wrong in one place. Any of `file`, `line`, `column` and `field` may be unknown."""

    message: str
    """The reason, in one line, without a final full stop."""
    fix: str = ""
    """What to do about it, in one line; empty when the message already says it."""
    field: str = ""
    """Dotted path in the document: `resources.memory`, `volumes[1].path`."""
    file: str = ""
    line: int = 0
    """Counted from 1; 0 when unknown."""
    column: int = 0

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        text = ": ".join(part for part in (place, self.field, self.message) if part)
        return f"{text}; {self.fix}" if self.fix else text


def those_known(name: str, known: Sequence[str], verb: str) -> str:
    """What to do about a name that does not exist: `did you mean lab-0? known: lab-0, lab-1
    (moorage node ls)`; `verb` lists those that do."""
    import difflib  # only wrong names pay for it

    close = difflib.get_close_matches(name[:80].lower(), known, n=1, cutoff=0.6)
    meant = f"did you mean {close[0]}? " if close else ""
    more = f" and {len(known) - _FEW} more" if len(known) > _FEW else ""
    listed = f"known: {', '.join(known[:_FEW])}{more}" if known else "there is none yet"
    return f"{meant}{listed} (moorage {verb})"


class MoorageError(Exception):
    """Base of all errors that users see; the text is one line and says what to do."""

    exit_code: int = 1
    code: ClassVar[str] = "error"
    """Stable word for programs: sent in API errors as `code`."""


class InvalidInput(MoorageError):
    """What the user wrote cannot be right."""

    exit_code = 2
    code = "invalid"

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = [p if isinstance(p, Problem) else Problem(p) for p in problems]
        super().__init__("\n".join(str(p) for p in self.problems))


class Conflict(InvalidInput):
    """Right by itself, but it clashes with something that exists."""

    code = "conflict"


class NotFound(MoorageError):
    """No such run, job, node or blob."""

    exit_code = 3
    code = "not-found"


class Forbidden(MoorageError):
    """The token is missing, wrong, or does not allow this."""

    exit_code = 4
    code = "forbidden"


class Unreachable(MoorageError):
    """No server answers at the configured address."""

    exit_code = 5
    code = "unreachable"


class Unavailable(MoorageError):
    """It cannot be done now, though nothing was wrong with the request."""

    code = "unavailable"
