"""What the user's ssh is given to read, however strange the paths are: asked of ssh itself."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from moorage.cli import sshfiles
from moorage.cli.sshfiles import Entry


def as_ssh_reads(config: Path, name: str) -> dict[str, str]:
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed")
    done = subprocess.run(
        ["ssh", "-G", "-F", str(config), name], capture_output=True, text=True, check=True
    )
    pairs = [line.partition(" ") for line in done.stdout.splitlines()]
    return {key: value for key, _, value in pairs}


@pytest.mark.parametrize("home", ["plain", "with space", "50%d", "$HOME and ~ 'it'"])
def test_ssh_reads_what_was_meant(tmp_path: Path, home: str) -> None:
    place = tmp_path / home
    config = tmp_path / "config"
    config.write_text(sshfiles._section(place, Entry("t1", "t1", 0, "ann")))
    read = as_ssh_reads(config, "t1")
    assert read["user"] == "ann"
    assert read["stricthostkeychecking"] == "true"
    words = shlex.split(read["proxycommand"].replace("%%", "%"))
    assert f"MOORAGE_HOME={place}" in words
    assert words[-2:] == ["proxy", "t1"]
    known = str(place / "ssh/known/t1")  # older ones show it before it is expanded
    assert read["userknownhostsfile"].strip('"') in {known, known.replace("%", "%%")}


def test_a_rank_has_a_name_of_its_own(tmp_path: Path) -> None:
    assert sshfiles.entry_name("t1", 0) == "t1"
    entry = Entry(sshfiles.entry_name("t1", 3), "t1", 3, "")
    text = sshfiles._section(tmp_path, entry)
    assert "Host t1.3\n" in text
    assert "    User " not in text
    assert shlex.split(sshfiles.proxy_command(tmp_path, entry))[-4:] == [
        "proxy", "--rank", "3", "t1",
    ]  # fmt: skip


def test_no_token_is_among_the_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("MOORAGE_TOKEN", "hidden")
    text = sshfiles.proxy_command(tmp_path, Entry("t1", "t1", 0, ""))
    assert "MOORAGE_URL=http://127.0.0.1:1" in text
    assert "hidden" not in text


def test_modules_of_the_directory_that_ssh_is_called_in_are_not_imported(tmp_path: Path) -> None:
    for name in ("tokenize", "queue", "logging", "moorage"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    command = sshfiles.proxy_command(tmp_path / "home", Entry("t1", "t1", 0, ""))
    done = subprocess.run(
        [*shlex.split(command), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.startswith("Usage: "), done.stderr


def test_the_line_is_added_first_and_once(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    mine = tmp_path / ".ssh/config"
    mine.write_text("Host other\n    User bob\n")
    mine.chmod(0o640)
    home = tmp_path / "my home"
    assert sshfiles.install(home, mine)
    assert not sshfiles.install(home, mine)
    assert mine.read_text() == f'Include "{home}/ssh/config"\nHost other\n    User bob\n'
    assert mine.stat().st_mode & 0o777 == 0o640


def test_ssh_reads_the_home_of_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    account = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert sshfiles.own_config() == account / ".ssh/config"


@pytest.mark.parametrize(("user", "kept"), [("ann", "ann"), ("-oProxyCommand=x", ""), ("a b", "")])
def test_an_account_is_a_plain_word_or_left_out(user: str, kept: str) -> None:
    assert sshfiles._user("n", {"n": user}) == kept
