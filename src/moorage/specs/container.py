"""What a task says about its container, and what of it goes together."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from msgspec import Struct

from moorage.units import BadValue

ARCHIVES = ("docker-archive", "oci-archive")
FILES = (".squashfs", ".sqsh", ".sqfs", ".img", ".sif")
"""Endings of image files that are mounted as they are."""
USER_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?(:[A-Za-z0-9_][A-Za-z0-9_.-]*\$?)?$"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_NAME = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
_REFERENCE = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<name>{_NAME})"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_FORMS = (
    "write name:tag, host/name:tag, docker-archive:/FILE, oci-archive:/FILE, or the absolute path "
    "of a directory, a squashfs or a SIF file on the node"
)


class RegistryAuth(Struct, frozen=True):
    """Who pulls the image. Never shown."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "RegistryAuth(...)"


class Reference(NamedTuple):
    """An image in a registry; `version` is a tag or a digest."""

    host: str
    name: str
    version: str

    def __str__(self) -> str:
        mark = "@" if self.version.startswith("sha256:") else ":"
        return f"{self.host}/{self.name}{mark}{self.version}"


def parse_reference(text: str) -> Reference:
    """`python:3.12` and its longer forms, with what container engines add. BadValue."""
    match = _REFERENCE.fullmatch(text.removeprefix("docker://"))
    if match is None:
        raise BadValue(text, "an image", _FORMS)
    host, name = match["host"], match["name"]
    if host is not None and not ("." in host or ":" in host or host == "localhost"):
        if re.fullmatch(_NAME, f"{host}/{name}") is None:
            raise BadValue(text, "an image", _FORMS)
        host, name = None, f"{host}/{name}"
    if host in (None, "docker.io", "index.docker.io"):
        host = "docker.io"
        name = name if "/" in name else f"library/{name}"
    assert host is not None
    return Reference(host, name, match["digest"] or match["tag"] or "latest")


def check_image(text: str) -> str:
    """A reference, an archive, a directory or an image file. BadValue."""
    kind, colon, rest = text.partition(":")
    if colon and kind in ARCHIVES:
        _check_path(rest, text)
    elif text.startswith("/"):
        _check_path(text, text)
    elif text.startswith((".", "~")) or text.endswith(FILES):
        raise BadValue(text, "an image", "write the absolute path that the file has on the node")
    else:
        parse_reference(text)
    return text


def _check_path(path: str, text: str) -> None:
    if not path.startswith("/") or ".." in PurePosixPath(path).parts or len(path) > 4096:
        raise BadValue(text, "an image", "write an absolute path on the node, without '..'")


def check_user(text: str) -> str:
    """`uid_or_name[:gid_or_name]`. BadValue."""
    numbers = [part for part in text.split(":") if part.isascii() and part.isdigit()]
    if re.fullmatch(USER_PATTERN, text) is None or any(int(n[:12]) >= 2**32 - 1 for n in numbers):
        raise BadValue(text, "a user", "write a name or number, or user:group")
    return text


def check_entrypoint(text: str) -> str:
    """Words as a shell reads them. BadValue."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadValue(text, f"an entrypoint: {error}", "check its quotes") from None
    if not words:
        raise BadValue(text, "an entrypoint", "write a program, and its first arguments")
    return text


def clashes(given: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Fields that make no sense beside the others: name, reason, fix. `given`: fields of a task
    that say something."""
    if given.get("docker"):
        if given.get("image"):
            yield "docker", "its job runs in the node's own system", "remove it, or `image`"
        for name in ("nodes", "groups"):
            if given.get(name) and given[name] != 1:
                yield "docker", "its job has a network of its own, of one node", f"remove `{name}`"
        given = {**given, "privileged": False}  # as files of dstack may say, and it is
    if given.get("image"):
        if given.get("python"):
            yield "python", "the image brings its own Python", "remove it, or remove `image`"
        if given.get("entrypoint") and given.get("shell"):
            yield "shell", "an entrypoint is started without a shell", "remove one of them"
        return
    for name in ("entrypoint", "user", "registry_auth", "privileged"):
        if given.get(name):
            yield name, "there is no container without an image", "add `image:`, or remove it"
