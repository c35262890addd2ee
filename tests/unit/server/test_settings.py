from __future__ import annotations

import os
from pathlib import Path

import pytest

from moorage.errors import InvalidInput, Unavailable
from moorage.server import settings
from moorage.server.settings import Settings, make_private


def test_no_file_means_defaults(tmp_path: Path) -> None:
    assert settings.load(tmp_path) == Settings()


def test_an_unknown_key_is_refused_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("uplaod_limit: 5\nmine: 1\n")
    with pytest.raises(InvalidInput) as caught:
        settings.load(tmp_path)
    file = tmp_path / "config.yml"
    assert [str(problem) for problem in caught.value.problems] == [
        f"{file}: there is no setting 'uplaod_limit'; did you mean upload_limit?",
        f"{file}: there is no setting 'mine'; there are {', '.join(settings.READERS)}",
    ]


@pytest.mark.parametrize("forever", ["off", "0", "false", "no", '"off"'])
def test_what_is_kept_for_ever_is_written_off_or_0(tmp_path: Path, forever: str) -> None:
    (tmp_path / "config.yml").write_text(f"run_retention: {forever}\n")
    assert settings.load(tmp_path).run_retention == 0


def test_every_setting_can_be_read_and_is_documented() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"
    for name in Settings.__struct_fields__:
        assert name in settings.READERS
        assert f"| `{name}` |" in page.read_text("utf-8")


def test_sizes_and_durations_may_be_written_with_units(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("upload_limit: 5GB\nblob_grace: 2d\n")
    loaded = settings.load(tmp_path)
    assert loaded.upload_limit == 5 * 1024**3
    assert loaded.blob_grace == 2 * 86_400


@pytest.mark.parametrize(
    "text",
    [
        "upload_limit: -1",
        "upload_limit: many",
        "blob_grace: 1h",
        "blob_grace: [1]",
        "run_retention: soon",
        "run_limit: -5",
        "run_limit: many",
        "output_retention: 1h2",
        "- a",
        "a: [",
        "\tb: 1",
    ],
)
def test_wrong_ones_name_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(InvalidInput, match=r"config\.yml"):
        settings.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blob_grace: 1h", "blob_grace: 1h is less than 2h"),
        ("engines: podmn", "engines: 'podmn' is not one of moorage, podman, docker, apptainer"),
        ("engines: []", "engines: [] is not one of moorage, podman, docker, apptainer"),
        ("leader_lease: 0", "leader_lease: 0 is less than 0.5s"),
        ("run_limit: -1", "run_limit: -1 is less than 0"),
        ("run_limit: 1.5", "run_limit: 1.5 is not a whole number, or off"),
        ("run_limit: 5GB", "run_limit: '5GB' is not a whole number, or off"),
        ("run_limit: 10000000000000000000", f"is more than {2**63 - 1}"),
        ("run_limit:", "run_limit: null is not a whole number, or off"),
        ("upload_limit: 5 parsecs", "upload_limit: '5 parsecs' is not a size such as"),
        ("leader_lease: off", "leader_lease: false is not a duration such as"),
        ("run_retention: soon", "run_retention: 'soon' is not a duration such as"),
        ("event_limit: 5\nevent_limit: 6", "event_limit: set twice; keep one"),
    ],
)
def test_a_wrong_value_is_named_and_said_what_it_should_be(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(InvalidInput) as caught:
        settings.load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/config.yml: ")
    assert message in str(caught.value)
    assert "`" not in str(caught.value)


def test_all_wrong_values_are_said_at_once_and_none_of_the_database_is_shown(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.yml").write_text("run_limit: x\ndatabase: ['pw-7']\nlog_limit: y\n")
    with pytest.raises(InvalidInput) as caught:
        settings.load(tmp_path)
    assert [problem.field for problem in caught.value.problems] == [
        "run_limit",
        "database",
        "log_limit",
    ]
    assert "pw-7" not in str(caught.value)


@pytest.mark.parametrize("name", ["run_limit", "schedule_jobs", "event_limit", "output_limit"])
@pytest.mark.parametrize("written", ["off", '"off"', "0"])
def test_a_limit_may_be_off(tmp_path: Path, name: str, written: str) -> None:
    (tmp_path / "config.yml").write_text(f"{name}: {written}\n")
    assert getattr(settings.load(tmp_path), name) == 0


def test_one_engine_or_several(tmp_path: Path) -> None:
    for text, wanted in (("docker", ("docker",)), ("[podman, moorage]", ("podman", "moorage"))):
        (tmp_path / "config.yml").write_text(f"engines: {text}")
        assert settings.load(tmp_path).engines == wanted


def test_a_file_that_is_no_text_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_bytes(b"run_limit: \xff\n")
    with pytest.raises(
        InvalidInput, match=r"config\.yml: not UTF-8 \(byte 12\); save it as UTF-8"
    ):
        settings.load(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(InvalidInput, match=r"config\.yml: cannot be read: Is a directory"):
        settings.load(tmp_path)


def test_home_is_the_argument_the_variable_or_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MOORAGE_HOME", str(tmp_path / "a"))
    assert settings.home_directory() == tmp_path / "a"
    assert settings.home_directory(str(tmp_path / "b")) == tmp_path / "b"
    monkeypatch.delenv("MOORAGE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings.home_directory() == tmp_path / ".moorage"


def test_a_home_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(Unavailable, match=r"every user may write to .*; run: chmod 0700"):
        make_private(tmp_path)
    tmp_path.chmod(0o1777)
    with pytest.raises(Unavailable, match="is for all users; set MOORAGE_HOME to a place below"):
        make_private(tmp_path)
    assert make_private(tmp_path / "new").stat().st_mode & 0o777 == 0o700


@pytest.mark.root
def test_a_home_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(Unavailable, match="belongs to user 12345; set MOORAGE_HOME"):
        make_private(tmp_path)
