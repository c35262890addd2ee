"""A local git checkout becomes a tree (the files as they are, with all local changes) and one git
pack with the commit they stand on. Nothing of `.git` itself is read: no settings, no hooks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moorage.data import git, ignore
from moorage.data.digests import DigestCache
from moorage.data.git import GitError
from moorage.data.hashing import hash_file
from moorage.data.scan import Collector, Scan
from moorage.data.upload import Blob
from moorage.errors import InvalidInput, Problem

_SUBMODULE = b"160000"
_PACKS_KEPT = 16


@dataclass(frozen=True, slots=True)
class Checkout:
    """What is uploaded of a checkout, and what the node must know to lay it out again."""

    scan: Scan
    pack: Blob | None
    """The commit with its files, without its history; None where nothing was committed yet."""
    head: str | None
    branch: str | None
    """None when the HEAD is detached."""
    remote: str | None
    """Without credentials."""


def read(path: Path, packs: Path, cache: DigestCache | None = None, *, limit: int = 0) -> Checkout:
    """Read the checkout whose top is `path`; `packs` keeps the packs made, one for each commit.

    Tracked files are taken as they are in the working tree; of the untracked ones, those that
    neither git nor `.moorageignore` (or `.dstackignore`, `.skyignore`) leaves out. InvalidInput
    where it is no checkout or something cannot be uploaded.
    """
    root = Path(os.path.realpath(path))
    if not root.is_dir():
        what = "is not a directory" if root.exists() else "does not exist"
        fix = "name the top of a checkout"
        raise InvalidInput(Problem(what, fix, file=str(path)))
    try:
        top = git.run(["rev-parse", "--show-toplevel"], root).rstrip(b"\n")
    except (GitError, OSError) as error:
        fix = "name the top of a checkout, or use files: for a plain directory"
        raise InvalidInput(Problem(f"not a git checkout: {error}", fix, file=str(path))) from None
    if not os.path.samefile(top, root):
        shown = os.fsdecode(top)
        raise InvalidInput(Problem(f"lies inside the checkout {shown}; name that", file=str(path)))
    head = git.ask(["rev-parse", "-q", "--verify", "HEAD^{commit}"], root)
    branch = git.ask(["symbolic-ref", "-q", "--short", "HEAD"], root)
    try:
        scan = _scan(root, str(path), cache, limit)
        pack = _pack(root, head, packs) if head else None
    except GitError as error:
        raise InvalidInput(Problem(str(error), file=str(path))) from None
    return Checkout(scan, pack, head, branch, _remote(root, branch))


def _scan(root: Path, shown: str, cache: DigestCache | None, limit: int) -> Scan:
    found = Collector(str(root), shown, limit)
    seen: set[str] = set()
    for name in sorted(set(_names(root, b""))):
        try:
            text = name.decode()
        except UnicodeDecodeError:
            shown_name = name.decode(errors="backslashreplace")
            found.refuse(shown_name, "the name is not valid UTF-8", "rename it")
            continue
        _add(found, text, seen)
    return found.finish(cache)


def _add(found: Collector, name: str, seen: set[str]) -> None:
    """Add a path that git named, and the directories above it; one that was deleted is not."""
    path = f"{found.root}/{name}"
    try:
        status = os.lstat(path)
        for position, char in enumerate(name):
            above = name[:position]
            if char == "/" and above not in seen:
                seen.add(above)
                found.add(above, f"{found.root}/{above}", os.lstat(f"{found.root}/{above}"))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        found.refuse(name, error.strerror or str(error))
        return
    if name not in seen:
        seen.add(name)
        found.add(name, path, status)


def _names(root: Path, prefix: bytes) -> Iterator[bytes]:
    """Tracked and untracked paths of a checkout, submodules and nested checkouts included. Each
    is asked for itself: git lists no untracked files together with `--recurse-submodules`."""
    nested: list[bytes] = []
    for line in git.run(["ls-files", "-z", "--cached", "--stage"], root).split(b"\0"):
        description, _, name = line.partition(b"\t")
        if description.startswith(_SUBMODULE):
            nested.append(name)
        elif name:
            yield prefix + name
    ignored = _Untracked(root)
    listing = git.run(["ls-files", "-z", "--others", "--exclude-standard"], root)
    for name in listing.split(b"\0"):
        if not name or ignored.leaves_out(name.rstrip(b"/")):
            continue
        if name.endswith(b"/"):
            nested.append(name[:-1])
        else:
            yield prefix + name
    for name in nested:
        place = root / os.fsdecode(name)
        yield prefix + name
        if os.path.lexists(place / ".git"):
            yield from _names(place, prefix + name + b"/")


class _Untracked:
    """Our own ignore files, asked about untracked paths only: a tracked file that was left out
    would look deleted."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)
        self._levels: dict[bytes, ignore.Level | None] = {b"": self._level(ignore.EMPTY, b"")}

    def leaves_out(self, name: bytes) -> bool:
        """Is this path, or a directory above it, ignored?"""
        above, _, own = name.rpartition(b"/")
        level = self._of(above)
        return level is None or level.ignores(own, False)

    def _of(self, directory: bytes) -> ignore.Level | None:
        """The rules in a directory; None where it is ignored itself."""
        if directory not in self._levels:
            above, _, own = directory.rpartition(b"/")
            level = self._of(above)
            inside = level is not None and not level.ignores(own, True)
            self._levels[directory] = self._level(level, directory) if level and inside else None
        return self._levels[directory]

    def _level(self, above: ignore.Level, directory: bytes) -> ignore.Level:
        place = self._root + b"/" + directory if directory else self._root
        return above.enter(directory.rpartition(b"/")[2], ignore.own_patterns(place))


def _pack(root: Path, head: str, packs: Path) -> Blob:
    """The pack of one commit; made once, because packing again would give other bytes."""
    packs.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = packs / f"{head}.pack"
    if not path.exists():
        objects = git.run(["rev-list", "--objects", "--max-count=1", head], root)
        names = b"".join(line.split(b" ", 1)[0] + b"\n" for line in objects.splitlines())
        spare = packs / f"{head}.{os.getpid()}.tmp"
        try:
            with open(os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                git.run(["pack-objects", "-q", "--stdout"], root, stdin=names, stdout=out)
            spare.rename(path)
        finally:
            spare.unlink(missing_ok=True)
    os.utime(path)
    latest = sorted(packs.glob("*.pack"), key=lambda pack: pack.stat().st_mtime, reverse=True)
    for old in latest[_PACKS_KEPT:]:
        old.unlink(missing_ok=True)
    identity, digest = hash_file(str(path))
    return Blob(digest, (str(path), identity))


def _remote(root: Path, branch: str | None) -> str | None:
    names = (git.ask(["remote"], root) or "").split("\n")
    preferred = git.ask(["config", f"branch.{branch}.remote"], root) if branch else None
    for name in (preferred, "origin", names[0]):
        url = git.ask(["remote", "get-url", name], root) if name and name in names else None
        if url:
            return git.without_credentials(url)
    return None
