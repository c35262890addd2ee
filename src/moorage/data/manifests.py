"""Is a manifest safe to write? It comes from a client, so nothing in it is believed."""

from __future__ import annotations

import posixpath

import msgspec

from moorage.data.base import SourceError
from moorage.protocol import tree
from moorage.protocol.tree import Entry, Manifest

_HEX = frozenset("0123456789abcdef")


def decode(data: bytes) -> Manifest:
    """The manifest in `data`, checked; SourceError where it could write outside its place."""
    try:
        manifest = tree.decode(data)
    except msgspec.DecodeError as error:
        raise SourceError(f"the uploaded tree is damaged ({error}); submit again") from None
    if manifest.version != 1:
        raise SourceError(f"tree version {manifest.version} is unknown here; update this node")
    _check(manifest)
    return manifest


def single(manifest: Manifest) -> bool:
    """Is it one file without a directory around it?"""
    return len(manifest.entries) == 1 and manifest.entries[0].path == "."


def _check(manifest: Manifest) -> None:
    kinds: dict[str, str] = {}
    for entry in manifest.entries:
        reason = _flaw(entry)
        if entry.path == "." and entry.kind == "file" and single(manifest):
            reason = _file_flaw(entry)
        elif entry.path in kinds:
            reason = "named twice"
        if reason:
            raise SourceError(f"the uploaded tree is refused: {entry.path!r}: {reason}")
        kinds[entry.path] = entry.kind
    for path in kinds:
        parent = posixpath.dirname(path)
        if parent and kinds.get(parent) != "dir":
            raise SourceError(
                f"the uploaded tree is refused: {path!r}: {parent!r} is not a directory in it"
            )


def _flaw(entry: Entry) -> str:
    """Why this entry cannot be written; empty when it can."""
    parts = entry.path.split("/")
    if "\0" in entry.path or any(part in ("", ".", "..") for part in parts):
        return "not a plain relative path"
    if entry.kind == "file":
        return _file_flaw(entry)
    if entry.kind == "dir":
        return "" if 0 <= entry.mode <= 0o777 else "mode out of range"
    if not entry.target or "\0" in entry.target:
        return "a link without a target"
    if escapes(entry.path, entry.target):
        return f"a link out of the tree, to {entry.target!r}"
    return ""


def _file_flaw(entry: Entry) -> str:
    digest = entry.digest or ""
    if len(digest) != 64 or not _HEX.issuperset(digest):
        return "no digest"
    if entry.size < 0 or not 0 <= entry.mode <= 0o777:
        return "size or mode out of range"
    return ""


def escapes(path: str, target: str) -> bool:
    """Does a link at `path` with this `target` name something outside the tree?"""
    if target.startswith("/"):
        return True
    depth = path.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in ("", "."):
            depth += 1
    return False
