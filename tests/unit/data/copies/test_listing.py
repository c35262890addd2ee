from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.data.copies.listing import describe, lay_out, single, without
from moorage.data.objects.bucket import Found


def found(key: str, size: int = 1, etag: str = "e") -> Found:
    return Found(key, size, 0.0, etag)


def paths(*keys: str, prefix: str = "") -> list[str]:
    return [entry.path for entry in lay_out([found(key) for key in keys], prefix).files]


def reasons(*objects: Found) -> dict[str, str]:
    return {one.key: one.reason for one in lay_out(objects, "").left_out}


def test_keys_become_paths_below_the_prefix() -> None:
    assert paths("a", "d/e/f") == ["a", "d/e/f"]
    assert paths("x/a", "x/d/e", prefix="x") == ["a", "d/e"]
    assert paths("x/y/a", prefix="x/y") == ["a"]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("../x", "'.' or '..'"),
        ("a/../../x", "'.' or '..'"),
        ("./x", "'.' or '..'"),
        ("/etc/passwd", "empty"),
        ("a//b", "empty"),
        ("a\0b", "zero byte"),
        ("a\nb", "control character"),
        ("x" * 256, "too long"),
        ("é" * 128, "too long"),
        ("\udc80", "UTF-8"),
        ("../d/", "'.' or '..'"),
    ],
)
def test_what_is_no_name_of_a_file_is_left_out_and_said(key: str, reason: str) -> None:
    assert reason in reasons(found(key, 0 if key.endswith("/") else 1))[key]


@pytest.mark.parametrize(
    "key", ["x" * 255, "é" * 127, "a b", "ü/e\u0301", "~", "...", "A\\b", "-rf"]
)
def test_anything_else_is_taken_as_it_is(key: str) -> None:
    assert paths(key) == [key]


def test_a_key_that_is_also_a_prefix_gives_way() -> None:
    assert paths("a", "a/b") == ["a/b"]
    assert reasons(found("a"), found("a/b")) == {"a": "there are objects below it"}
    # As some programs write a directory; nothing is lost with it.
    assert reasons(found("a", 0), found("a/b")) == {}


def test_a_key_with_a_slash_at_its_end_is_a_directory() -> None:
    layout = lay_out([found("d/", 0), found("d/e/", 0), found("f/", 0), found("f/g")], "")
    assert ([entry.path for entry in layout.files], layout.directories) == (["f/g"], ["d/e"])
    assert reasons(found("d/", 3)) == {"d/": "a directory has no content"}
    assert lay_out([found("x/", 0)], "x").directories == []
    # Content is worth more than an empty directory in its place.
    layout = lay_out([found("a"), found("a/", 0), found("a/b/", 0)], "")
    assert ([entry.path for entry in layout.files], layout.directories) == (["a"], [])


def test_empty_objects_may_turn_out_to_be_directories() -> None:
    layout = lay_out([found("a", 0), found("b/c"), found("b/d", 0)], "")
    layout = without(layout, ["a", "b/d"])
    assert ([entry.path for entry in layout.files], layout.directories) == (["b/c"], ["a", "b/d"])


def test_one_object() -> None:
    layout = single(found("x/model.bin", 5))
    assert layout.single
    assert [(entry.path, entry.key) for entry in layout.files] == [("model.bin", "x/model.bin")]


def test_the_digest_is_another_whenever_the_content_is() -> None:
    one = [found("a"), found("b")]
    digests = {
        lay_out(one, "").digest("s3", "b"),
        lay_out(one, "").digest("s3", "c"),
        lay_out(one[:1], "").digest("s3", "b"),
        lay_out([found("a", 2), found("b")], "").digest("s3", "b"),
        lay_out([found("a", 1, "f"), found("b")], "").digest("s3", "b"),
        lay_out([*one, found("d/", 0)], "").digest("s3", "b"),
        single(found("a")).digest("s3", "b"),
        lay_out([found("a")], "").digest("s3", "b"),
    }
    assert len(digests) == 7
    assert lay_out(reversed(one), "").digest("s3", "b") in digests


def test_it_is_said_briefly() -> None:
    assert describe([]) == ""
    layout = lay_out([found("a//b"), found("../c")], "")
    assert describe(layout.left_out) == (
        "2 objects left out ('../c': a part of its key is '.' or '..'; "
        "'a//b': a part of its key is empty)"
    )
    many = lay_out([found(f"a//{n}") for n in range(9)], "").left_out
    assert describe(many).startswith("9 objects left out (")
    assert describe(many).endswith("; ...)")


@given(st.lists(st.text("ab/.\0\n", max_size=6), max_size=12))
def test_no_key_ever_leads_out_or_is_lost(keys: list[str]) -> None:
    layout = lay_out([found(key) for key in dict.fromkeys(keys)], "")
    every = [entry.path for entry in layout.files]
    for path in every + layout.directories:
        assert not {"", ".", ".."} & set(path.split("/"))
    for path in every:
        assert not any(other.startswith(f"{path}/") for other in every + layout.directories)
    told = {one.key for one in layout.left_out}
    # The root needs no object, and with content it is told.
    assert {entry.key for entry in layout.files} | told >= {k for k in keys if k}
