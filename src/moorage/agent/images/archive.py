"""Images in files of the node: `docker save` archives, OCI archives, squashfs and SIF images."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path
from typing import Any

from moorage.agent.images.recipe import (
    DIGEST,
    LARGEST,
    Layer,
    Recipe,
    choose,
    compose,
    document,
    sha256,
)
from moorage.data.base import SourceError

_DEPTH = 4
"""Of indexes in indexes."""
_SIF_MAGIC = b"SIF_MAGIC\0"
_SIF_HEADER = struct.Struct("<32s10s3s3s16sqqqqqqqq")
_SIF_DESCRIPTOR = struct.Struct("<i?IIIqqqqqqq128s384s")
_SIF_PARTITION, _SIF_SQUASHFS, _SIF_SYSTEM = 0x4004, 1, (2, 4)
_SQUASHFS_MAGIC = b"hsqs"


class Archive:
    """A tar archive that is read in any order."""

    def __init__(self, path: Path) -> None:
        """SourceError where it is none."""
        self.path = path
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115 (until `close`)
        except FileNotFoundError:
            raise SourceError(f"image: {path} does not exist on this node") from None
        except tarfile.ReadError:
            raise SourceError(
                f"image: {path} is no tar archive; one that is compressed has to be unpacked first"
            ) from None
        try:
            self._members = {m.name.removeprefix("./"): m for m in self._tar.getmembers()}
        except (tarfile.TarError, EOFError) as error:
            self.close()
            raise SourceError(f"image: {path} is damaged: {error}") from None

    def close(self) -> None:
        """Let go of the file."""
        self._tar.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has(self, name: str) -> bool:
        """Is there an entry of that name?"""
        return name in self._members

    def place(self, name: str) -> tuple[int, int]:
        """Where the bytes of an entry begin, and how many there are. SourceError."""
        member = self._members.get(name)
        for _ in range(_DEPTH):
            if member is None or not (member.issym() or member.islnk()):
                break
            # Layers that an image has twice are links in archives of older programs.
            target = Path(member.name).parent / member.linkname if member.issym() else None
            member = self._members.get(_plain(str(target or member.linkname)))
        if member is None or not member.isreg():
            raise SourceError(f"image: {self.path} is damaged: it lacks {name}")
        return member.offset_data, member.size

    def read(self, name: str) -> bytes:
        """A small entry. SourceError."""
        offset, size = self.place(name)
        if size > LARGEST:
            raise SourceError(f"image: {self.path} is damaged: {name} is too large")
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)


def _plain(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def docker_archive(path: Path) -> Recipe:
    """The only image of a `docker save` or `podman save` archive. SourceError."""
    with Archive(path) as archive:
        wrapped = b'{"images":' + archive.read("manifest.json") + b"}"
        images = document(wrapped, f"image: {path}")["images"]
        if not isinstance(images, list) or len(images) != 1:
            raise SourceError(f"image: {path} must hold one image; save one by itself")
        entry = images[0]
        layers = []
        for name in entry["Layers"]:
            offset, size = archive.place(name)
            layers.append(Layer("", "", size, path, offset))
        return compose(archive.read(entry["Config"]), layers, f"image: {path}")


def oci_archive(path: Path) -> Recipe:
    """The only image for this machine of an OCI archive. SourceError."""
    what = f"image: {path}"
    with Archive(path) as archive:
        found: dict[str, Any] = document(archive.read("index.json"), what)
        for _ in range(_DEPTH):
            if "manifests" not in found:
                break
            entry = choose(found, what)
            found = document(_blob(archive, entry.get("digest"), what), what)
        layers = []
        for entry in found.get("layers") or []:
            digest = _checked(entry.get("digest"), what)
            offset, size = archive.place(f"blobs/{digest.replace(':', '/')}")
            layers.append(Layer(digest, "", size, path, offset))
        config = _blob(archive, (found.get("config") or {}).get("digest"), what)
        return compose(config, layers, what)


def _checked(digest: object, what: str) -> str:
    if not isinstance(digest, str) or DIGEST.fullmatch(digest) is None:
        raise SourceError(f"{what} is damaged: '{digest}' is no sha256 digest")
    return digest


def _blob(archive: Archive, wanted: object, what: str) -> bytes:
    digest = _checked(wanted, what)
    content = archive.read(f"blobs/{digest.replace(':', '/')}")
    if sha256(content) != digest:
        raise SourceError(f"{what} is damaged: {digest} has other content")
    return content


def squashfs_offset(path: Path) -> int:
    """Where the squashfs image of a squashfs or SIF file begins. SourceError."""
    with open(path, "rb") as file:
        head = file.read(_SIF_HEADER.size)
        if head.startswith(_SQUASHFS_MAGIC):
            return 0
        if len(head) < _SIF_HEADER.size or head[32:42] != _SIF_MAGIC:
            raise SourceError(f"image: {path} is neither a squashfs nor a SIF image")
        *_, total, start, _length, _data, _size = _SIF_HEADER.unpack(head)
        file.seek(start)
        for _ in range(min(total, 1000)):
            fields = _SIF_DESCRIPTOR.unpack(file.read(_SIF_DESCRIPTOR.size))
            kind, used, offset, extra = fields[0], fields[1], fields[5], fields[-1]
            shape, purpose = struct.unpack_from("<ii", extra)
            if used and kind == _SIF_PARTITION and purpose in _SIF_SYSTEM:
                if shape != _SIF_SQUASHFS:
                    raise SourceError(f"image: {path} holds no squashfs file system")
                return int(offset)
    raise SourceError(f"image: {path} holds no file system")
