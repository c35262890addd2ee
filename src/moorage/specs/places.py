"""Where the fields of a file were written, for what is found wrong with them later."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moorage.errors import Problem

Places = Mapping[str, tuple[int, int]]
"""Line and column, both from 1, of each field: `name`, `resources.gpu`, `volumes[1]`."""
ELSEWHERE = (0, 0)
"""The place of a field that an option gave instead of the file."""
_FIELD = re.compile(r"([a-z_]+(?:\[\d+\]|\.[a-z_]+)*): (.+)", re.DOTALL)


def field_of(text: str) -> tuple[str, str]:
    """The field that a complaint begins with, "" where there is none, and the rest of it."""
    found = _FIELD.fullmatch(text)
    return (found[1], found[2]) if found else ("", text)


def locate(text: str, places: Places, file: str) -> Problem:
    """What the server says of a field, `resources.gpu: none has one`, with its place in the file;
    of a field that was not written, the place of the nearest one around it."""
    field, message = field_of(text)
    if not field or not file:
        return Problem(text)
    around = field
    while around and around not in places:
        around = re.sub(r"(?:^|\.)[a-z_]+$|\[\d+\]$", "", around)
    place = places.get(around, ELSEWHERE)
    return Problem(message, "", field, file if place != ELSEWHERE else "", *place)
