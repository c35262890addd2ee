"""What a task may say about its container."""

from __future__ import annotations

import pytest

from moorage.core.launch import container_of
from moorage.errors import InvalidInput
from moorage.specs.checks import check_task
from moorage.specs.container import check_image, check_user, parse_reference
from moorage.specs.filling import interpolate_spec
from moorage.specs.load import load
from moorage.specs.show import dump, without_password
from moorage.specs.task import Task
from moorage.units import BadValue


def spec(text: str, **environ: str) -> Task:
    return load(f"type: task\n{text}", file="a.yml", environ=environ).spec


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("docker://ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
        ("team/app", "docker.io/team/app:latest"),
        ("index.docker.io/team/app:1", "docker.io/team/app:1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/a/b:1", "localhost:5000/a/b:1"),
        ("[::1]:5000/a:1", "[::1]:5000/a:1"),
        ("ghcr.io/a/b_c/d-e:V1.2", "ghcr.io/a/b_c/d-e:V1.2"),
        ("a/b:1@sha256:" + "0" * 64, "docker.io/a/b@sha256:" + "0" * 64),
    ],
)
def test_references(text: str, whole: str) -> None:
    assert str(parse_reference(text)) == whole


@pytest.mark.parametrize(
    "text",
    ["Upper", "a//b", "a:b:c", "a b", "./x", "~/x", "x.sif", "/a/../b", "docker-archive:x",
     "a@sha256:00", "host:port/a", "oci-archive:"],
)  # fmt: skip
def test_what_is_no_image(text: str) -> None:
    with pytest.raises(BadValue):
        check_image(text)


@pytest.mark.parametrize("text", ["root", "1000", "1000:50", "a.b:c-d", "_apt", "svc$"])
def test_users(text: str) -> None:
    assert check_user(text) == text


@pytest.mark.parametrize("text", ["", ":1", "a:", "a:b:c", "a b", "-x", str(2**32)])
def test_what_is_no_user(text: str) -> None:
    with pytest.raises(BadValue):
        check_user(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image: a\npython: 3.11", "3:9: python: the image brings its own Python"),
        ("commands: [a]\nuser: 5", "3:7: user: there is no container without an image"),
        ("commands: [a]\nentrypoint: b", "entrypoint: there is no container without an image"),
        ("image: a\nentrypoint: b\nshell: sh", "shell: an entrypoint is started without a shell"),
        ('image: a\nentrypoint: "b \'"', "is not an entrypoint: No closing quotation"),
        ("image: a\nregistry_auth: {username: a}", "the field 'password' is missing"),
        ("image: a\ndocker: true", "docker: its job runs in the node's own system"),
        ("commands: [a]\ndocker: true\nnodes: 2", "docker: its job has a network of its own"),
    ],
)
def test_what_does_not_go_together(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        spec(text)


def test_a_posted_spec_is_checked_alike() -> None:
    problems = check_task(Task(commands=["a"], user="a b", privileged=True))
    assert [problem.field for problem in problems] == ["user", "user", "privileged"]


def test_the_password_reaches_the_node_and_nobody_else() -> None:
    task = spec("image: a\nregistry_auth: {username: u, password: '${{ env.PW }}'}", PW="$${{ odd")
    box = container_of(interpolate_spec(task, {}))
    assert box is not None
    assert box.auth is not None
    assert box.auth.password == "$${{ odd"
    for text in (repr(task), repr(box), dump(task), repr(without_password(task).registry_auth)):
        assert "odd" not in text
    without = without_password(task).registry_auth
    assert without is not None
    assert without.password == "(hidden)"


def test_a_file_that_is_shown_keeps_the_reference() -> None:
    text = "type: task\nimage: a\nregistry_auth: {username: u, password: '${{ env.PW }}'}"
    task = load(text, file="a.yml", environ={"PW": "secret"}, keep_env=True).spec
    assert "password: ${{ env.PW }}" in dump(task)


def test_a_daemon_brings_its_privileges() -> None:
    task = spec("commands: [a]\ndocker: true\nprivileged: true")
    assert (task.docker, container_of(task)) == (True, None)
    assert load(dump(spec("commands: [a]\ndocker: true")), file="a.yml", environ={}).spec.docker


def test_an_image_alone_is_enough() -> None:
    task = spec("image: a\nuser: 7\nentrypoint: b 'c d'")
    box = container_of(task)
    assert box is not None
    assert (box.user, box.entrypoint) == ("7", ["b", "c d"])
    assert load(dump(task), file="a.yml", environ={}).spec == task
