"""What a directory can do, tried as a program: `python bucket_probe.py DIRECTORY`. One line of
JSON for each thing: its name, and `yes`, `no`, or the name of the error."""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def write(path: Path, content: bytes, flags: int = os.O_CREAT | os.O_TRUNC) -> None:
    descriptor = os.open(path, os.O_WRONLY | flags, 0o644)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def read_back(top: Path) -> bool:
    write(top / "read", b"content")
    return (top / "read").read_bytes() == b"content"


def overwrite(top: Path) -> bool:
    write(top / "over", b"first content")
    write(top / "over", b"second")
    return (top / "over").read_bytes() == b"second"


def append(top: Path) -> bool:
    write(top / "append", b"one")
    write(top / "append", b"two", os.O_APPEND)
    return (top / "append").read_bytes() == b"onetwo"


def random_write(top: Path) -> bool:
    write(top / "random", b"0123456789")
    descriptor = os.open(top / "random", os.O_RDWR)
    try:
        os.pwrite(descriptor, b"X", 5)
    finally:
        os.close(descriptor)
    return (top / "random").read_bytes() == b"01234X6789"


def seek_new(top: Path) -> bool:
    descriptor = os.open(top / "seek", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.pwrite(descriptor, b"0123456789", 0)
        os.pwrite(descriptor, b"X", 5)
    finally:
        os.close(descriptor)
    return (top / "seek").read_bytes() == b"01234X6789"


def child(top: Path) -> bool:
    with open(top / "child", "wb", buffering=0) as file:
        file.write(b"one")
        subprocess.run(["true"], check=True)  # has the file too, until it executes
        file.write(b"two")
    return (top / "child").read_bytes() == b"onetwo"


def truncate(top: Path) -> bool:
    write(top / "truncate", b"0123456789")
    with open(top / "truncate", "r+b") as file:
        file.truncate(4)
    return (top / "truncate").read_bytes() == b"0123"


def truncate_path(top: Path) -> bool:
    write(top / "path", b"0123456789")
    os.truncate(top / "path", 4)
    return (top / "path").read_bytes() == b"0123"


def rename_file(top: Path) -> bool:
    write(top / "from", b"new")
    write(top / "to", b"old")
    (top / "from").replace(top / "to")
    (top / "to").rename(top / "further")
    return (top / "further").read_bytes() == b"new" and not (top / "to").exists()


def rename_directory(top: Path) -> bool:
    (top / "dir" / "below").mkdir(parents=True)
    write(top / "dir" / "below" / "file", b"x")
    (top / "dir").rename(top / "moved")
    return (top / "moved" / "below" / "file").read_bytes() == b"x"


def empty_directory(top: Path) -> bool:
    (top / "empty").mkdir()
    return (top / "empty").is_dir()


def symlink(top: Path) -> bool:
    (top / "link").symlink_to("read")
    return (top / "link").readlink() == Path("read")


def hardlink(top: Path) -> bool:
    os.link(top / "read", top / "hard")
    return (top / "hard").stat().st_nlink == 2


def chmod(top: Path) -> bool:
    write(top / "mode", b"x")
    (top / "mode").chmod(0o600)
    if os.geteuid() == 0:
        os.chown(top / "mode", 12, 34)
    status = (top / "mode").stat()
    return stat.S_IMODE(status.st_mode) == 0o600 and status.st_uid in (12, os.geteuid() or 12)


def mtime(top: Path) -> bool:
    write(top / "time", b"x")
    os.utime(top / "time", (1e9, 1e9))
    return (top / "time").stat().st_mtime == 1e9


def xattr(top: Path) -> bool:
    os.setxattr(top / "read", "user.one", b"1")
    return os.getxattr(top / "read", "user.one") == b"1"


LOCK = """
import fcntl, sys
with open(sys.argv[1], sys.argv[3]) as file:
    try:
        getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(0)
sys.exit(1)
"""


def excludes(path: Path, call: str, how: str) -> bool:
    """Whether a lock here keeps another process from the same."""
    write(path, b"x")
    with open(path, how) as file:
        getattr(fcntl, call)(file, fcntl.LOCK_EX)
        second = subprocess.run([sys.executable, "-c", LOCK, str(path), call, how], check=False)
    return second.returncode == 0


def flock(top: Path) -> bool:
    return excludes(top / "flock", "flock", "rb")


def fcntl_lock(top: Path) -> bool:
    return excludes(top / "fcntl", "lockf", "r+b")


def mmap_read(top: Path) -> bool:
    with (
        open(top / "read", "rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
    ):
        return mapped[:] == b"content"


def mmap_write(top: Path) -> bool:
    write(top / "mapped", b"0" * 8192)
    with open(top / "mapped", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0] = 1
        mapped.flush()
    return (top / "mapped").read_bytes()[0] == 1


def unlinked(top: Path) -> bool:
    write(top / "unlinked", b"content")
    with open(top / "unlinked", "rb") as file:
        (top / "unlinked").unlink()
        return file.read() == b"content"


PROBES: tuple[Callable[[Path], bool], ...] = (
    read_back,
    overwrite,
    append,
    random_write,
    seek_new,
    child,
    truncate,
    truncate_path,
    rename_file,
    rename_directory,
    empty_directory,
    symlink,
    hardlink,
    chmod,
    mtime,
    xattr,
    flock,
    fcntl_lock,
    mmap_read,
    unlinked,
    mmap_write,
)
"""The last one may kill this process."""


def main() -> None:
    for probe in PROBES:
        try:
            found = "yes" if probe(Path(sys.argv[1])) else "no"
        except OSError as error:
            found = errno.errorcode.get(error.errno or 0, str(error))
        print(json.dumps([probe.__name__.replace("_", "-"), found]), flush=True)


if __name__ == "__main__":
    main()
