"""A user's checkout arrives on the node with exactly the user's changes; URLs are cloned."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from moorage.data import checkout, git
from moorage.data.base import Bind, Place, SourceError
from moorage.data.repos import RepoSource
from moorage.errors import InvalidInput
from moorage.specs.mounts import Repo

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_ALLOW_PROTOCOL": "file",
}


def sh(directory: Path, *arguments: str) -> str:
    """Run git; its output."""
    command = ["git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"]
    return subprocess.run(
        [*command, *arguments],
        cwd=directory,
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def commit(directory: Path, message: str = "work") -> str:
    sh(directory, "add", "-A")
    sh(directory, "commit", "-q", "-m", message)
    return sh(directory, "rev-parse", "HEAD").strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    sh(root, "init", "-q")
    (root / "src").mkdir()
    (root / ".gitignore").write_text("*.log\nout/\n")
    for name in ("README", "src/a.py", "src/b.py", "src/gone.py", "old name"):
        (root / name).write_text(f"{name}\n" * 20)
    (root / "src/tool").write_text("#!/bin/sh\n")
    (root / "src/tool").chmod(0o755)
    (root / "link").symlink_to("src/a.py")
    commit(root, "first")
    return root


class Node:
    """A node's side, with the attempt's place."""

    def __init__(self, harbour, base: Path) -> None:
        self.harbour = harbour
        self.base = base
        self.source = RepoSource(harbour.cache, base / "mirrors")
        work = base / "attempt/work"
        work.mkdir(parents=True)
        self.place = Place(base / "attempt", work, Path("/home/nobody"))

    def mount(self, path: Path, **more) -> Repo:
        """What the client submits for a local checkout."""
        read = checkout.read(path, self.base / "packs")
        self.harbour.uploader.upload([read.scan], [read.pack] if read.pack else [])
        pack = read.pack.digest if read.pack else None
        return Repo(
            source=str(path),
            tree=read.scan.tree,
            pack=pack,
            head=read.head,
            branch=read.branch,
            remote=read.remote,
            **more,
        )

    def laid(self, mount: Repo) -> Path:
        handle = self.source.prepare(mount, self.place, 0)
        assert handle.binds == []
        return self.place.work


@pytest.fixture
def node(harbour, tmp_path: Path) -> Node:
    return Node(harbour, tmp_path / "node")


def status(directory: Path) -> list[str]:
    """What git says has changed, staged or not."""
    lines = sh(directory, "status", "--porcelain", "-uall", "--no-renames").splitlines()
    return sorted(line[3:] for line in lines)


def test_all_local_changes_and_nothing_else(node: Node, repo: Path) -> None:
    (repo / "src/a.py").write_text("edited\n")
    (repo / "src/b.py").write_text("staged\n")
    sh(repo, "add", "src/b.py")
    (repo / "src/gone.py").unlink()
    sh(repo, "mv", "old name", "new name")
    (repo / "untracked ü").write_text("new\n")
    (repo / "noise.log").write_text("ignored\n")
    (repo / "out").mkdir()
    (repo / "out/x").write_text("ignored\n")
    (repo / "src/tool").chmod(0o644)
    work = node.laid(node.mount(repo))
    assert status(work) == status(repo)
    assert sh(work, "log", "--format=%H %s") == sh(repo, "log", "--format=%H %s")
    assert sh(work, "branch", "--show-current") == "main\n"
    assert (work / "src/a.py").read_text() == "edited\n"
    assert not (work / "noise.log").exists()
    assert not (work / "out").exists()
    assert os.readlink(work / "link") == "src/a.py"
    sh(work, "checkout", "-q", "--", "src/gone.py")
    sh(work, "fsck", "--strict")


def test_clean_checkout_is_clean(node: Node, repo: Path) -> None:
    work = node.laid(node.mount(repo))
    assert status(work) == []
    assert sh(work, "diff", "--stat", "HEAD") == ""


def test_detached_head_and_unpushed_commits(node: Node, repo: Path) -> None:
    (repo / "README").write_text("second\n")
    head = commit(repo, "second")
    sh(repo, "checkout", "-q", "--detach")
    mount = node.mount(repo)
    assert (mount.branch, mount.head, mount.remote) == (None, head, None)
    work = node.laid(mount)
    assert sh(work, "rev-parse", "HEAD").strip() == head
    assert status(work) == []


def test_nothing_committed_yet(node: Node, tmp_path: Path) -> None:
    root = tmp_path / "fresh"
    root.mkdir()
    sh(root, "init", "-q", "-b", "trunk")
    (root / "a").write_text("a")
    mount = node.mount(root)
    assert (mount.head, mount.pack, mount.branch) == (None, None, "trunk")
    work = node.laid(mount)
    assert status(work) == ["a"]
    assert sh(work, "symbolic-ref", "HEAD") == "refs/heads/trunk\n"


def test_worktrees_and_shallow_clones(node: Node, repo: Path, tmp_path: Path) -> None:
    (repo / "README").write_text("second\n")
    commit(repo, "second")
    sh(repo, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    sh(tmp_path, "clone", "-q", "--depth=1", repo.as_uri(), "shallow")
    (tmp_path / "side/README").write_text("third\n")
    mount = node.mount(tmp_path / "side")
    assert mount.branch == "side"
    assert status(node.laid(mount)) == ["README"]
    assert node.mount(tmp_path / "shallow").head == sh(repo, "rev-parse", "HEAD").strip()


def test_submodules_bring_their_files(node: Node, repo: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    sh(library, "init", "-q")
    (library / "lib.py").write_text("lib\n")
    (library / ".gitignore").write_text("*.tmp\n")
    commit(library)
    sh(repo, "submodule", "--quiet", "add", library.as_uri(), "vendor/library")
    commit(repo, "vendor")
    (repo / "vendor/library/lib.py").write_text("changed\n")
    (repo / "vendor/library/new.py").write_text("new\n")
    (repo / "vendor/library/x.tmp").write_text("ignored\n")
    work = node.laid(node.mount(repo))
    assert (work / "vendor/library/lib.py").read_text() == "changed\n"
    assert (work / "vendor/library/new.py").exists()
    assert not (work / "vendor/library/x.tmp").exists()
    assert not (work / "vendor/library/.git").exists()


def test_a_nested_untracked_checkout_brings_its_files(node: Node, repo: Path) -> None:
    (repo / "nested").mkdir()
    sh(repo / "nested", "init", "-q")
    (repo / "nested/file").write_text("file")
    assert (node.laid(node.mount(repo)) / "nested/file").exists()


def test_own_ignore_file_counts_for_untracked_files_only(node: Node, repo: Path) -> None:
    (repo / ".moorageignore").write_text("src\n*.bin\n")
    (repo / "big.bin").write_text("big")
    (repo / "src/new.py").write_text("new")
    work = node.laid(node.mount(repo))
    assert (work / "src/a.py").exists()
    assert not (work / "big.bin").exists()
    assert not (work / "src/new.py").exists()


def test_the_pack_is_made_once_per_commit(node: Node, repo: Path) -> None:
    first = node.mount(repo)
    (repo / "README").write_text("edited")
    assert node.mount(repo).pack == first.pack
    assert len(list((node.base / "packs").iterdir())) == 1


def test_git_variables_of_the_caller_do_not_leak(
    node: Node, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nonexistent")
    assert status(node.laid(node.mount(repo))) == []


def test_remote_without_its_credentials(node: Node, repo: Path) -> None:
    sh(repo, "remote", "add", "up", "https://user:secret@example.org/x.git")
    assert node.mount(repo).remote == "https://example.org/x.git"
    work = node.laid(node.mount(repo))
    assert sh(work, "remote", "get-url", "origin") == "https://example.org/x.git\n"


def test_what_is_no_checkout(tmp_path: Path, repo: Path) -> None:
    with pytest.raises(InvalidInput, match="not a git checkout"):
        checkout.read(tmp_path, tmp_path / "packs")
    with pytest.raises(InvalidInput, match="missing: does not exist; name the top of a checkout"):
        checkout.read(tmp_path / "missing", tmp_path / "packs")
    with pytest.raises(InvalidInput, match="lies inside the checkout"):
        checkout.read(repo / "src", tmp_path / "packs")


def test_a_target_with_files(node: Node, repo: Path) -> None:
    mount = node.mount(repo)
    (node.place.work / "lost+found").mkdir()
    work = node.laid(mount)
    with pytest.raises(SourceError, match="if_exists: skip"):
        node.laid(mount)
    (work / "README").write_text("mine")
    node.laid(node.mount(repo, if_exists="skip"))
    assert (work / "README").read_text() == "mine"


def test_outside_the_working_directory_it_is_a_bind(node: Node, repo: Path) -> None:
    handle = node.source.prepare(node.mount(repo, target="/srv/code"), node.place, 3)
    [bind] = handle.binds
    assert bind == Bind(node.place.directory / "files/3/tree", Path("/srv/code"))
    assert status(bind.source) == []
    assert handle.detail.startswith("/srv/code: 7 files, ")


def test_into_a_volume(node: Node, repo: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    place = Place(
        node.place.directory,
        node.place.work,
        node.place.home,
        binds=(Bind(volume, Path("/data")),),
    )
    node.source.prepare(node.mount(repo, target="/data/code"), place, 0)
    assert status(volume / "code") == []
    (volume / "escape").symlink_to(tmp_path)
    with pytest.raises(SourceError, match="is a link"):
        node.source.prepare(node.mount(repo, target="/data/escape/x"), place, 0)


def test_a_tree_that_brings_its_own_git_is_refused(node: Node, tmp_path: Path) -> None:
    root = tmp_path / "evil"
    (root / "sub").mkdir(parents=True)
    (root / "sub/.GIT").write_text("x")
    sent = node.harbour.sent(root)
    with pytest.raises(SourceError, match="it brings"):
        node.source.prepare(Repo(source="x", tree=sent), node.place, 0)


def url(path: Path) -> str:
    return path.as_uri()


def test_a_url_at_its_head_branch_and_hash(node: Node, repo: Path) -> None:
    first = sh(repo, "rev-parse", "HEAD").strip()
    (repo / "README").write_text("second\n")
    second = commit(repo, "second")
    sh(repo, "branch", "side", first)
    bare = repo.parent / "bare.git"
    sh(repo.parent, "clone", "-q", "--bare", str(repo), str(bare))
    for number, (mount, expected, branch) in enumerate(
        [
            (Repo(url=url(bare)), second, ""),
            (Repo(url=url(bare), branch="side"), first, "side\n"),
            (Repo(url=url(bare), hash=first), first, ""),
            (Repo(url=url(bare), hash=first[:9], branch="main"), first, "main\n"),
            (Repo(url=str(bare)), second, ""),
        ]
    ):
        work = node.base / f"work{number}"
        work.mkdir()
        place = Place(node.place.directory, work, node.place.home)
        handle = node.source.prepare(mount, place, 0)
        assert sh(work, "rev-parse", "HEAD").strip() == expected
        assert sh(work, "branch", "--show-current") == branch
        assert status(work) == []
        assert expected[:12] in handle.detail


def test_a_url_that_cannot_be_cloned(node: Node, repo: Path) -> None:
    with pytest.raises(SourceError, match="nothing here"):
        node.source.prepare(Repo(url="file:///nothing here"), node.place, 0)
    with pytest.raises(SourceError, match="no commit abcdef0"):
        node.source.prepare(Repo(url=url(repo), hash="abcdef0"), node.place, 0)
    with pytest.raises(SourceError, match=f"no commit {'ab' * 20}"):
        node.source.prepare(Repo(url=url(repo), hash="ab" * 20), node.place, 0)
    for bad in ("--upload-pack=touch /tmp/x", "ext::sh -c true"):
        with pytest.raises(SourceError):
            node.source.prepare(Repo(url=bad), node.place, 0)
    assert node.source.problems(Repo(url="--x"))[0]
    assert node.source.problems(Repo(source="x"))[0]
    assert node.source.problems(Repo(url=url(repo))) == ([], [])


def test_credentials_are_in_no_message(node: Node) -> None:
    secret = "https://user:hunter2@127.0.0.1:1/x.git"
    with pytest.raises(SourceError) as caught:
        node.source.prepare(Repo(url=secret), node.place, 0)
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("https://u:p@h/x", "https://h/x"),
        ("https://token@h:8/x?y", "https://h:8/x?y"),
        ("ssh://git:p@h/x", "ssh://git@h/x"),
        ("git@h:x/y", "git@h:x/y"),
        ("/srv/x.git", "/srv/x.git"),
    ],
)
def test_urls_without_credentials(before: str, after: str) -> None:
    assert git.without_credentials(before) == after


@pytest.mark.parametrize(
    "url", ["ssh://git:s3cret@127.0.0.1:1/x", "http://u:s3cret@127.0.0.1:1/x"]
)
def test_credentials_are_in_no_argument(
    node: Node, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    run = git.run

    def listen(arguments: list[str], directory: Path, **options: Any) -> bytes:
        seen.extend(arguments)
        return run(arguments, directory, **options)

    monkeypatch.setattr(git, "run", listen)
    with pytest.raises(SourceError):
        node.source.prepare(Repo(url=url), node.place, 0)
    assert not [argument for argument in seen if "s3cret" in argument]


def test_credentials_go_into_a_header_for_that_host_only() -> None:
    assert git.credentials("https://u:p%40@h:8/x") == {
        "http.https://h:8/.extraHeader": "Authorization: Basic dTpwQA=="
    }
    assert git.credentials("ssh://git@h/x") == {}
