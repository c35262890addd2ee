"""`moorage storage cp|sync|du` and the upload of a mount's sources, as commands."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.data.objects.bucket import open_bucket
from system.cli_harness import Command
from testbed.stores import StoreServer

STORE = "lab"


@pytest.fixture(scope="module")
def moorage(tmp_path_factory: pytest.TempPathFactory, seaweed: StoreServer) -> Iterator[Command]:
    command = Command(tmp_path_factory.mktemp("home"))
    secrets = seaweed.access.secrets
    added = command(
        *("store", "add", STORE, "--type", "s3", "--endpoint", seaweed.endpoint),
        *("--region", "us-east-1", "--path-style"),
        *("--access-key-id", secrets["access_key_id"]),
        stdin=f"{secrets['secret_access_key']}\n",
    )
    assert added.code == 0, added.err
    yield command
    command.end()


def grow(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def names(root: Path) -> list[str]:
    return sorted(one.name for one in root.iterdir())


def test_copies_and_mirrors(moorage: Command, seaweed: StoreServer, tmp_path: Path) -> None:
    bucket = seaweed.make_bucket()
    place = f"{STORE}://{bucket}"
    source = grow(tmp_path / "in", a="1", d__b="22", skipped="x")
    (source / ".moorageignore").write_text("skipped\n.moorageignore\n")
    (source / "link").symlink_to("a")

    sent = moorage("storage", "cp", str(source), f"{place}/set")
    assert (sent.code, sent.out) == (0, "")
    assert "2 files, 3 B" in sent.err
    assert "1 link left out" in sent.err
    assert seaweed.listing(bucket) == {"set/a": 1, "set/d/b": 2}

    one = moorage("storage", "cp", f"{place}/set/a", f"{tmp_path}/into/")
    assert one.code == 0, one.err
    assert (tmp_path / "into/a").read_text() == "1"
    moorage("storage", "cp", str(source / "a"), f"{place}/up/")
    moorage("storage", "cp", str(source / "a"), f"{place}/named")
    assert set(seaweed.listing(bucket)) == {"set/a", "set/d/b", "up/a", "named"}

    planned = moorage("storage", "sync", "-n", "--delete", f"{place}/set", str(tmp_path / "in"))
    assert planned.code == 0
    assert "delete skipped\n" in planned.out
    assert (source / "skipped").exists()

    back = moorage("storage", "sync", "--json", f"{place}/set", f"{tmp_path}/back")
    told = json.loads(back.out)
    assert (told["files"], told["bytes"], told["problems"]) == (2, 3, [])
    assert back.err == ""  # no progress in a pipe
    again = moorage("storage", "sync", "--json", f"{place}/set", f"{tmp_path}/back")
    assert json.loads(again.out)["unchanged"] == 2

    other = moorage("storage", "cp", f"{place}/set", f"{place}/copy")
    assert other.code == 0, other.err
    counted = moorage("storage", "du", "--json", place)
    parts = {one["name"]: one["objects"] for one in json.loads(counted.out)["parts"]}
    assert parts == {"set/": 2, "up/": 1, "named": 1, "copy/": 2}
    assert "total" in moorage("storage", "du", place).out


def test_a_mirror_onto_another_place_needs_a_yes(
    moorage: Command, seaweed: StoreServer, tmp_path: Path
) -> None:
    bucket = seaweed.make_bucket()
    place = f"{STORE}://{bucket}"
    seaweed.write(bucket, "set/a", b"1")
    wrong = grow(tmp_path / "work", thesis="all of it")
    mirror = ("storage", "sync", "--delete", f"{place}/set", str(wrong))
    refused = moorage(*mirror)
    said = f"nothing of {place}/set is in {wrong}, where 1 file would go"
    assert refused.err == f"moorage: error: {said}; look with --dry-run, then add --yes\n"
    assert f"warning: {said}\n" in moorage(*mirror, "-n").err
    with moorage.on_terminal(*mirror, columns=200) as terminal:
        terminal.expect(f"{said}. Delete? [y/N] ")
        terminal.type("n\n")
        assert terminal.end() == 1
    assert names(wrong) == ["thesis"]
    assert moorage(*mirror, "--yes").code == 0
    assert names(wrong) == ["a"]
    grow(wrong, more="2")
    assert moorage(*mirror).code == 0  # it is the place
    assert names(wrong) == ["a"]


def test_one_file_lands_in_a_directory(
    moorage: Command, seaweed: StoreServer, tmp_path: Path
) -> None:
    bucket = seaweed.make_bucket()
    source = grow(tmp_path / "in", a="1")
    os.mkfifo(source / "pipe")
    assert moorage("storage", "sync", str(source / "a"), f"{STORE}://{bucket}").code == 0
    assert moorage("storage", "sync", f"{STORE}://{bucket}/a", f"{tmp_path}/to/").code == 0
    assert (tmp_path / "to/a").read_text() == "1"
    told = moorage("storage", "sync", str(source), f"{STORE}://{bucket}")
    assert "1 special file left out" in told.err


@pytest.mark.parametrize(
    ("source", "target", "code", "said"),
    [
        ("./here", "./there", 2, "both SRC and DST are on this machine"),
        ("./missing", "{place}/x", 2, "missing: no such file or directory"),
        ("{place}/nothing", ".", 3, "there is no such object, and nothing below it"),
        ("lab://no-such-bucket-1/x", ".", 3, "there is no such bucket"),
        ("nostore://b/x", ".", 3, "there is no store nostore"),
        ("s3://", ".", 2, "SRC: the name of a bucket is missing"),
        ("s3://key:secret@bucket/x", ".", 2, "contains credentials"),
        ("", ".", 2, "SRC: it is empty"),
        ("-", "{place}/x", 2, "SRC: standard input and output are no place; write ./- for a"),
    ],
)
def test_what_is_wrong_is_one_line(
    moorage: Command, seaweed: StoreServer, tmp_path: Path,
    source: str, target: str, code: int, said: str,
) -> None:  # fmt: skip
    place = f"{STORE}://{seaweed.make_bucket()}"
    (tmp_path / "here").mkdir()
    words = [word.format(place=place) for word in (source, target)]
    done = moorage("storage", "cp", *words, cwd=tmp_path)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert "secret" not in done.err


def test_a_store_that_does_not_answer_is_said_while_it_is_waited_for(moorage: Command) -> None:
    away = ("--type", "s3", "--anonymous", "--endpoint", "http://127.0.0.1:9")
    assert moorage("store", "add", "away", *away).code == 0
    with moorage.on_terminal("storage", "cp", "away://bucket/x", ".") as terminal:
        terminal.expect("away://bucket does not answer; it is tried for 20s, or 60s where")
        began = time.monotonic()
        terminal.interrupt()
        assert terminal.end() != 0
    assert time.monotonic() - began < 15, "Ctrl-C waits for the store"
    assert moorage("store", "delete", "away", "-y").code == 0


def test_a_terminal_shows_progress(moorage: Command, seaweed: StoreServer, tmp_path: Path) -> None:
    bucket = seaweed.make_bucket()
    (tmp_path / "large").write_bytes(os.urandom(20 * 2**20))
    terminal = moorage.on_terminal(
        "storage", "cp", str(tmp_path / "large"), f"{STORE}://{bucket}/large"
    )
    with terminal:
        assert terminal.end() == 0
    shown = terminal.text
    assert "copying" in shown
    assert "1 file, 20 MB" in shown


def test_sources_of_a_mount_are_sent_before_the_run(
    moorage: Command, seaweed: StoreServer, tmp_path: Path
) -> None:
    grow(tmp_path / "set", a="1", d__b="22")
    name = f"sources-{os.getpid()}"
    file = tmp_path / "run.yml"
    file.write_text(f"""
type: task
file_mounts:
  /data: {{name: {name}, source: ./set, store: {STORE}, mode: COPY}}
commands: [cat /data/a /data/d/b]
""")
    planned = moorage("plan", "-f", str(file))
    assert f"./set -> {STORE}://{name}: 2 files; 3 B to send" in planned.out, planned
    assert name not in seaweed.buckets()
    sent = moorage("apply", "-y", "-f", str(file))
    assert sent.code == 0, sent.err
    assert sent.out == "122"
    assert seaweed.listing(name) == {"a": 1, "d/b": 2}
    assert "nothing to send" in moorage("plan", "-f", str(file)).out


def test_uploads_that_nobody_finished(moorage: Command, seaweed: StoreServer) -> None:
    name = seaweed.make_bucket()
    place, uploads = f"{STORE}://{name}", open_bucket(seaweed.access, name).uploads
    for key in ("a/one", "ab"):
        uploads._asked("POST", key, {"uploads": ""})
    assert moorage("storage", "adopt", place).code == 0
    for *words, shown in (("du", place), ("show", name), ("ls", "--check")):
        told = moorage("storage", *words, shown)
        assert "2 unfinished uploads, 0 B, the oldest begun " in told.out + told.err
        where = name if shown == "--check" else shown
        assert f"perhaps under way; moorage storage cleanup {where} " in told.out + told.err
    assert json.loads(moorage("storage", "show", name, "--json").out)["unfinished"]["uploads"] == 2
    kept = moorage("storage", "cleanup", place)
    assert "0 unfinished uploads removed, 2 begun later stay" in kept.err
    now = ("--older-than", "0s")
    shown = moorage("storage", "cleanup", f"{place}/a", *now, "--dry-run", "--json")
    assert json.loads(shown.out)["removed"] == [f"{place}/a/one"]
    done = moorage("storage", "cleanup", f"{place}/a", *now)
    assert (done.code, done.out.split(",")[0]) == (0, f"{place}/a/one")
    assert [one.key for one in uploads.listed()] == ["ab"]
    for where, code, said in (
        ("/tmp", 2, "/tmp is no bucket"),
        ("nowhere-here", 3, "there is no storage nowhere-here"),
        (f"{STORE}://nowhere-here", 3, f"{STORE}://nowhere-here: there is no such bucket"),
    ):
        refused = moorage("storage", "cleanup", where, *now)
        assert refused.code == code
        assert said in refused.err
    up = moorage("storage", "cp", "/etc/hostname", f"{name}/a/../b")
    assert (up.code, "DST: the path has an empty part, '.' or '..'" in up.err) == (2, True)
