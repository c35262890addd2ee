from __future__ import annotations

import stat
from pathlib import Path

import pytest

from moorage.agent.uplink.addresses import Addresses, websocket_url


def test_addresses_are_tried_in_turn(tmp_path: Path) -> None:
    addresses = Addresses(["http://a:1/", "http://b:1"], tmp_path / "servers")
    tried = []
    for _ in range(4):
        tried.append(addresses.present)
        addresses.next()
    assert tried == ["http://a:1", "http://b:1", "http://a:1", "http://b:1"]


def test_what_a_server_names_is_kept_for_the_next_agent(tmp_path: Path) -> None:
    memory = tmp_path / "servers"
    first = Addresses(["http://a:1"], memory)
    first.learn(["http://a:1", "http://b:1", "no address"])
    assert first.known == ("http://a:1", "http://b:1")
    assert stat.S_IMODE(memory.stat().st_mode) == 0o600
    assert Addresses(["http://a:1"], memory).known == first.known
    first.learn(["http://c:1"])
    assert Addresses(["http://a:1"], memory).known == ("http://a:1", "http://c:1")


def test_a_hint_is_tried_next_and_left_like_any_other(tmp_path: Path) -> None:
    addresses = Addresses(["http://a:1", "http://b:1"], tmp_path / "servers")
    assert addresses.follow("http://elsewhere:1")
    assert addresses.present == "http://elsewhere:1"
    assert not addresses.follow("http://elsewhere:1"), "it was just tried"
    assert not addresses.follow("nonsense")
    assert not addresses.follow("")
    addresses.next()
    assert addresses.present == "http://a:1"


def test_a_memory_that_cannot_be_read_is_empty(tmp_path: Path) -> None:
    memory = tmp_path / "servers"
    memory.write_bytes(b"\xff\xfe http://b:1")
    assert Addresses(["http://a:1"], memory).known == ("http://a:1",)


def test_websocket_urls() -> None:
    assert websocket_url("http://a:1") == "ws://a:1/v1/agent"
    assert websocket_url("https://a/base/") == "wss://a/base/v1/agent"
    for wrong in ("a:1", "ftp://a", "http://", ""):
        with pytest.raises(ValueError):
            websocket_url(wrong)
        with pytest.raises(ValueError):
            Addresses([wrong], Path("nowhere"))
