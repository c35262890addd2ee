"""What an image is made of: its configuration and its layers, as OCI and Docker tell them."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from moorage.data.base import NotHere, SourceError
from moorage.decoding import converted

LARGEST = 8 * 1024 * 1024
"""Bytes of a manifest or a configuration."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}


class Settings(Struct, frozen=True):
    """How the image wants to be run."""

    env: list[str] = msgspec.field(name="Env", default_factory=list)
    entrypoint: list[str] = msgspec.field(name="Entrypoint", default_factory=list)
    cmd: list[str] = msgspec.field(name="Cmd", default_factory=list)
    user: str = msgspec.field(name="User", default="")
    workdir: str = msgspec.field(name="WorkingDir", default="")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer; `digest` is that of its bytes as they lie there or travel, `content` that of the
    tar archive in it. The first may be empty where nobody promised one."""

    digest: str
    content: str
    size: int
    path: Path | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """`digest`: of the configuration, which names all content."""

    digest: str
    settings: Settings
    layers: list[Layer] = field(default_factory=list)


def sha256(content: bytes) -> str:
    """As manifests write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def document(content: bytes, what: str) -> dict[str, Any]:
    """A JSON object. SourceError."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SourceError(f"{what} is damaged: it is no JSON object")
    return found


def choose(index: dict[str, Any], what: str) -> dict[str, Any]:
    """The manifest of an index that is for this machine. SourceError."""
    machine = _ARCHITECTURES.get(platform.machine(), platform.machine())
    entries = [entry for entry in index.get("manifests") or [] if isinstance(entry, dict)]
    fitting = [entry for entry in entries if _fits(entry.get("platform"), machine)]
    if not fitting:
        have = sorted({_platform(entry.get("platform")) for entry in entries})
        raise NotHere(
            f"{what} has nothing for linux/{machine}; it has {', '.join(have) or 'nothing'}"
        )
    return fitting[0]


def _fits(platform: object, machine: str) -> bool:
    if not isinstance(platform, dict):  # says nothing, as in an archive with one image
        return True
    return platform.get("os") == "linux" and platform.get("architecture") == machine


def _platform(platform: object) -> str:
    if not isinstance(platform, dict):
        return "unknown"
    return f"{platform.get('os')}/{platform.get('architecture')}"


def compose(content: bytes, layers: list[Layer], what: str) -> Recipe:
    """From the bytes of a configuration and what is known of the layers. SourceError."""
    config = document(content, f"the configuration of {what}")
    machine = _ARCHITECTURES.get(platform.machine(), platform.machine())
    if config.get("architecture", machine) != machine:
        raise NotHere(f"{what} is for {config['architecture']}, and this node is {machine}")
    contents = (config.get("rootfs") or {}).get("diff_ids") or []
    if len(contents) != len(layers) or not all(
        isinstance(text, str) and DIGEST.fullmatch(text) for text in contents
    ):
        raise SourceError(f"{what} is damaged: its layers are not those of its configuration")
    wanted = {key: value for key, value in (config.get("config") or {}).items() if value}
    try:
        settings = converted(wanted, Settings)
    except msgspec.ValidationError as error:
        raise SourceError(f"the configuration of {what} is damaged: {error}") from None
    named = [
        Layer(layer.digest, known, layer.size, layer.path, layer.offset)
        for layer, known in zip(layers, contents, strict=True)
    ]
    return Recipe(sha256(content), settings, named)
