"""How rclone is told to mount: one table, each line with its reason.

`MOUNT` streams: nothing is kept on the node, and `close` returns when the object is in the bucket,
with an error where it is not. Of rclone's cache modes only `off` does that: in `writes` and
`full`, also with `--vfs-write-back 0`, the upload belongs to the release of the file, which the
kernel does after `close` has returned. `MOUNT_CACHED` is mode `full`: a file on the node's disk
behind each object, uploaded in the background.

`fsync` never waits for the store, in any of them: with a cache it reaches the node's disk, without
one it does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from moorage.specs.mounts import Bucket

PLAIN, LARGE = "mount", "mount2"
"""rclone's two ways to the kernel: requests of 128 KiB, and of 1 MiB where the kernel has them
(4.20), which halve what writing costs, and a stream's reading too. The second is taken where there
is one; all else is the same in both, but that the first refuses hard links with another error."""
_FEWEST = 4
"""Threads of rclone that may run at once: with fewer each write waits for one to be woken."""
REMOTE = "bucket"
"""What rclone calls the store, in `RCLONE_CONFIG_BUCKET_*`."""
SOCKET, LOG, CACHE = "rc", "log", "cache"
"""In the mount's directory, which is rclone's working directory."""
GRACE = 5.0
"""Seconds until another node's change is seen in a listing (`MOUNT`)."""
CACHED_GRACE = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """One option: its value for a bucket, None where it is left out; and why."""

    option: str
    value: Callable[[Bucket], str | None]
    why: str


def _always(text: str) -> Callable[[Bucket], str | None]:
    return lambda _bucket: text


def _cached(value: Callable[[Bucket], object]) -> Callable[[Bucket], str | None]:
    def found(bucket: Bucket) -> str | None:
        given = value(bucket) if bucket.mode == "cached" else None
        return None if given is None else str(given)

    return found


def _streamed(text: str, cached: Callable[[Bucket], str | None]) -> Callable[[Bucket], str | None]:
    return lambda bucket: cached(bucket) if bucket.mode == "cached" else text


def _model(bucket: Bucket) -> bool:
    return (bucket.preset or "").startswith("model")


def _presets(model: str, dataset: str, none: str | None) -> Callable[[Bucket], str | None]:
    return lambda b: none if b.preset is None else model if _model(b) else dataset


def _or(given: object, default: str | None, unit: str) -> str | None:
    return default if given is None else f"{given}{unit}"


TABLE: tuple[Row, ...] = (
    Row("--vfs-cache-mode", lambda b: "full" if b.mode == "cached" else "off",
        "off: close waits for the upload; full: random writes, append and mmap work"),
    Row("--allow-other", lambda _: "" if os.geteuid() == 0 else None,
        "the job may run as another user than the agent; others may say so only in fuse.conf"),
    Row("--umask", _always("022"), "its own, 077, would tell all but root that they may not"),
    Row("--read-only", lambda b: "" if b.read_only else None, "refused at once, not at the store"),
    Row("--vfs-links", _always(""), "without it making a symlink fails with EIO; Hugging Face's "
        "cache makes them"),
    Row("--dir-cache-time", lambda b: f"{CACHED_GRACE if b.mode == 'cached' else GRACE:g}s",
        "how long a listing may be old: stores do not tell of changes"),
    Row("--timeout", _always("1m"), "how long a connection may stand still: who reads from a "
        "store that went away can be ended only when the read has failed"),
    Row("--poll-interval", _always("0"), "object stores have no changes to poll for"),
    Row("--use-server-modtime", lambda b: "" if b.read_only else None,
        "else S3 is asked once for each file of a listing; what is written keeps its own time"),
    Row("--vfs-fast-fingerprint", _cached(lambda b: ""),
        "else each open asks for the hash or time of the object"),
    Row("--vfs-write-back", _cached(lambda b: _or(b.cache.write_back, "5s", "s")),
        "uploads take the machine from whoever goes on writing: the parts of a checkpoint are all "
        "there before the first one leaves, and one that is renamed meanwhile is sent once; at "
        "the job's end nobody waits for it"),
    Row("--vfs-cache-max-size", _cached(lambda b: _or(b.cache.cache_size, "10Gi", "B")),
        "what is uploaded is dropped beyond it; what is not, never"),
    Row("--vfs-cache-max-age", _cached(lambda b: _or(b.cache.cache_age, "8760h", "s")),
        "the cache goes with the job: only its size should end a file's stay"),
    Row("--vfs-cache-min-free-space", _cached(lambda b: "512Mi"),
        "uploaded files give way before the node's disk is full"),
    Row("--vfs-cache-poll-interval", _cached(lambda b: "10s"),
        "fast writers pass the limit of the cache by ten seconds' worth, not by a minute's"),
    Row("--vfs-read-ahead", _cached(lambda b: _or(b.cache.read_ahead, "8Mi", "B")),
        "no more than the buffer has anyway; without it a download rests at the end of each "
        "request, and one read of 180 that came at that moment waited five seconds for it"),
    Row("--vfs-read-chunk-size", _streamed("4Mi",
        lambda b: _or(b.cache.chunk_size, _presets("32Mi", "8Mi", None)(b), "B")),
        "cached: large files come in large pieces, many small ones without waste; streamed: who "
        "reads here and there leaves less unread, and pieces double for who reads on"),
    Row("--vfs-read-chunk-streams",
        _cached(lambda b: _or(b.cache.chunk_streams, _presets("16", "0", None)(b), "")),
        "one stream does not fill a link to a store; many small files fill it by themselves"),
    Row("--transfers",
        _cached(lambda b: _or(b.cache.transfers, _presets("8", "16", "8")(b), "")),
        "uploads side by side; rclone's own 4 leaves fast stores idle"),
    Row("--buffer-size", _streamed("4Mi", lambda b: _or(b.cache.buffer_size, None, "B")),
        "cached: rclone's 16Mi, all that is read ahead; streamed: the kernel reads ahead too, and "
        "what is in the buffer is thrown away by each read elsewhere"),
    Row("--no-checksum", _streamed("", lambda b: None),
        "a third of what streaming costs; it is compared when the content has been used already, "
        "and what was uploaded in parts has none"),
)  # fmt: skip

_FIXED = (
    # Only who may enter the mount's directory, the agent, reaches the socket.
    ("--rc", ""),
    ("--rc-addr", f"unix://./{SOCKET}"),
    ("--rc-no-auth", ""),
    ("--log-file", LOG),
    ("--log-level", "NOTICE"),
    ("--cache-dir", CACHE),
)


def arguments(bucket: Bucket, remote: str, place: str, name: str = "") -> list[str]:
    """The words after `rclone`: mount `remote` at `place`; `name`: show this object only."""
    words = [PLAIN, remote, place, "--devname", shown(bucket)]
    for option, value in _all(bucket):
        words += [option] if value == "" else [option, value]
    if name:
        words += ["--include", f"/{_escaped(name)}"]
    return words


def _all(bucket: Bucket) -> Iterator[tuple[str, str]]:
    yield from _FIXED
    for row in TABLE:
        if (value := row.value(bucket)) is not None:
            yield row.option, value


def variables(bucket: Bucket, options: Mapping[str, str]) -> dict[str, str]:
    """The remote, and what else only variables say; nothing secret is ever a word."""
    env = {
        "RCLONE_CONFIG": os.devnull,
        # An object whose size is not known beforehand has 10,000 parts at most: 312 GiB. With a
        # cache the size is known and parts grow with it.
        "RCLONE_S3_CHUNK_SIZE": "16Mi" if bucket.mode == "cached" else "32Mi",
    }
    if len(os.sched_getaffinity(0)) < _FEWEST:
        env["GOMAXPROCS"] = str(_FEWEST)
    for name, value in options.items():
        env[f"RCLONE_CONFIG_{REMOTE.upper()}_{name.upper()}"] = value
    return env


def remote(bucket: Bucket, path: str) -> str:
    """What rclone calls a place of the bucket."""
    return f"{REMOTE}:{'/'.join(filter(None, (bucket.bucket, path)))}"


def shown(bucket: Bucket) -> str:
    """What /proc/mounts says it is. A comma would end an option of the mount."""
    text = "/".join(filter(None, (bucket.store, bucket.bucket, bucket.path)))
    return f"moorage:{text}".replace(",", "_").replace(" ", "_").replace("\\", "_")


def _escaped(name: str) -> str:
    """As a pattern that means exactly this name."""
    return "".join(f"\\{letter}" if letter in r"*?[]{}\\" else letter for letter in name)
