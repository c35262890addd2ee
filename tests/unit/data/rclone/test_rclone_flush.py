"""What a flush says that does not come to its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec import structs

from moorage.data.buckets import Moved, NotFlushed
from moorage.data.rclone.flushing import Flush
from moorage.data.rclone.mount import RcloneMount
from moorage.data.rclone.rc import Control, Queued

NOTICE = "2026/11/21 13:00:00 NOTICE: S3 bucket x: Symlinks support enabled\n"
ERROR = "2026/11/21 13:00:01 ERROR : a: Failed to copy: context deadline exceeded\n"


def ignore(moved: Moved) -> None:
    assert moved


@pytest.fixture
def mount(tmp_path: Path) -> RcloneMount:
    """One whose rclone does not answer."""
    (tmp_path / "cache").mkdir()
    return RcloneMount(tmp_path)


def test_what_rclone_only_notices_is_no_reason(mount: RcloneMount) -> None:
    log = mount.directory / "log"
    assert mount.last_error() == ""
    log.write_text(NOTICE)
    assert mount.last_error() == ""
    log.write_text(NOTICE + ERROR + NOTICE)
    assert mount.last_error() == "ERROR : a: Failed to copy: context deadline exceeded"


def test_where_all_is_uploaded_a_read_that_hangs_is_no_loss(mount: RcloneMount) -> None:
    Flush(mount, cached=True).wait(ignore, patience=0)


def test_what_is_streamed_may_be_lost(mount: RcloneMount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "find", os.getpid)
    with pytest.raises(NotFlushed) as caught:
        Flush(mount, cached=False).wait(ignore, patience=0)
    assert "the store does not answer" in str(caught.value)
    assert caught.value.kept


def test_of_what_was_streamed_nothing_is_left_without_its_process(mount: RcloneMount) -> None:
    flush = Flush(mount, cached=False)
    assert flush.over()
    mount.note_lost(["a", "b"])
    with pytest.raises(NotFlushed) as caught:
        flush.wait(ignore, patience=0)
    assert (caught.value.files, caught.value.kept) == (["a", "b"], False)


def test_an_upload_that_was_put_off_again_is_hurried_again(
    mount: RcloneMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens and closes a file that waits for its upload has it wait anew."""
    note = mount.directory / "cache" / "vfsMeta" / "bucket" / "f"
    note.parent.mkdir(parents=True)
    note.write_text('{"Dirty": true}')
    waiting, hurried = Queued("f", 1, 7, expiry=600.0), []
    states = [waiting, structs.replace(waiting, expiry=-1.0), waiting]
    failed = structs.replace(waiting, tries=1)
    monkeypatch.setattr(Control, "transfers", lambda control: [])
    monkeypatch.setattr(Control, "queue", lambda control: [states.pop(0) if states else failed])
    monkeypatch.setattr(Control, "hurry", lambda control, one: hurried.append(one.id))
    monkeypatch.setattr(Control, "last_error", lambda control: "")
    with pytest.raises(NotFlushed):
        Flush(mount, cached=True).wait(ignore, patience=0.2)
    assert hurried == [7, 7]


def test_that_a_store_was_asked_is_no_reason(mount: RcloneMount) -> None:
    asked = '2026/11/21 13:00:02 ERROR : rc: "operations/stat": error: context canceled\n'
    (mount.directory / "log").write_text(ERROR + asked)
    assert mount.last_error() == "ERROR : a: Failed to copy: context deadline exceeded"


def test_a_note_that_is_being_written_anew_says_nothing_of_its_file(mount: RcloneMount) -> None:
    note = mount.directory / "cache" / "vfsMeta" / "remote" / "f"
    note.parent.mkdir(parents=True)
    note.write_text('{"Dirty": false}')
    assert mount.dirty() == []
    note.write_text("")
    assert mount.dirty() == ["f"]
    note.write_text('{"Dirty": true}')
    assert mount.dirty() == ["f"]
