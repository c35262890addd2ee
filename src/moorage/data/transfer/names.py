"""Which keys can be files below a directory. Nothing ever lands outside of it."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST_PART = 255
_LONGEST_PATH = 3800
_LONGEST_KEY = 1024


def reason_against_file(name: str) -> str:
    """Why no file below a directory can have this name; empty where one can."""
    parts = name.split("/")
    if ".." in parts or "." in parts:
        return "a part of its key is '.' or '..'"
    if "" in parts:
        return "a part of its key is empty"
    if "\0" in name:
        return "its key has a zero byte"
    try:
        encoded = [part.encode() for part in parts]
    except UnicodeEncodeError:
        return "its key is not valid UTF-8"
    if max(map(len, encoded)) > _LONGEST_PART or len(name.encode()) > _LONGEST_PATH:
        return "its key is too long for a file's name"
    return ""


def reason_against_key(key: str) -> str:
    """Why no object can have this key; empty where one can."""
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in key):
        return "its name has a control character"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    return f"its key would have more than {_LONGEST_KEY} bytes" if size > _LONGEST_KEY else ""


def directories(names: Iterable[str]) -> set[str]:
    """All directories that these files lie in; an object whose key is one of them cannot be a
    file beside them."""
    found: set[str] = set()
    for name in names:
        end = name.rfind("/")
        while end > 0:
            directory = name[:end]
            if directory in found:
                break
            found.add(directory)
            end = name.rfind("/", 0, end)
    return found
