"""Where podman keeps what it knows of running containers, for an account that is not root."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from moorage.agent.containers import podman
from moorage.agent.containers.podman import Podman


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setattr(podman, "_SHARED", str(tmp_path))
    (tmp_path / "agent").mkdir()
    return tmp_path / "agent"


def test_however_the_agent_was_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    for session in (str(home), "/gone", None):
        if session is None:
            monkeypatch.delenv("XDG_RUNTIME_DIR")
        else:
            monkeypatch.setenv("XDG_RUNTIME_DIR", session)
        made = Podman(home)
        places.append((made.transient, tuple(made._podman())))
    (place,) = set(places)
    directory, words = place
    assert words[:3] == ("env", f"XDG_RUNTIME_DIR={directory}", "podman")
    assert ("--runroot", str(directory)) in pairwise(words)


def test_podman_takes_no_longer_name() -> None:
    assert len(f"{podman._SHARED}/moorage-{2**32 - 1}-{2**32 - 1:08x}") <= 50


def test_what_an_earlier_boot_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot, place = tmp_path / "boot_id", tmp_path / "place"
    monkeypatch.setattr(podman, "_BOOT", boot)
    place.mkdir()
    found = []
    for text in ("1\n", "1\n", "2\n"):
        boot.write_text(text)
        (place / "libpod" / "tmp").mkdir(parents=True, exist_ok=True)
        (place / "file").touch()
        os.close(podman._held(place))
        found.append(sorted(path.name for path in place.iterdir()))
    assert found == [["boot"], ["boot", "file", "libpod"], ["boot"]]
