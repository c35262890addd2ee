"""A program that applies the layers of an image to an empty directory, as a process of its own:
what it does inside that directory it does with the directory as its root, so no link and no `..`
of a layer leads anywhere else. `python -c ... < order`, JSON:

    {"root": "/directory", "mapped": false,
     "layers": [{"path": "/file", "offset": 0, "size": 9, "digest": "sha256:...", "content": ...}]}

It prints one line: `ok SIZE`, in bytes, or what is wrong.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import sys
import tarfile
import zlib
from contextlib import suppress
from typing import IO, Any

from backports import zstd

from moorage.agent.sandbox import mounting

_PIECE = 1024 * 1024
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_XATTR = "SCHILY.xattr."


class Damaged(Exception):
    """One line for the user."""


class _Part(io.RawIOBase):
    """A part of a file, and the digest of what was read of it."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._descriptor, self._offset, self._left = descriptor, offset, size
        self.hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = os.pread(self._descriptor, min(len(buffer), self._left), self._offset)
        self.hash.update(piece)
        self._offset += len(piece)
        self._left -= len(piece)
        buffer[: len(piece)] = piece
        return len(piece)


class _Hashed(io.RawIOBase):
    """A stream, and the digest of what was read of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._stream.read(len(buffer))
        self.hash.update(piece)
        buffer[: len(piece)] = piece
        return len(piece)

    def drain(self) -> None:
        while self.read(_PIECE):
            pass


class Unpacker:
    """Applies layers to `/`, the lowest first."""

    def __init__(self, mapped: bool) -> None:
        self._mapped = mapped
        self._fresh: set[str] = set()
        self._directories: dict[str, float] = {}
        self.size = 0

    def layer(self, descriptor: int, wanted: dict[str, Any]) -> None:
        """One layer, verified. Damaged, OSError."""
        self._fresh = set()
        part = _Part(descriptor, wanted["offset"], wanted["size"])
        content = _Hashed(_expanded(io.BufferedReader(part, _PIECE)))
        try:
            with tarfile.open(fileobj=io.BufferedReader(content, _PIECE), mode="r|") as tar:
                for member in tar:
                    self._apply(tar, member)
            content.drain()
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, zstd.ZstdError) as error:
            raise Damaged(f"a layer cannot be read: {error}") from error
        for known, found in ((wanted["content"], content.hash), (wanted["digest"], part.hash)):
            if known and known != f"sha256:{found.hexdigest()}":
                raise Damaged(f"a layer is not what it should be, {known}")

    def finish(self) -> None:
        """Set the times of directories, which all that was made in them has changed."""
        for path, at in self._directories.items():
            with suppress(OSError):
                os.utime(path, (at, at), follow_symlinks=False)

    def _apply(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = _path(member.name)
        if path is None:
            return
        parent, name = os.path.split(path)
        os.makedirs(parent, 0o755, exist_ok=True)
        if name == _OPAQUE:
            self._clear(parent)
        elif name.startswith(_WHITEOUT):
            hidden = f"{parent.rstrip('/')}/{name.removeprefix(_WHITEOUT)}"
            if hidden not in self._fresh:
                _remove(hidden)
        elif not (member.ischr() or member.isblk()):  # /dev is made for each container
            self._make(tar, member, path)
            self._fresh.add(path)

    def _clear(self, directory: str) -> None:
        """Remove what earlier layers have there."""
        for name in os.listdir(directory):
            path = f"{directory.rstrip('/')}/{name}"
            within = f"{path}/"
            if not (path in self._fresh or any(known.startswith(within) for known in self._fresh)):
                _remove(path)
            elif _is_directory(path):
                self._clear(path)

    def _make(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        if not (member.isdir() and _is_directory(path)):
            _remove(path)
        if member.isdir():
            with suppress(FileExistsError):
                os.mkdir(path)
            self._directories[path] = member.mtime
        elif member.issym():
            os.symlink(member.linkname, path)
        elif member.islnk():
            target = _path(member.linkname)
            if target is None:
                raise Damaged(f"{member.name} is a link to {member.linkname}")
            os.link(target, path, follow_symlinks=False)
            return
        elif member.isfifo():
            os.mkfifo(path)
        elif member.isreg():
            self._write(tar, member, path)
        else:
            raise Damaged(f"{member.name} is of a kind that is not known")
        self._dress(member, path)

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        source = tar.extractfile(member)
        assert source is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "wb") as file:
            shutil.copyfileobj(source, file, _PIECE)
        self.size += member.size

    def _dress(self, member: tarfile.TarInfo, path: str) -> None:
        """Owner, mode, attributes, time; the owner first, because that takes setuid away."""
        if not self._mapped:
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
        if not member.issym():
            os.chmod(path, stat.S_IMODE(member.mode))
        for name, value in member.pax_headers.items():
            if name.startswith(_XATTR):
                with suppress(OSError):
                    content = value.encode(errors="surrogateescape")
                    os.setxattr(path, name.removeprefix(_XATTR), content, follow_symlinks=False)
        if not member.isdir():
            os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


def _expanded(stream: io.BufferedReader) -> IO[bytes]:
    head = stream.peek(4)[:4]
    if head[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]
    if head == b"\x28\xb5\x2f\xfd":
        return zstd.ZstdFile(stream)  # type: ignore[return-value]
    return stream


def _path(name: str) -> str | None:
    """From the root; None for the root itself. Damaged."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Damaged(f"{name} leads out of the image")
    return "/" + "/".join(parts) if parts else None


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
        shutil.rmtree(path)


OF_THE_NODE = 2
"""Exit code where the image is not to blame."""


def main() -> int:
    """Carry out the order on standard input."""
    order = json.load(sys.stdin)  # all that is needed is loaded before the root changes
    try:
        if order["mapped"]:
            _own_namespace()
        files = [os.open(layer["path"], os.O_RDONLY | os.O_CLOEXEC) for layer in order["layers"]]
        os.umask(0)
        os.chdir(order["root"])
        os.chroot(".")
        unpacker = Unpacker(order["mapped"])
        for descriptor, layer in zip(files, order["layers"], strict=True):
            unpacker.layer(descriptor, layer)
        unpacker.finish()
    except Damaged as error:
        print(f"the image is damaged: {error}")
        return 1
    except mounting.MountError as error:
        print(error)
        return OF_THE_NODE
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the node's disk is full" if full else error.strerror
        print(f"{error.filename or 'unpacking'}: {reason}")
        return OF_THE_NODE
    print(f"ok {unpacker.size}")
    return 0


def _own_namespace() -> None:
    """Be root among one's own files: only root may change its root."""
    uid, gid = os.geteuid(), os.getegid()
    mounting.unshare(mounting.CLONE_NEWUSER | mounting.CLONE_NEWNS)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
