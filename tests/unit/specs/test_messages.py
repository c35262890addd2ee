"""Every way in which a file can be wrong, with the line that the user reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moorage.errors import InvalidInput
from moorage.specs.load import load


def errors(text: str, **options: Any) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        load(text, **({"file": "a.yml", "environ": {"SECRET": "hunter2"}} | options))
    assert "hunter2" not in str(caught.value)
    return [str(problem) for problem in caught.value.problems]


def error(body: str, **options: Any) -> str:
    """The one problem of a task whose third line begins with `body`."""
    (found,) = errors(f"type: task\ncommands: [echo]\n{body}", **options)
    return found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.yml: the file is empty; write `type: task` and `commands:`"),
        ("# nothing\n", "a.yml: the file is empty; write `type: task` and `commands:`"),
        (
            "\n- a\n",
            "a.yml:2:1: the file is not a mapping; write `key: value` lines, "
            "starting with `type: task`",
        ),
        (
            "#!/bin/bash\n#SBATCH --array=0-3\n#SBATCH -o %x.out\nfoo: bar: $X\n",
            "a.yml:2: this version does not read Slurm scripts yet; write its commands under "
            "`commands:`, --time as `max_duration`, and --mem, --cpus-per-task and --gres under "
            "`resources:`",
        ),
        (
            "#!/bin/bash\npython train.py\n",
            "a.yml:1: this is a script, and not a task file; write a file that names it under "
            "`files:` and `commands:`",
        ),
        (
            "type: task\n\tcommands: [a]",
            "a.yml:2:1: a tab is used as indentation; indent with spaces",
        ),
        (
            "name: a: b",
            "a.yml:1:8: not valid YAML: mapping values are not allowed in this context; "
            "put quotes around a text that contains `: `",
        ),
        (
            "name: 'a",
            "a.yml:1:9: not valid YAML: found unexpected end of stream "
            "(while scanning a quoted scalar); close the quote",
        ),
        (
            "name: [a",
            "a.yml:2:1: not valid YAML: did not find expected ',' or ']' "
            "(while parsing a flow sequence that begins on line 1)",
        ),
        (
            "a: {b: c-${{ run.id }}, d: e}",
            "a.yml:1:11: not valid YAML: did not find expected ',' or '}' "
            "(while parsing a flow mapping); put quotes around a text that contains `${{`",
        ),
        ("a: 1\nb: \x07", "a.yml:2:4: a control character is in the file; remove it"),
        ("a: 1\nb: \ud800", "a.yml:2:4: this character is not valid Unicode"),
        (
            "type: task\n---\ntype: task",
            "a.yml:2:1: a second document begins here; write one run per file",
        ),
        ("[" * 40, "a.yml:1:33: nested deeper than 32 levels"),
        (
            "a: *b",
            "a.yml:1:4: `*b` refers to nothing; put `&b` before it, and not around it",
        ),
        (
            "a: &b [*b]",
            "a.yml:1:8: `*b` refers to nothing; put `&b` before it, and not around it",
        ),
        (
            "x" * (1024 * 1024 + 1),
            "a.yml: the file is larger than 1 MB; put data into files, and their names here",
        ),
    ],
)
def test_texts_that_are_no_document(text: str, message: str) -> None:
    assert errors(text) == [message]


def test_anchors_cannot_stand_for_a_billion_values() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (message,) = errors("\n".join(lines))
    assert message == "a.yml:4:5: more than 100000 values, repeated anchors included"


def test_a_hundred_problems_are_enough() -> None:
    found = errors("type: task\ncommands: [a]\n" + "".join(f"x{n}: 1\n" for n in range(200)))
    assert len(found) == 101
    assert found[-1] == "a.yml: too many problems to go on"


def test_all_problems_come_at_once_in_the_order_of_the_file() -> None:
    text = "type: task\nnmae: x\nname: X\nenv: [NOPE]\ncommands: [a]\nnodes: 0\nname: y\n"
    assert errors(text) == [
        "a.yml:2:1: nmae: there is no field 'nmae'; did you mean 'name'?",
        "a.yml:3:7: name: 'X' is not a run name; use 2 to 41 lowercase letters, digits and "
        "dashes, starting with a letter",
        "a.yml:4:7: env[0]: NOPE is not set in your environment; export NOPE, pass -e NOPE=..., "
        "or give it a value here",
        "a.yml:6:8: nodes: '0' is not a whole number from 1 to 4096",
        "a.yml:7:1: `name` is written twice; the first is on line 3; remove one of them",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("commands: [a]", "a.yml:1:1: the field 'type' is missing; write `type: task`"),
        (
            "tpye: task\ncommands: [a]",
            "a.yml:1:1: tpye: there is no field 'tpye'; did you mean 'type'?",
        ),
        (
            "type: service\nport: 80",
            "a.yml:1:7: type: this version does not have 'service' documents yet; "
            "write type: task",
        ),
        (
            "type: taks\nfoo: 80",
            "a.yml:1:7: type: there is no type 'taks'; did you mean 'task'?; write type: task",
        ),
        ("type: [task]\ncommands: [a]", "a.yml:1:7: type: a text is needed, not a list"),
        (
            "type: task",
            "a.yml:1:1: the field 'commands' is missing; add `commands:` with at least one "
            "command",
        ),
        (
            "type: task\ncommands: []",
            "a.yml:2:11: commands: there is nothing to run; add a command",
        ),
        ("type: task\ncommands: ['']", "a.yml:2:12: commands[0]: the text is empty"),
        ("type: task\ncommands: [~]", "a.yml:2:12: commands[0]: a value is missing after the key"),
        (
            'type: task\ncommands: ["a\\0"]',
            "a.yml:2:12: commands[0]: the text contains a NUL character",
        ),
        (
            "type: task\ncommands: {a: b}",
            "a.yml:2:11: commands: a text is needed, not a mapping",
        ),
        (
            "type: task\ncommands:\n- echo a: b",
            "a.yml:3:3: commands[0]: a text is needed, not a mapping; put quotes around a command "
            "that contains `: `, or write it after `- |`",
        ),
        (
            "type: task\nqqq: 1\ncommands: [a]",
            "a.yml:2:1: qqq: there is no field 'qqq'; `moorage schema task` has all fields",
        ),
        (
            "type: task\nimage: x\npython: 3.11",
            "a.yml:3:9: python: the image brings its own Python; remove it, or remove `image`",
        ),
    ],
)
def test_what_a_task_needs(text: str, message: str) -> None:
    found = errors(text)
    assert message in found
    assert len(found) == 1 or text.startswith("type: [")


@pytest.mark.parametrize("kind", ["dev-environment", "service", "volume", "gateway"])
def test_other_documents(kind: str) -> None:
    (message,) = errors(f"type: {kind}\nname: x\nide: vscode")
    assert message.startswith(f"a.yml:1:7: type: this version does not have '{kind}' documents")


def cases() -> list[tuple[str, str]]:
    text = (Path(__file__).parent / "messages.txt").read_text()
    blocks = [block for block in text.split("\n\n") if "\n=> " in block]
    return [(body, message.strip()) for body, message in (b.split("\n=> ") for b in blocks)]


@pytest.mark.parametrize(("body", "message"), cases())
def test_one_problem(body: str, message: str) -> None:
    assert error(body) == f"a.yml:{message}"


def test_places_inside_texts() -> None:
    body = 'env:\n  A: "é ${{ x.a }} ${{ x.a }}"\n  B: |\n    one\n      ${{ x.a }}\n  C: >-\n'
    found = errors(f"type: task\ncommands: [a]\n{body}    ${{{{\n    x.a }}}}\n")
    places = [line.removeprefix("a.yml:").partition(": ")[0] for line in found]
    assert places == ["4:9", "4:20", "7:7", "8:6"]


def test_what_is_unset_is_said_once() -> None:
    body = "env: [NOPE]\nworking_dir: ${{ env.NOPE }}"
    assert error(body).startswith("a.yml:3:7: env[0]: NOPE is not set")


def test_long_paths() -> None:
    found = error(f"working_dir: {'x' * 5000}")
    assert found.endswith("...' is not a path of at most 4096 characters")


def test_ten_problems_of_a_text_are_enough() -> None:
    assert len(errors(f"type: task\ncommands: ['{'${{ a }}' * 50}']")) == 10


def test_long_keys_are_cut() -> None:
    assert len(error(f"{'x' * 900}: 1")) < 1000


def test_long_values_are_cut() -> None:
    assert f"'{'x' * 57}...' is not" in error(f"shell: {'x' * 200}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"overrides": ["1A=hunter2"]},
            "-e: '1A' is not a variable name; use letters, digits and _, not first a digit",
        ),
        (
            {"overrides": ["NOPE"]},
            "-e: NOPE is not set in your environment; export NOPE, or write -e NOPE=value",
        ),
        (
            {"name": "X"},
            "-n: 'X' is not a run name; use 2 to 41 lowercase letters, digits and dashes, "
            "starting with a letter",
        ),
        (
            {"args": ["x"]},
            "a.yml: --: the arguments after -- are used nowhere; "
            "write ${{ run.args }} where they belong in commands",
        ),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    assert error("", **options) == message
