"""Git repositories on the node: a user's checkout laid out again, or a URL cloned."""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

from blake3 import blake3

from moorage.data import git
from moorage.data.base import Bind, Handle, Place, SourceError, hides
from moorage.data.blobs import BlobCache, Laid
from moorage.data.git import GitError
from moorage.specs.mounts import Mount, Repo

_HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_NO_COMMIT = "no commit {}; is it pushed, and its hash right?"
_MAY_LIE_THERE = {"lost+found"}


class RepoSource:
    """Lays out a checkout as the user has it (files, commit, branch, remote, local changes), or
    clones a URL at a branch or hash. `mirrors` keeps what was fetched from URLs."""

    def __init__(self, blobs: BlobCache, mirrors: Path) -> None:
        self._blobs = blobs
        self._mirrors = Mirrors(mirrors)

    def problems(self, mount: Mount) -> tuple[list[str], list[str]]:
        """See `data.base.Source`."""
        assert isinstance(mount, Repo)
        found: list[str] = []
        if git.ask(["--version"], Path("/")) is None:
            found.append("git is not installed on this node; install it")
        if mount.url is None and mount.tree is None:
            found.append(f"{mount.source} was not uploaded; submit it with moorage apply")
        if mount.url is not None and mount.url.startswith("-"):
            found.append(f"{mount.url!r} is no URL")
        return found, []

    def prepare(self, mount: Mount, place: Place, number: int) -> Handle:
        """See `data.base.Source`."""
        assert isinstance(mount, Repo)
        target = place.target(mount.target)
        landing = place.landing(target)
        binds: list[Bind] = []
        if landing is None and hides(target):
            directory = target
        elif landing is None:
            directory = place.directory / "files" / str(number) / "tree"
            binds.append(Bind(directory, target))
        elif landing.read_only:
            raise SourceError(f"{mount.target} lies in a read-only volume; drop its :ro")
        else:
            directory = _plain(landing.root, Path(landing.rest))
        if _occupied(directory):
            if mount.if_exists == "skip":
                return Handle(binds, f"{mount.target} has files already; left as it is")
            raise SourceError(
                f"{mount.target} has files already; empty it, or write if_exists: skip"
            )
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            if mount.url is not None:
                return Handle(binds, self._clone(mount, mount.url, directory))
            return Handle(binds, f"{mount.target}: {self._lay_out(mount, directory)}")
        except GitError as error:
            shown = git.without_credentials(mount.url or mount.source or "repository")
            raise SourceError(f"{shown}: {error}") from None

    def release(self, mount: Mount, place: Place, number: int) -> None:
        """Nothing to undo: it goes with the attempt's directory, or belongs to a volume."""

    def _lay_out(self, mount: Repo, directory: Path) -> Laid:
        if mount.tree is None:
            raise SourceError(f"{mount.source} was not uploaded; submit it with moorage apply")
        for entry in self._blobs.manifest(mount.tree).entries:
            # Git would obey what such files say, on the node and outside the job's limits.
            if ".git" in entry.path.lower().split("/"):
                raise SourceError(f"the uploaded checkout is refused: it brings {entry.path}")
        laid = self._blobs.materialize(mount.tree, directory, merge=True)
        head = mount.head or ""
        if head and not _HASH.fullmatch(head):
            raise SourceError(f"{head!r} is not the hash of a commit")
        kind = "sha256" if len(head) == 64 else "sha1"
        _git(["init", "-q", "--template=", f"--object-format={kind}", "."], directory)
        if mount.branch:
            _git(["check-ref-format", "--branch", mount.branch], directory)
            _git(["symbolic-ref", "HEAD", f"refs/heads/{mount.branch}"], directory)
        if mount.remote:
            _git(["remote", "add", "origin", mount.remote], directory)
        if not head or mount.pack is None:
            return laid
        # First of all: it tells every command that the commit's parents are left out on purpose.
        (directory / ".git" / "shallow").write_text(f"{head}\n")
        fd, fetched = self._blobs.open(mount.pack)
        with open(fd, "rb") as pack:
            _git(["index-pack", "--stdin", "--strict"], directory, stdin=pack)
        _git(["update-ref", *([] if mount.branch else ["--no-deref"]), "HEAD", head], directory)
        _git(["read-tree", "HEAD"], directory)
        with suppress(GitError):  # it fails where anything differs from the commit
            _git(["update-index", "-q", "--refresh"], directory)
        return laid._replace(fetched=laid.fetched + fetched)

    def _clone(self, mount: Repo, url: str, directory: Path) -> str:
        mirror, commit = self._mirrors.commit(url, mount.branch, mount.hash)
        _git(["init", "-q", "--template=", "."], directory)
        _git(["fetch", "-q", "--depth=1", "--no-tags", mirror.as_uri(), commit], directory)
        _git(["remote", "add", "origin", git.without_credentials(url)], directory)
        if mount.branch:
            _git(["update-ref", f"refs/remotes/origin/{mount.branch}", commit], directory)
            _git(["checkout", "-q", "-B", mount.branch, commit], directory, filters=True)
            upstream = f"--set-upstream-to=origin/{mount.branch}"
            _git(["branch", "-q", upstream, mount.branch], directory)
        else:
            _git(["checkout", "-q", "--detach", commit], directory, filters=True)
        return f"{git.without_credentials(url)} at {commit[:12]}"


class Mirrors:
    """Bare repositories that hold what was fetched from each URL; the credentials in it count as
    part of the URL, so that nobody is given what another one may read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}

    def commit(self, url: str, branch: str | None, wanted: str | None) -> tuple[Path, str]:
        """The mirror and the commit that branch, hash or neither (the remote's HEAD) mean."""
        if url.startswith("-") or (branch or "").startswith("-") or (wanted or "").startswith("-"):
            raise SourceError(f"{url!r}, {branch!r}, {wanted!r}: none may begin with a hyphen")
        name = blake3(url.encode()).hexdigest()[:32]
        with self._lock:
            busy = self._busy.setdefault(name, threading.Lock())
        mirror = self._directory / f"{name}.git"
        with busy:
            if not (mirror / "HEAD").exists():
                mirror.mkdir(mode=0o700, parents=True, exist_ok=True)
                _git(["init", "-q", "--bare", "--template=", "."], mirror)
                _git(["config", "uploadpack.allowAnySHA1InWant", "true"], mirror)
            return mirror, self._fetch(mirror, url, branch, wanted)

    def _fetch(self, mirror: Path, url: str, branch: str | None, wanted: str | None) -> str:
        if wanted and _HASH.fullmatch(wanted):
            if _has(mirror, wanted):
                return wanted
            try:
                self._from(mirror, url, [f"+{wanted}:refs/moorage/{wanted}"], shallow=True)
            except GitError:
                self._from(mirror, url, ["+refs/heads/*:refs/heads/*"], shallow=False)
            if not _has(mirror, wanted):
                raise GitError(_NO_COMMIT.format(wanted))
            return wanted
        if wanted:
            self._from(mirror, url, ["+refs/heads/*:refs/heads/*"], shallow=False)
            found = git.ask(["rev-parse", "-q", "--verify", f"{wanted}^{{commit}}"], mirror)
            if found is None:
                raise GitError(_NO_COMMIT.format(wanted))
            return found
        source = f"refs/heads/{branch}" if branch else "HEAD"
        self._from(mirror, url, [f"+{source}:refs/moorage/latest"], shallow=True)
        return _git(["rev-parse", "refs/moorage/latest^{commit}"], mirror).decode().strip()

    def _from(self, mirror: Path, url: str, refs: list[str], *, shallow: bool) -> None:
        depth = ["--depth=1"] if shallow else _unshallow(mirror)
        plain = git.without_credentials(url)  # a password for ssh is of no use to git either
        arguments = ["fetch", "-q", "--no-tags", "--force", *depth, plain, *refs]
        git.run(arguments, mirror, settings=git.credentials(url))


def _unshallow(mirror: Path) -> list[str]:
    return ["--unshallow"] if (mirror / "shallow").exists() else []


def _has(mirror: Path, commit: str) -> bool:
    return git.ask(["rev-parse", "-q", "--verify", f"{commit}^{{tree}}"], mirror) is not None


def _git(
    arguments: list[str],
    directory: Path,
    *,
    stdin: IO[bytes] | None = None,
    filters: bool = False,
) -> bytes:
    """Git, by default without the settings of the node's user; `filters` (LFS and the like) are
    among them, so checking out a clone wants them."""
    return git.run(arguments, directory, stdin=stdin if stdin else b"", users_settings=filters)


def _occupied(directory: Path) -> bool:
    try:
        return any(name not in _MAY_LIE_THERE for name in os.listdir(directory))
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return True


def _plain(root: Path, rest: Path) -> Path:
    """`rest` below `root`, refused where a link is on the way."""
    place = root
    for part in rest.parts:
        place /= part
        if place.is_symlink():
            raise SourceError(f"{place} is a link, which is not followed; choose another path")
    return place
