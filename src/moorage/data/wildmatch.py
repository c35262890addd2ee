"""Git's ignore patterns as regular expressions over bytes.

The rules and their corners are those of git's `dir.c` and `wildmatch.c` as observed through
`git check-ignore` (2.39); the tests compare the two on random patterns.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

_SPECIAL = b"*?[\\"
_NEVER = b"(?!)"
_CLASSES = {
    b"alnum": rb"[0-9A-Za-z]",
    b"alpha": rb"[A-Za-z]",
    b"blank": rb"[ \t]",
    b"cntrl": rb"[\x00-\x1f\x7f]",
    b"digit": rb"[0-9]",
    b"graph": rb"[!-~]",
    b"lower": rb"[a-z]",
    b"print": rb"[ -~]",
    b"punct": rb"[!-/:-@\[-`{-~]",
    b"space": rb"[ \t\n\r]",
    b"upper": rb"[A-Z]",
    b"xdigit": rb"[0-9A-Fa-f]",
}


class Pattern(NamedTuple):
    """One line of an ignore file. `text` is a name, the end of a name, or a regular expression
    for a name or for the path below the ignore file's directory."""

    negated: bool
    directory: bool
    kind: Literal["name", "suffix", "name-regex", "path-regex"]
    text: bytes


def parse(line: bytes) -> Pattern | None:
    """The pattern in a line without its newline; None for blank lines and comments."""
    if line.startswith(b"#"):
        return None
    line = _trim(line)
    negated = line.startswith(b"!")
    line = line[negated:]
    directory = line.endswith(b"/")
    glob = line[:-1] if directory else line
    if not glob:
        return None
    if b"/" in glob:
        return Pattern(negated, directory, "path-regex", _path_regex(glob.removeprefix(b"/")))
    if not _has_special(glob):
        return Pattern(negated, directory, "name", glob)
    if glob.startswith(b"*") and not _has_special(glob[1:]):
        return Pattern(negated, directory, "suffix", glob[1:])
    return Pattern(negated, directory, "name-regex", translate(glob, slashes=True))


def _path_regex(glob: bytes) -> bytes:
    """Git compares the part without special characters first, and what follows as a pattern of
    its own: so `lib**/x` means `lib` and then `**/x`."""
    end = next((i for i in range(len(glob)) if glob[i] in _SPECIAL), len(glob))
    return re.escape(glob[:end]) + translate(glob[end:], slashes=False)


def translate(glob: bytes, *, slashes: bool) -> bytes:
    """The regular expression of a glob; `slashes`: whether `*`, `?` and `[` match a slash."""
    out: list[bytes] = []
    position = 0
    while position < len(glob):
        char = glob[position : position + 1]
        position += 1
        if char == b"*":
            piece, position = _stars(glob, position - 1, slashes)
        elif char == b"?":
            piece = b"." if slashes else b"[^/]"
        elif char == b"[":
            found = _bracket(glob, position, slashes)
            if found is None:
                return _NEVER
            piece, position = found
        elif char == b"\\":
            if position == len(glob):
                return _NEVER
            piece = re.escape(glob[position : position + 1])
            position += 1
        else:
            piece = re.escape(char)
        out.append(piece)
    return b"".join(out)


def _stars(glob: bytes, begin: int, slashes: bool) -> tuple[bytes, int]:
    end = begin
    while glob[end : end + 1] == b"*":
        end += 1
    if slashes:
        return b".*", end
    alone = begin == 0 or glob[begin - 1 : begin] == b"/"
    rest = glob[end:]
    if end - begin >= 2 and alone and (not rest or rest.startswith((b"/", b"\\/"))):
        if rest.startswith(b"/"):
            return b"(?:.*/)?", end + 1
        return b".*", end
    return b"[^/]*", end


def _bracket(glob: bytes, position: int, slashes: bool) -> tuple[bytes, int] | None:
    """The set that begins after `[`; None where it is malformed, which matches nothing."""
    negated = glob[position : position + 1] in (b"!", b"^")
    position += negated
    chosen: set[int] = set()
    before: int | None = None
    first = True
    while first or glob[position : position + 1] != b"]":
        first = False
        step = _member(glob, position, before, chosen)
        if step is None:
            return None
        position, before = step
    if negated:
        chosen = set(range(1, 256)) - chosen
    if not slashes:
        chosen.discard(ord("/"))
    members = b"".join(b"\\x%02x" % value for value in sorted(chosen))
    return (b"[%s]" % members if members else _NEVER), position + 1


def _member(
    glob: bytes, position: int, before: int | None, chosen: set[int]
) -> tuple[int, int | None] | None:
    """Add one member of a set; the next position, and the character that could begin a range."""
    char = glob[position : position + 1]
    if not char:
        return None
    after = glob[position + 1 : position + 2]
    if char == b"\\":
        if not after:
            return None
        chosen.add(after[0])
        return position + 2, after[0]
    if char == b"-" and before is not None and after not in (b"", b"]"):
        position += 1
        if after == b"\\":
            position += 1
            after = glob[position : position + 1]
            if not after:
                return None
        chosen.update(range(before, after[0] + 1))
        return position + 1, None
    if char == b"[" and after == b":":
        end = glob.find(b"]", position + 2)
        if end < 0:
            return None
        if end > position + 2 and glob[end - 1 : end] == b":":
            members = _CLASSES.get(glob[position + 2 : end - 1])
            if members is None:
                return None
            chosen.update(v for v in range(1, 256) if re.fullmatch(members, bytes([v])))
            return end + 1, None
    chosen.add(char[0])
    return position + 1, char[0]


def _has_special(glob: bytes) -> bool:
    return any(char in _SPECIAL for char in glob)


def _trim(line: bytes) -> bytes:
    """Without the spaces at its end, unless a backslash keeps them."""
    end = 0
    position = 0
    while position < len(line):
        step = 2 if line[position] == ord("\\") else 1
        if line[position] != ord(" "):
            end = min(position + step, len(line))
        position += step
    return line[:end]
