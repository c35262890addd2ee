"""`moorage store` and `moorage storage` as a user has them, with real jobs and SeaweedFS."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage import Client
from system.cli_harness import Command, Result
from testbed.stores import StoreServer

TASK = """\
type: task
name: {name}
file_mounts:
  /out: {{name: {bucket}, mode: COPY, sync_back: true, persistent: {persistent}}}
commands:
- echo {name} > /out/{name}
"""

DEFAULT_CHANGED = (
    "moorage: from now on, new buckets written as `name:` without `store:` are made in {now}, "
    "no longer in {was}; `default_store` in the server's config.yml sets it for good\n"
)


@pytest.fixture(scope="module")
def moorage(tmp_path_factory: pytest.TempPathFactory, seaweed: StoreServer) -> Iterator[Command]:
    command = Command(tmp_path_factory.mktemp("home"))
    assert command("server", "start").code == 0
    added = add(command, seaweed)
    assert added.code == 0, added.err
    yield command
    command.end()


def add(command: Command, seaweed: StoreServer, *more: str, name: str = "lab") -> Result:
    access = seaweed.access
    return command(
        *("store", "add", name, "--type", "s3", "--endpoint", access.endpoint, "--path-style"),
        *("--access-key-id", access.secrets["access_key_id"], *more),
        stdin=access.secrets["secret_access_key"] + "\n",
    )


@pytest.fixture
def bucket() -> str:
    return f"cli-{os.urandom(5).hex()}"


def test_a_store_is_added_listed_checked_and_forgotten(
    moorage: Command, seaweed: StoreServer
) -> None:
    added = add(moorage, seaweed, name="other")
    assert added.code == 0
    assert added.out == "store other is declared; it is reached with the keys that were given\n"
    assert added.err == DEFAULT_CHANGED.format(now="moorage", was="lab")
    listed = moorage("store", "ls")
    assert "other" in listed.out
    assert "ENDPOINT" in listed.out
    document = json.loads(moorage("store", "ls", "--json").out)
    assert {one["name"] for one in document["stores"]} >= {"lab", "other", "moorage"}
    shown = moorage("store", "show", "other")
    assert seaweed.endpoint in shown.out
    secret = seaweed.access.secrets["secret_access_key"]
    assert all(secret not in result.out + result.err for result in (added, listed, shown))
    assert moorage("store", "check", "other").out.startswith("other answers in ")
    forgotten = moorage("store", "delete", "other", "-y")
    assert forgotten.out == "store other is forgotten\n"
    assert forgotten.err == DEFAULT_CHANGED.format(now="lab", was="moorage")
    gone = moorage("store", "show", "other")
    assert gone.code == 3
    assert "there is no store other" in gone.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["lab2", "--type", "minio"], "minio is no kind of store; there are s3, gcs"),
        (["s3", "--type", "s3", "--anonymous"], "s3 cannot be the name of a store"),
        (["lab2", "--type", "s3", "--endpoint", "minio", "--anonymous"],
         "minio is no address of a store"),
        (["lab2", "--type", "s3", "--access-key-id", "a"], "the secret is empty"),
        (["lab2", "--type", "s3", "--access-key-id", "a", "--secret-from", "NOT_SET_HERE"],
         "the variable NOT_SET_HERE is not set"),
        (["lab2", "--type", "s3", "--secret-from", "HOME"], "whose secret is it?"),
        (["lab2", "--type", "s3", "--role", "admin"], "admin is no role"),
        (["lab2", "--type", "s3", "--own-credentials", "--access-key-id", "a"],
         "--own-credentials: it is one or the other"),
        (["lab2", "--type", "s3", "--own-credentials", "--anonymous"], "it is one or the other"),
        (["lab2", "--type", "s3", "--anonymous", "--secret-from", "HOME"],
         "--anonymous: it is one or the other"),
        (["lab2", "--type", "s3"], "nothing says which keys it takes; add --access-key-id ID"),
        (["lab2", "--type", "r2", "--access-key-id", "a", "--secret-from", "HOME"],
         "nothing says where Cloudflare R2 is; add --account ACCOUNT, or --endpoint URL"),
        (["lab2", "--type", "vastdata", "--own-credentials"],
         "nothing says where VAST Data is; add --endpoint URL"),
        (["lab2", "--type", "gcs", "--secret-from", "HOME"], "this is no key of Google's"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_one_line(
    moorage: Command, arguments: list[str], told: str
) -> None:
    result = moorage("store", "add", *arguments)
    assert result.code == 2
    assert result.err.startswith("moorage: error: ")
    assert told in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("verb", ["storage show", "storage delete", "store show"])
def test_a_name_that_is_empty_is_called_so(moorage: Command, verb: str) -> None:
    result = moorage(*verb.split(), "")
    said = "moorage: error: a name is empty; is a variable of the shell not set?\n"
    assert (result.code, result.err) == (2, said)


def test_a_dead_store_is_declared_with_a_warning(moorage: Command) -> None:
    result = moorage(
        *("store", "add", "dead", "--type", "s3", "--endpoint", "http://127.0.0.1:9"),
        *("--access-key-id", "a"),
        stdin="b",
    )
    assert result.code == 0
    assert "warning: http://127.0.0.1:9: the store does not answer" in result.err
    assert moorage("store", "check", "dead").code == 1
    assert moorage("store", "delete", "dead", "-y").code == 0


def test_wrong_keys_are_called_wrong(moorage: Command, seaweed: StoreServer) -> None:
    added = moorage(
        *("store", "add", "wrong", "--type", "s3", "--endpoint", seaweed.endpoint),
        *("--path-style", "--access-key-id", "nobody"),
        stdin="a-secret-that-is-wrong",
    )
    assert "the keys are wrong; declare it again: moorage store add wrong ..." in added.err
    checked = moorage("store", "check", "wrong")
    assert (checked.code, moorage("store", "delete", "wrong", "-y").code) == (1, 0)
    assert "a-secret-that-is-wrong" not in added.out + added.err + checked.err


def test_a_store_without_keys_says_what_it_is_reached_with(moorage: Command) -> None:
    own = moorage("store", "add", "own", "--type", "s3", "--own-credentials",
                  "--endpoint", "http://127.0.0.1:9")  # fmt: skip
    assert own.out.endswith("it is reached with the credentials that the server finds by itself\n")
    public = moorage("store", "add", "own", "--type", "s3", "--anonymous",
                     "--endpoint", "http://127.0.0.1:9")  # fmt: skip
    assert public.out.endswith("it is reached without credentials, for public buckets only\n")
    assert moorage("store", "delete", "own", "-y").code == 0


def test_a_name_keeps_its_store_when_the_default_becomes_another(
    moorage: Command, seaweed: StoreServer, bucket: str, tmp_path: Path
) -> None:
    file = tmp_path / "task.yml"
    file.write_text(TASK.format(name="stays-there", bucket=bucket, persistent="true"))
    assert moorage("apply", "-f", str(file), "-y").code == 0
    assert add(moorage, seaweed, name="newer").code == 0
    planned = moorage("plan", "-f", str(file))
    assert planned.code == 0, planned.err
    assert f"data      lab://{bucket} -> /out, COPY: 1 object" in planned.out
    source = tmp_path / "more"
    source.write_text("more")
    assert moorage("storage", "cp", str(source), f"{bucket}/").code == 0
    assert seaweed.read(bucket, "more") == b"more"
    assert moorage("store", "delete", "newer", "-y").code == 0
    assert moorage("storage", "delete", bucket, "-y").code == 0


def test_a_misspelt_name_says_which_there_are(
    moorage: Command, seaweed: StoreServer, bucket: str, tmp_path: Path
) -> None:
    seaweed.make_bucket(bucket)
    assert moorage("storage", "adopt", f"lab://{bucket}").code == 0
    for arguments in (["cp", f"{bucket}x/a", str(tmp_path)], ["cp", str(tmp_path), f"{bucket}x"]):
        result = moorage("storage", *arguments)
        assert result.code == 2
        assert f"there is no storage {bucket}x; did you mean {bucket}?" in result.err
    assert f"did you mean {bucket}?" in moorage("storage", "du", f"{bucket}x").err
    nowhere = moorage("storage", "adopt", f"{bucket}x")
    assert nowhere.code == 3
    assert "name the store that it is in with --store" in nowhere.err
    assert moorage("storage", "adopt", f"s3://{bucket}/x").code == 2
    assert moorage("storage", "delete", bucket, "-y").code == 0


def test_a_bucket_is_not_copied_into_itself(
    moorage: Command, seaweed: StoreServer, bucket: str
) -> None:
    seaweed.make_bucket(bucket)
    for verb in (["cp"], ["sync", "--delete"]):
        result = moorage("storage", *verb, f"lab://{bucket}/a", f"lab://{bucket}/a/b")
        assert result.code == 2
        assert "lie in each other" in result.err


def test_a_bucket_is_made_before_a_run_needs_it(
    moorage: Command, seaweed: StoreServer, bucket: str
) -> None:
    missing = moorage("storage", "cp", __file__, f"lab://{bucket}/")
    assert "there is no such bucket; check its name and region, or make it: moorage" in missing.err
    made = moorage("storage", "create", bucket, "--store", "lab")
    assert (made.code, made.out) == (0, f"storage {bucket} is lab://{bucket}\n")
    assert bucket in seaweed.buckets()
    assert moorage("storage", "delete", bucket, "-y").code == 0


def test_a_link_that_is_named_is_followed(
    moorage: Command, seaweed: StoreServer, bucket: str, tmp_path: Path
) -> None:
    seaweed.make_bucket(bucket)
    (tmp_path / "there").write_text("x")
    (tmp_path / "link").symlink_to("there")
    done = moorage("storage", "cp", str(tmp_path / "link"), f"lab://{bucket}/")
    assert done.code == 0, done.err
    assert seaweed.read(bucket, "link") == b"x"
    dry = moorage("storage", "sync", "--dry-run", str(tmp_path), f"lab://{bucket}")
    assert "1 file, 1 B to copy, 0 unchanged" in dry.err


def test_what_a_job_writes_is_in_a_bucket_that_stays(
    moorage: Command, seaweed: StoreServer, bucket: str, tmp_path: Path
) -> None:
    file = tmp_path / "task.yml"
    file.write_text(TASK.format(name="keeps", bucket=bucket, persistent="true"))
    planned = moorage("plan", "-f", str(file))
    assert planned.code == 0, planned.err
    assert f"data      lab://{bucket} -> /out, COPY: a new bucket in lab" in planned.out
    done = moorage("apply", "-f", str(file), "-y")
    assert done.code == 0, done.err
    assert seaweed.read(bucket, "keeps") == b"keeps\n"
    again = moorage("plan", "-f", str(file))
    assert f"data      lab://{bucket} -> /out, COPY: 1 object, 6 B" in again.out
    assert bucket in moorage("storage", "ls").out
    shown = moorage("storage", "show", bucket)
    assert f"storage   {bucket}, ready" in shown.out
    assert "made      by moorage for run" in shown.out
    checked = json.loads(moorage("storage", "ls", "--check", "--json").out)
    [one] = [view for view in checked["storages"] if view["name"] == bucket]
    assert (one["state"], one["objects"], one["bytes"]) == ("ready", 1, 6)
    nothing = moorage("storage", "flush", "keeps")
    assert nothing.out == "keeps: nothing was left on a node\n"
    deleted = moorage("storage", "delete", bucket, "-y")
    assert deleted.out == f"storage {bucket} is deleted\n"
    assert bucket not in seaweed.buckets()


def test_one_that_is_not_to_stay_is_gone_after_the_job(
    moorage: Command, seaweed: StoreServer, bucket: str, tmp_path: Path
) -> None:
    file = tmp_path / "task.yml"
    file.write_text(TASK.format(name="passes", bucket=bucket, persistent="false"))
    assert moorage("apply", "-f", str(file), "-y").code == 0
    with Client(home=moorage.home) as client:
        gone = (event.kind == "storage.deleted" and event.data["storage"] == bucket
                for event in client.events(since=0, follow=True))  # fmt: skip
        assert any(gone)
    assert bucket not in seaweed.buckets()
    assert bucket not in moorage("storage", "ls").out


def test_a_bucket_of_others_is_adopted_and_never_deleted(
    moorage: Command, seaweed: StoreServer
) -> None:
    name = seaweed.make_bucket()
    adopted = moorage("storage", "adopt", name, "--store", "lab")
    assert adopted.out == f"storage {name} is lab://{name}\n"
    forgotten = moorage("storage", "delete", name, "-y")
    assert forgotten.code == 0
    assert "is forgotten: moorage did not make it" in forgotten.out
    assert name in seaweed.buckets()


def test_a_list_says_what_others_did_to_a_bucket(
    moorage: Command, seaweed: StoreServer, bucket: str, tmp_path: Path
) -> None:
    gone, anew, theirs = (f"{bucket}-{word}" for word in ("gone", "anew", "theirs"))
    file = tmp_path / "task.yml"
    for name in (anew, gone):  # stores say to the second when one was made
        file.write_text(TASK.format(name="makes", bucket=name, persistent="true"))
        assert moorage("apply", "-f", str(file), "-y").code == 0
        seaweed.rclone("purge", f"X:{name}")
    seaweed.make_bucket(theirs)
    seaweed.make_bucket(anew)
    listed = moorage("storage", "ls", "--check")
    states = {line.split()[0]: line.split()[2:5] for line in listed.out.splitlines()[1:]}
    assert states[gone][0] == "missing"
    assert (states[anew], states[theirs]) == (["foreign", "-", "-"], ["foreign", "-", "-"])
    assert f"moorage: {gone}: it was deleted, and not by moorage\n" in listed.err
    assert f"moorage: {anew}: somebody else made it anew\n" in listed.err
    deleted = moorage("storage", "delete", f"{bucket}-*", "-y")
    assert deleted.out.splitlines() == [
        f"storage {anew} is forgotten: somebody else made it anew since: it is left as it is",
        f"storage {gone} is deleted",
    ]
    assert {anew, theirs} <= set(seaweed.buckets())
    nothing = moorage("storage", "delete", f"{bucket}-*", "-y")
    assert nothing.code == 3
    assert moorage("storage", "delete").code == 2


def test_an_adopted_bucket_stays_though_a_run_wants_it_gone(
    moorage: Command, seaweed: StoreServer, bucket: str, tmp_path: Path
) -> None:
    seaweed.make_bucket(bucket)
    assert moorage("storage", "adopt", bucket, "--store", "lab").code == 0
    file = tmp_path / "task.yml"
    file.write_text(TASK.format(name="stays", bucket=bucket, persistent="false"))
    done = moorage("apply", "-f", str(file), "-y")
    assert "was not made by moorage, so it is not deleted with this run" in done.err
    assert seaweed.read(bucket, "stays") == b"stays\n"
    shown = moorage("storage", "show", bucket)
    assert "made      not by moorage: never deleted; known since" in shown.out
    assert moorage("storage", "delete", bucket, "-y").code == 0


def test_unknown_names_are_told(moorage: Command) -> None:
    for verb in (["show", "nope-1"], ["delete", "nope-1", "-y"], ["flush", "nope-1"]):
        result = moorage("storage", *verb)
        assert result.code == 3, verb
        assert "nope-1" in result.err
