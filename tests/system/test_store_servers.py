"""The object stores of the test bed do what other tests take for granted."""

from __future__ import annotations

from pathlib import Path

from testbed.stores import StoreServer


def test_objects_come_back(object_store: StoreServer) -> None:
    bucket = object_store.make_bucket()
    assert bucket in object_store.buckets()
    assert object_store.listing(bucket) == {}
    object_store.write(bucket, "a/b c.txt", b"hello")
    assert object_store.listing(bucket) == {"a/b c.txt": 5}
    assert object_store.read(bucket, "a/b c.txt") == b"hello"


def test_objects_outlive_a_killed_server(own_seaweed: StoreServer) -> None:
    bucket = own_seaweed.make_bucket()
    own_seaweed.write(bucket, "kept", b"1")
    endpoint = own_seaweed.endpoint
    own_seaweed.kill()
    own_seaweed.start()
    assert own_seaweed.endpoint == endpoint
    assert own_seaweed.read(bucket, "kept") == b"1"


def test_nothing_of_a_server_is_left(own_seaweed: StoreServer) -> None:
    own_seaweed.close()
    port = own_seaweed.ports[1]
    assert not list(Path("/tmp").glob(f"seaweedfs-*-{port}.sock"))
