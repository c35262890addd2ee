"""Who uses a bucket, and when it goes."""

from __future__ import annotations

import pytest

from moorage.core import reactor
from moorage.core.cluster import Cluster
from moorage.core.effects import Emit, Tidy, Write
from moorage.core.reactor.storages import UNUSED_FOR, is_doomed
from moorage.core.storage import LiveStorage, LiveStore
from moorage.errors import Conflict, NotFound
from moorage.ids import RunId
from moorage.protocol.api import RunRequest
from moorage.specs.mounts import Bucket
from moorage.specs.task import Task

NOW = 1000.0


def stored(cluster: Cluster, name: str = "out", **fields: object) -> LiveStorage:
    storage = LiveStorage(name, "lab", name, True, False, "making", "ada", NOW, NOW)
    for word, value in fields.items():
        setattr(storage, word, value)
    reactor.on_record_storage(cluster, storage)
    return storage


def submitted(
    cluster: Cluster, *buckets: str, name: str = "train", persistent: bool = False
) -> RunId:
    mounts = [
        Bucket("/out", "lab", bucket, managed=True, persistent=persistent) for bucket in buckets
    ]
    request = RunRequest(Task(commands=["true"], name=name, mounts=list(mounts)))
    done = reactor.on_submit(cluster, [request], "ada", NOW, request_id=name, names=iter(()))
    return RunId(done.runs[0].id)


def test_a_run_holds_its_buckets_until_it_has_ended() -> None:
    cluster = Cluster()
    storage = stored(cluster)
    reactor.on_storage_made(cluster, storage, "born", NOW)
    assert storage.state == "ready"
    run = submitted(cluster, "out")
    assert (storage.made_by, storage.last_used) == (run, NOW)
    assert not is_doomed(cluster, storage, NOW)
    with pytest.raises(Conflict, match=r"run train \(1\) uses storage out"):
        reactor.on_delete_storage(cluster, storage, NOW)
    effects = reactor.on_cancel(cluster, run, True, NOW + 5)
    assert Tidy() in effects
    assert storage.last_used == NOW + 5
    assert is_doomed(cluster, storage, NOW + 5)
    assert cluster.bucket_users == {}


def test_it_stays_while_another_run_uses_it() -> None:
    cluster = Cluster()
    storage = stored(cluster, state="ready")
    first, second = submitted(cluster, "out", name="one"), submitted(cluster, "out", name="two")
    reactor.on_cancel(cluster, first, True, NOW)
    assert not is_doomed(cluster, storage, NOW)
    reactor.on_cancel(cluster, second, True, NOW)
    assert is_doomed(cluster, storage, NOW)


def test_it_stays_where_one_run_wants_that() -> None:
    cluster = Cluster()
    storage = stored(cluster, state="ready")
    first = submitted(cluster, "out", name="one")
    second = submitted(cluster, "out", name="two", persistent=True)
    reactor.on_cancel(cluster, second, True, NOW)
    reactor.on_cancel(cluster, first, True, NOW)
    assert storage.persistent
    assert not is_doomed(cluster, storage, NOW)


@pytest.mark.parametrize(
    "fields",
    [
        {"persistent": True},
        {"made": False},
        {"unflushed": {"1.1.0"}},
        {"held_until": NOW + 1},
        {"made_by": None},
    ],
)
def test_what_keeps_a_bucket(fields: dict[str, object]) -> None:
    cluster = Cluster()
    storage = stored(cluster, **{"state": "ready", "made_by": RunId(1)} | fields)
    assert not is_doomed(cluster, storage, NOW)


def test_one_that_no_run_ever_used_goes_after_a_day() -> None:
    cluster = Cluster()
    storage = stored(cluster, state="ready")
    assert not is_doomed(cluster, storage, NOW + UNUSED_FOR)
    assert is_doomed(cluster, storage, NOW + UNUSED_FOR + 1)


def test_a_deletion_is_said_before_it_is_done() -> None:
    cluster = Cluster()
    storage = stored(cluster, state="ready", persistent=True)
    effects = reactor.on_delete_storage(cluster, storage, NOW)
    assert storage.state == "deleting"
    assert [type(effect) for effect in effects] == [Write, Emit, Tidy]
    assert is_doomed(cluster, storage, NOW)
    assert reactor.on_delete_storage(cluster, storage, NOW) == [Tidy(again=True)]
    told = reactor.on_storage_gone(cluster, storage)
    assert [effect.kind for effect in told if isinstance(effect, Emit)] == ["storage.deleted"]
    assert cluster.storages == {}


def test_a_bucket_that_others_deleted_is_missing_until_it_is_made_again() -> None:
    cluster = Cluster()
    storage = stored(cluster, state="ready")
    reactor.on_storage_seen(cluster, storage, there=False, now=NOW)
    assert (storage.state, storage.message) == ("missing", "it was deleted, and not by moorage")
    told = reactor.on_storage_made(cluster, storage, "later", NOW)
    assert (storage.state, storage.message, storage.born) == ("ready", "", "later")
    assert [e.kind for e in told if isinstance(e, Emit)] == ["storage.recreated"]


def test_the_same_trouble_is_told_once() -> None:
    cluster = Cluster()
    storage = stored(cluster, state="deleting")
    assert len(reactor.on_storage_trouble(cluster, storage, "no answer")) == 2
    assert reactor.on_storage_trouble(cluster, storage, "no answer") == []


def test_a_store_stays_while_something_is_in_it() -> None:
    cluster = Cluster()
    with pytest.raises(NotFound, match="there is no declared store lab"):
        reactor.on_delete_store(cluster, "lab")
    reactor.on_add_store(cluster, LiveStore("lab", "s3", "ada", NOW))
    storage = stored(cluster)
    with pytest.raises(Conflict, match="buckets with a name are in it: out"):
        reactor.on_delete_store(cluster, "lab")
    reactor.on_storage_gone(cluster, storage)
    run = submitted(cluster, "other")
    with pytest.raises(Conflict, match=r"run train \(1\) uses store lab"):
        reactor.on_delete_store(cluster, "lab")
    reactor.on_cancel(cluster, run, True, NOW)
    reactor.on_delete_store(cluster, "lab")
    assert cluster.stores == {}
