"""The ignore engine against git itself, on random patterns and trees."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from moorage.data import ignore
from moorage.data.wildmatch import parse

_NAMES = [
    "a",
    "b",
    "ab",
    "a.b",
    "x.py",
    "[a]",
    "a b",
    "#c",
    "!d",
    "é",
    "-",
    "a\\",
    ".h",
    "A1",
    "]",
]
_PIECES = [
    *["a", "b", "ab", "x", ".py", "1", " ", "#", "!", "é", "-", "]", "A", ".", "\\"],
    *["*", "*", "**", "?", "/", "/", "**/", "/**", "[ab]", "[!a]", "[^b]", "[a-c]", "[]]"],
    *["[]-a]", "[a-", "[\\]]", "[[:alpha:]]", "[[:digit:]a]", "[[:nope:]]", "[[:alpha]", "\\*"],
    *["\\[", "\\ ", "\\a", "[a-\\c]", "[!]a]", "[--/]", "[[:space:]-a]"],
]

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def walk(root: Path) -> set[str]:
    """Every entry that the engine leaves out, without those below a directory left out."""
    found: set[str] = set()

    def visit(directory: str, level: ignore.Level) -> None:
        for entry in os.scandir(directory):
            name = os.fsencode(entry.name)
            is_directory = entry.is_dir(follow_symlinks=False)
            if entry.name == ".git":
                continue
            if level.ignores(name, is_directory):
                found.add(os.path.relpath(entry.path, root))
            elif is_directory:
                path = os.fsencode(entry.path)
                visit(entry.path, level.enter(name, ignore.read(path, os.listdir(path))))

    visit(str(root), ignore.start(str(root)))
    return found


def by_git(root: Path) -> set[str]:
    """The same, asked of git."""
    paths: list[str] = []
    for directory, directories, files in os.walk(root):
        if ".git" in directories:
            directories.remove(".git")
        paths += [os.path.relpath(os.path.join(directory, n), root) for n in directories + files]
    asked = subprocess.run(
        ["git", "-C", str(root), "-c", "core.excludesFile=", "check-ignore", "-z", "--stdin"],
        input="\0".join(paths),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"},
    )
    assert asked.returncode in (0, 1)
    ignored = {path for path in asked.stdout.split("\0") if path}
    return {p for p in ignored if os.path.dirname(p) not in ignored}


def pattern(chance: random.Random) -> str:
    text = "".join(chance.choice(_PIECES) for _ in range(chance.randint(1, 5)))
    return chance.choice(["", "", "", "!", "/"]) + text + chance.choice(["", "", "/", " "])


def grow(root: Path, chance: random.Random, depth: int = 0) -> None:
    for name in chance.sample(_NAMES, chance.randint(2, 7)):
        if depth < 3 and chance.random() < 0.45:
            (root / name).mkdir()
            grow(root / name, chance, depth + 1)
        else:
            (root / name).write_bytes(b"")
    if depth == 0 or chance.random() < 0.3:
        lines = [pattern(chance) for _ in range(chance.randint(1, 6))]
        (root / ".gitignore").write_text("\n".join(lines))


@needs_git
@pytest.mark.parametrize("seed", range(int(os.environ.get("MOORAGE_IGNORE_CASES", "40"))))
def test_agrees_with_git(tmp_path: Path, seed: int) -> None:
    grow(tmp_path, random.Random(seed))
    subprocess.run(["git", "init", "-q", "--template=", str(tmp_path)], check=True)
    assert walk(tmp_path) == by_git(tmp_path)


def ignored(root: Path, files: dict[str, str]) -> set[str]:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return walk(root)


def test_own_file_replaces_gitignore(tmp_path: Path) -> None:
    files = {".gitignore": "data\n", ".moorageignore": "*.log\n", "data": "", "a.log": ""}
    assert ignored(tmp_path, files) == {"a.log"}


def test_dstackignore_adds_to_gitignore(tmp_path: Path) -> None:
    files = {".gitignore": "data\n*.log\n", ".dstackignore": "!data\nbig\n"}
    assert ignored(tmp_path, {**files, "data": "", "a.log": "", "big": ""}) == {"a.log", "big"}


def test_skyignore_replaces_gitignore(tmp_path: Path) -> None:
    assert ignored(tmp_path, {".gitignore": "a\n", ".skyignore": "b\n", "a": "", "b": ""}) == {"b"}


def test_choice_is_made_per_directory(tmp_path: Path) -> None:
    files = {".moorageignore": "a\n", "d/.gitignore": "!a\nb\n", "a": "", "d/a": "", "d/b": ""}
    assert ignored(tmp_path, files) == {"a", "d/b"}


def test_rules_above_the_upload_count_up_to_the_checkout(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("outer\n")
    (tmp_path / "repo/.git").mkdir(parents=True)
    (tmp_path / "repo/.gitignore").write_text("*.o\n/sub/x\nsub\n")
    files = {"a.o": "", "x": "", "y": "", "outer": ""}
    assert ignored(tmp_path / "repo/sub", files) == {"a.o", "x"}


def test_git_itself_is_never_uploaded(tmp_path: Path) -> None:
    level = ignore.start(str(tmp_path))
    assert level.ignores(b".git", True)
    assert level.ignores(b".git", False)


def test_linked_ignore_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("*\n")
    (tmp_path / ".gitignore").symlink_to("rules")
    assert walk(tmp_path) == set()


@pytest.mark.parametrize("line", [b"", b"   ", b"# note", b"/", b"!", b"!/"])
def test_lines_without_a_pattern(line: bytes) -> None:
    assert parse(line) is None


def test_carriage_returns_and_a_byte_order_mark_are_dropped(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert ignored(tmp_path, {"a": "", "b": "", "c": ""}) == {"a", "b"}
