"""What each mode of buckets gives, line by line: the page `docs/reference/bucket-modes.md` is made
of this table, and `tests/contract/test_bucket_modes.py` tries each line on real mounts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

YES, NO = "yes", "no"


class Promise(NamedTuple):
    """One line. The words begin with what the test finds: `yes`, `no`, or the error's name."""

    key: str
    """What the test calls it."""
    what: str
    mount: str
    cached: str
    copy: str


PROMISES: tuple[Promise, ...] = (
    Promise("read-back", "a file that was closed reads as it was written", YES, YES, YES),
    Promise("stored", "in the bucket when `close` returns",
            "yes: `close` waits, and fails where it cannot be stored",
            "no: seconds later, in the background; always before the job counts as ended",
            "no: never, or with `sync_back: true` before the job counts as ended"),
    Promise("fsync-stored", "in the bucket when `fsync` returns", NO,
            "no: on the node's disk", "no: on the node's disk"),
    Promise("fsync-durable", "likewise, with `durable: fsync`", "no: refused at plan",
            "yes: `fsync` waits, and fails with EIO where it cannot be stored",
            "no: refused at plan"),
    Promise("overwrite", "write a file anew (`O_TRUNC`)", YES, YES, YES),
    Promise("append", "append to a file (`>>` of a shell fails with ESPIPE)", "EPERM", YES, YES),
    Promise("random-write", "write into the middle of a file", "EPERM", YES, YES),
    Promise("seek-new", "go back in a file that is being written", "ESPIPE", YES, YES),
    Promise("child", "go on writing a file after a child process was started meanwhile",
            "EBADF: what was written before is stored then, and the file is closed", YES, YES),
    Promise("truncate", "shorten a file that is open (`ftruncate`)", "EPERM", YES, YES),
    Promise("truncate-path", "shorten a new file by its path (`truncate`)", "EPERM",
            "EIO, as long as it waits for its first upload", YES),
    Promise("rename-file", "rename a file, also over another",
            "yes: the store copies it; not atomic for other nodes",
            "yes: the store copies it; not atomic for other nodes", YES),
    Promise("rename-directory", "rename a directory",
            "ENOENT: all objects are moved, but files just used may still be looked for as before",
            "yes: each object is copied", YES),
    Promise("empty-directory", "an empty directory is there for the next job",
            "no: stores keep objects only", "no: stores keep objects only", NO),
    Promise("symlink", "symbolic links", "yes: an object `NAME.rclonelink`",
            "yes: an object `NAME.rclonelink`", "yes: not uploaded"),
    Promise("hardlink", "hard links", "ENOTSUP: EPERM of an rclone without `mount2`",
            "ENOTSUP: EPERM of an rclone without `mount2`", YES),
    Promise("chmod", "`chmod` and `chown` have an effect", "no: accepted and ignored",
            "no: accepted and ignored", "yes: not uploaded"),
    Promise("mtime", "times that were set are kept", YES, YES, "yes: not uploaded"),
    Promise("xattr", "extended attributes", "ENOTSUP", "ENOTSUP", "yes: not uploaded"),
    Promise("flock", "`flock` between processes of the job on one node", YES, YES, YES),
    Promise("fcntl-lock", "`fcntl` locks for writing, likewise", "EPERM", YES, YES),
    Promise("lock-nodes", "locks between nodes", NO, NO, NO),
    Promise("mmap-read", "`mmap` for reading", YES, YES, YES),
    Promise("mmap-write", "`mmap` for writing (`MAP_SHARED`)",
            "no: the process gets SIGBUS", YES, YES),
    Promise("unlinked", "a file that was removed can still be read by who has it open",
            "ENOENT", "no: it reads as empty", YES),
    Promise("second-writer", "two nodes write one file",
            "the last `close` wins, as a whole file",
            "the last upload wins, as a whole file",
            "a file that changed in the bucket meanwhile is not overwritten, and that is said"),
    Promise("staleness", "a file that another node stored is seen",
            "after 5 s at most", "after 10 s at most", "not before the next job"),
)  # fmt: skip


def page() -> str:
    """The page of the docs."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# What each mode of buckets gives"
    yield ""
    yield "Made from `specs/promises.py` by `scripts/gen_bucket_modes.py`; each line is tried by"
    yield "`tests/contract/test_bucket_modes.py` with rclone on SeaweedFS. An error's name stands"
    yield "where the operation is refused with it."
    yield ""
    yield "| | `mode: MOUNT` | `mode: MOUNT_CACHED` | `mode: COPY` |"
    yield "|---|---|---|---|"
    for one in PROMISES:
        yield f"| {one.what} | {one.mount} | {one.cached} | {one.copy} |"
    yield ""
    yield "`read_only: true` refuses every write with EROFS, in all modes. A job that is killed in"
    yield "the middle of a write leaves that file as far as it was written; in `MOUNT`, not at all"
    yield "where the store does not answer then, and the job is `not-flushed` with its name."
    yield ""
    yield "A mount with `read_only: true` shows when an object was stored, not the time that was"
    yield "set: the one comes with the listing, the other costs a request for each file."
    yield ""
    yield "With `durable: fsync` of `MOUNT_CACHED`, `fsync` and `fdatasync` of a file return when"
    yield "it is in the bucket, of a directory when the files directly in it are, and `syncfs`"
    yield "when all are. `msync`, `sync`, `sync_file_range`, `O_SYNC` and asynchronous `fsync` do"
    yield "not wait."
    yield ""
    yield "In `MOUNT_CACHED` a file that is in the bucket, was written again, and is renamed just"
    yield "while that is uploaded (5 s after `close`, or later) may give EIO; and where the"
    yield "upload ends in the same moment, the file may have its older content under its new"
    yield "name, because rclone lets the store copy what it has. Rename at once after `close`, as"
    yield "programs do that write a temporary file first, or write under the final name. A file"
    yield "that is removed while it is uploaded may come back; so may one that another file was"
    yield "renamed over, if that is removed before its upload."
    yield ""
    yield "Where rclone dies, it is started again within a second, on the same cache: what was"
    yield "closed is not lost and reads as it was written, files that were open then give"
    yield "ENOTCONN, directories in which there was nothing are gone, and a job that runs sees:"
    yield ""
    yield "| after a restart of its mount | of a directory | of a single object |"
    yield "|---|---|---|"
    yield "| agent of root | all of it again, at the same place | ENOTCONN until it ends |"
    yield "| agent of an ordinary user | ENOTCONN until it ends | ENOTCONN until it ends |"
    yield ""
    yield "What happens where a store hangs: [hung stores](../guarantees/hung-stores.md)."
