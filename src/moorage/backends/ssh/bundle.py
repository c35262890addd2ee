"""What an agent needs to run, in one file: our package and what it imports, as the server has
them, so that no host needs a package index.

The same installation gives the same file, byte for byte: names in order, no times, no owners. Only
the parts of our package that an agent imports go in, so that a change of the server alone
replaces no agents.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import platform
import re
import sys
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from moorage.backends.ssh import parts
from moorage.backends.ssh.interface import Bundle
from moorage.errors import Unavailable

NEEDED = ("backports.zstd", "blake3", "msgspec", "nvidia-ml-py", "websockets")
"""Distributions that the agent imports; a test starts one with nothing else."""
PARTS = ("agent", "data", "protocol", "specs")
"""Packages of ours that it imports, besides the modules beside them."""
KEPT = 3
"""Bundles of other versions that stay in the cache."""
_LEFT_OUT = re.compile(r"(^|/)(__pycache__|tests?|include|\.\.)(/|$)|\.(pyc|pyi|c|h|pyx|pxd)$")
_SYMBOL = re.compile(rb"GLIBC_2\.(\d+)\b")
_OLDEST = (2, 17)


class Bundles:
    """A cache below the server's home."""

    def __init__(self, home: Path) -> None:
        self._directory = home / "server" / "bundles"

    def make(self) -> Bundle:
        """The bundle of the installation that runs this. Blocks for a second where it is not
        cached yet. Unavailable where it cannot be written or part of it is missing."""
        files = dict(sorted(contents()))
        digest = _digest(files)
        path = self._directory / f"{digest}.tar.gz"
        try:
            if not path.exists():
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                partial = path.with_suffix(f".{os.getpid()}")
                partial.write_bytes(pack(files))
                partial.replace(path)
                self._tidy(path)
            size = path.stat().st_size
        except OSError as error:
            raise Unavailable(f"the agent for hosts cannot be packed: {error}") from None
        oldest = max((needs_glibc(body) for body in files.values()), default=_OLDEST)
        python = (sys.version_info[0], sys.version_info[1])
        return Bundle(digest, path, size, python, platform.machine(), oldest)

    def _tidy(self, used: Path) -> None:
        with suppress(OSError):
            found = [p for p in self._directory.glob("*.tar.gz") if p != used]
            found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            for path in found[KEPT:]:
                path.unlink()


def contents() -> Iterator[tuple[str, bytes]]:
    """Name in the bundle and content of each file. Unavailable."""
    yield from _ours()
    for name in NEEDED:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise Unavailable(f"the package {name} is not installed beside the server") from None
        for file in distribution.files or ():
            place = file.as_posix()
            if not _LEFT_OUT.search(place) and (".dist-info/" not in place):
                path = Path(str(distribution.locate_file(file)))
                if path.is_file():
                    yield place, path.read_bytes()


def _ours() -> Iterator[tuple[str, bytes]]:
    """Found beside this file: that holds for a wheel and for a checkout."""
    root = Path(__file__).parents[2]
    for path in [*root.glob("*.py"), *(p for part in PARTS for p in (root / part).rglob("*"))]:
        place = f"moorage/{path.relative_to(root).as_posix()}"
        if path.is_file() and not _LEFT_OUT.search(place):
            yield place, path.read_bytes()
    if storage := parts.digest():
        yield parts.MARK, f"{storage}\n".encode()
    version = metadata.version("moorage")
    # What importlib.metadata reads the version from.
    yield (
        f"moorage-{version}.dist-info/METADATA",
        f"Metadata-Version: 2.1\nName: moorage\nVersion: {version}\n".encode(),
    )


def _digest(files: dict[str, bytes]) -> str:
    """32 hexadecimal digits for what is in it and what it runs on."""
    about = hashlib.sha256(f"1 {sys.implementation.cache_tag} {platform.machine()}\n".encode())
    for name, body in files.items():
        about.update(f"{name}\0{hashlib.sha256(body).hexdigest()}\n".encode())
    return about.hexdigest()[:32]


def pack(files: dict[str, bytes]) -> bytes:
    """The compressed tar of these, the same for the same files. gzip: each Python reads it."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(body), 0o644
            tar.addfile(entry, io.BytesIO(body))
    return gzip.compress(plain.getvalue(), 6, mtime=0)


def needs_glibc(body: bytes) -> tuple[int, int]:
    """The oldest glibc that an ELF file runs with, by the versions of the symbols it wants."""
    if not body.startswith(b"\x7fELF"):
        return _OLDEST
    return max([_OLDEST, *((2, int(minor)) for minor in _SYMBOL.findall(body))])
