from __future__ import annotations

import pytest

from moorage.data.transfer.names import directories, reason_against_file, reason_against_key


@pytest.mark.parametrize("name", ["a", "a/b", "..hidden", "a..b", "日本/語", "a b", "x" * 255])
def test_names_that_files_can_have(name: str) -> None:
    assert reason_against_file(name) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../x", "'.' or '..'"),
        ("a/../../x", "'.' or '..'"),
        ("./a", "'.' or '..'"),
        ("/etc/passwd", "empty"),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("", "empty"),
        ("a\0b", "zero byte"),
        ("x" * 256, "too long"),
        ("é" * 128, "too long"),
        ("x/" * 2000 + "y", "too long"),
        ("\udcff", "UTF-8"),
    ],
)
def test_names_that_no_file_gets(name: str, reason: str) -> None:
    assert reason in reason_against_file(name)


@pytest.mark.parametrize(
    ("key", "reason"),
    [("a/b c", ""), ("a\nb", "control"), ("\x7f", "control"), ("é" * 600, "1024 bytes"),
     ("\udc80", "UTF-8")],
)  # fmt: skip
def test_names_that_are_keys(key: str, reason: str) -> None:
    assert reason in reason_against_key(key)
    assert bool(reason) == bool(reason_against_key(key))


def test_directories_of_many_names_are_found_once_each() -> None:
    assert directories(["a/b/c", "a/b/d", "a", "e", "f/g"]) == {"a", "a/b", "f"}
    deep = "d/" * 500
    assert len(directories(f"{deep}{n}" for n in range(2000))) == 500
