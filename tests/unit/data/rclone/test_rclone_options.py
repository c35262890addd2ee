"""What rclone is told, by mode and preset."""

from __future__ import annotations

from typing import Any

import pytest

from moorage.data.rclone import options
from moorage.data.rclone.options import TABLE, arguments, remote, shown, variables
from moorage.specs.mounts import Bucket, CacheOptions


def told(**more: Any) -> dict[str, str]:
    """Options and their values; empty for flags."""
    bucket = Bucket("/data", store="s3", bucket="b", **more)
    words = arguments(bucket, remote(bucket, bucket.path), "at")
    assert words[:3] == ["mount", remote(bucket, bucket.path), "at"]
    found: dict[str, str] = {}
    name = ""
    for word in words[3:]:
        if word.startswith("--"):
            name, found[word] = word, ""
        else:
            found[name] = word
    return found


def test_a_mount_keeps_nothing_and_a_cached_one_all() -> None:
    plain, cached = told(), told(mode="cached")
    assert plain["--vfs-cache-mode"] == "off"
    assert cached["--vfs-cache-mode"] == "full"
    only = {"--vfs-write-back", "--vfs-cache-max-size", "--vfs-fast-fingerprint", "--transfers"}
    assert only <= cached.keys()
    assert not only & plain.keys()
    assert (plain["--dir-cache-time"], cached["--dir-cache-time"]) == ("5s", "10s")


def test_who_streams_leaves_little_unread() -> None:
    plain, cached = told(), told(mode="cached")
    assert (plain["--buffer-size"], plain["--vfs-read-chunk-size"]) == ("4Mi", "4Mi")
    assert "--no-checksum" in plain
    assert not {"--buffer-size", "--vfs-read-chunk-size", "--no-checksum"} & cached.keys()


def test_read_only() -> None:
    assert "--read-only" not in told()
    assert {"--read-only", "--use-server-modtime"} <= told(read_only=True).keys()


@pytest.mark.parametrize(
    ("preset", "chunk", "streams", "transfers"),
    [
        ("model-checkpoint-rw", "32Mi", "16", "8"),
        ("model-checkpoint-ro", "32Mi", "16", "8"),
        ("dataset-rw", "8Mi", "0", "16"),
        ("dataset-ro", "8Mi", "0", "16"),
    ],
)
def test_presets(preset: Any, chunk: str, streams: str, transfers: str) -> None:
    found = told(mode="cached", preset=preset)
    assert found["--vfs-read-chunk-size"] == chunk
    assert found["--vfs-read-chunk-streams"] == streams
    assert found["--transfers"] == transfers


def test_a_download_runs_ahead_of_its_reader() -> None:
    assert told(mode="cached")["--vfs-read-ahead"] == "8Mi"
    assert "--vfs-read-ahead" not in told(mode="mount")


def test_what_is_asked_for_wins() -> None:
    cache = CacheOptions(4, 1, 2, 3.5, 5, 6, 7, 0.25)
    found = told(mode="cached", preset="dataset-rw", cache=cache)
    assert found["--transfers"] == "4"
    assert found["--buffer-size"] == "1B"
    assert found["--vfs-cache-max-size"] == "2B"
    assert found["--vfs-cache-max-age"] == "3.5s"
    assert found["--vfs-read-ahead"] == "5B"
    assert found["--vfs-read-chunk-size"] == "6B"
    assert found["--vfs-read-chunk-streams"] == "7"
    assert found["--vfs-write-back"] == "0.25s"


def test_no_secret_is_a_word() -> None:
    bucket = Bucket("/data", store="s3", bucket="b")
    env = variables(bucket, {"type": "s3", "secret_access_key": "hidden"})
    assert env["RCLONE_CONFIG_BUCKET_SECRET_ACCESS_KEY"] == "hidden"
    assert env["RCLONE_CONFIG"] == "/dev/null"
    assert not any("hidden" in word for word in arguments(bucket, "bucket:b", "at"))


def test_a_small_machine_gets_more_threads_than_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = Bucket("/data", store="s3", bucket="b")
    monkeypatch.setattr(options.os, "sched_getaffinity", lambda _pid: {0, 1})
    assert variables(bucket, {})["GOMAXPROCS"] == "4"
    monkeypatch.setattr(options.os, "sched_getaffinity", lambda _pid: set(range(8)))
    assert "GOMAXPROCS" not in variables(bucket, {})


def test_one_object_is_shown_by_a_pattern_that_means_no_other() -> None:
    bucket = Bucket("/data", bucket="b", path="a/x[1]*?{}.txt")
    words = arguments(bucket, remote(bucket, "a"), "at", "x[1]*?{}.txt")
    assert words[1] == "bucket:b/a"
    assert words[-2:] == ["--include", r"/x\[1\]\*\?\{\}.txt"]


def test_the_name_in_the_table_of_mounts_has_no_odd_letters() -> None:
    assert shown(Bucket("/d", store="s3", bucket="b", path="a, b")) == "moorage:s3/b/a__b"


def test_each_line_has_a_reason_and_stands_once() -> None:
    names = [row.option for row in TABLE]
    assert len(names) == len(set(names))
    assert all(row.why for row in TABLE)
    assert options.REMOTE.islower()
