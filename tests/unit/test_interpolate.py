"""References in texts, their escape, and filling in by stages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.interpolate import Reference, Unresolved, escape, fill, references, scan


def test_references_have_places_and_names() -> None:
    text = "a ${{ env.HOME }} ${{run.name}}"
    home, name = references(text)
    assert (home.key, text[home.start : home.end]) == ("env.HOME", "${{ env.HOME }}")
    assert (name.namespace, name.name, name.start) == ("run", "name", 18)


@pytest.mark.parametrize(
    "text", ["${{ }}", "${{ name }}", "${{ a.b.c }}", "${{ groups[0].nodes }}", "${{ a.b"]
)
def test_what_is_no_variable_has_no_key(text: str) -> None:
    (reference,) = references(text)
    assert (reference.text, reference.key) == (text, "")


def test_an_unclosed_reference_ends_with_its_line() -> None:
    assert references("${{ a.b\nmore }}")[0].text == "${{ a.b"


@pytest.mark.parametrize(
    "text", ["", "$", "$$", "$HOME ${HOME} $$ $(x) {{ x }}", "a }} b", "$ {{ x }}", "awk '{{x}}'"]
)
def test_shell_texts_are_left_alone(text: str) -> None:
    assert references(text) == []
    assert fill(text, {}) == text
    assert fill(text, {}, last=True) == text


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$${{ x }}", "${{ x }}"),
        ("$${{", "${{"),
        ("$$$${{ x }}", "$${{ x }}"),
        ("$$${{ env.A }}", "$1"),
        ("pid $$ ${{ env.A }}", "pid $$ 1"),
    ],
)
def test_two_dollars_before_braces_mean_one(text: str, result: str) -> None:
    assert fill(text, {"env.A": "1"}, last=True) == result


def test_an_escape_survives_until_the_last_stage() -> None:
    first = fill("$${{ x }} ${{ env.A }} ${{ run.id }}", {"env.A": "1"})
    assert first == "$${{ x }} 1 ${{ run.id }}"
    assert fill(first, {"run.id": "7"}, last=True) == "${{ x }} 1 7"


def test_the_last_stage_needs_every_value() -> None:
    with pytest.raises(Unresolved, match=r"\$\{\{ run.id \}\} has no value here"):
        fill("${{ run.id }}", {}, last=True)


def test_a_value_is_never_a_reference() -> None:
    values = {"env.A": "${{ run.id }}", "env.B": "$", "env.C": "{{ run.id }}"}
    first = fill("${{ env.A }}${{ env.B }}${{ run.id }}${{ env.B }}${{ env.C }}", values)
    assert fill(first, {"run.id": "7"}, last=True) == "${{ run.id }}$7${{ run.id }}"


PIECES = st.lists(
    st.sampled_from(["$", "{", "{{", "}}", "x", "\n", "${{ env.A }}", "${{ run.b }}", "$${{"]),
    max_size=8,
).map("".join)


@given(PIECES)
def test_an_escaped_text_comes_back(text: str) -> None:
    assert references(escape(text)) == []
    assert fill(escape(text), {}, last=True) == text


@given(PIECES, PIECES, PIECES)
def test_filling_by_stages_is_filling_at_once(text: str, a: str, b: str) -> None:
    if any(not reference.key for reference in references(text)):
        return
    early, late = {"env.A": a}, {"run.b": b}
    at_once = fill(text, early | late, last=True)
    assert fill(fill(text, early), late, last=True) == at_once
    assert fill(fill(text, late), early, last=True) == at_once


@given(PIECES)
def test_scanning_loses_nothing(text: str) -> None:
    tokens = scan(text)
    again = "".join(
        token.text
        if isinstance(token, Reference)
        else escape(token, before_reference=number + 1 < len(tokens))
        for number, token in enumerate(tokens)
    )
    assert scan(again) == [
        token if isinstance(token, str) else token._replace(start=found.start, end=found.end)
        for token, found in zip(tokens, scan(again), strict=True)
        if isinstance(token, str) or isinstance(found, Reference)
    ]
