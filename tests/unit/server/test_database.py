from __future__ import annotations

import stat
from pathlib import Path

import pytest

from moorage.errors import InvalidInput
from moorage.server.database import SQLITE, choose, remember, shown

URL = "postgresql://db.example/moorage"
SECRET = "postgresql://me:secret@db.example/moorage"


def test_the_first_that_says_something_is_taken(tmp_path: Path) -> None:
    variable = {"MOORAGE_DATABASE": SECRET}
    assert choose("", {}, "", tmp_path) == SQLITE
    remember(tmp_path, "postgresql://remembered/x")
    assert choose("", {}, "", tmp_path) == "postgresql://remembered/x"
    assert choose("", {}, SQLITE, tmp_path) == SQLITE
    assert choose("", variable, SQLITE, tmp_path) == SECRET
    assert choose(URL, variable, SQLITE, tmp_path) == URL


def test_what_was_used_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    remember(tmp_path, SECRET)
    assert stat.S_IMODE((tmp_path / "server" / "database").stat().st_mode) == 0o600
    assert choose("", {}, "", tmp_path) == SECRET


@pytest.mark.parametrize("given", [SECRET, "postgresql://db.example/x?password=secret"])
def test_a_password_on_the_command_line_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(InvalidInput, match="pgpass") as caught:
        choose(given, {}, "", tmp_path)
    assert "secret" not in str(caught.value)


def test_a_password_in_a_file_that_others_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(f"database: {SECRET}\n")
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 0600") as caught:
        choose("", {}, SECRET, tmp_path)
    assert "secret" not in str(caught.value)
    path.chmod(0o600)
    assert choose("", {}, SECRET, tmp_path) == SECRET


@pytest.mark.parametrize("wrong", ["mysql://x/y", "moorage.db", "postgresql://h:port/x"])
def test_what_is_no_database_is_refused_wherever_it_comes_from(tmp_path: Path, wrong: str) -> None:
    for given, variable, setting in ((wrong, "", ""), ("", wrong, ""), ("", "", wrong)):
        environ = {"MOORAGE_DATABASE": variable} if variable else {}
        with pytest.raises(InvalidInput, match="write postgresql"):
            choose(given, environ, setting, tmp_path)
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "database").write_text(wrong)
    with pytest.raises(InvalidInput, match="server/database"):
        choose("", {}, "", tmp_path)


def test_a_cluster_may_have_several_addresses(tmp_path: Path) -> None:
    several = "postgresql://a:5432,b:5433,[::1]/moorage?target_session_attrs=read-write"
    assert choose(several, {}, "", tmp_path) == several
    assert shown(several) == "postgresql://a:5432,b:5433,[::1]/moorage"
    for secret in ("password=x", "sslpassword=x", "pass%77ord=x"):
        with pytest.raises(InvalidInput, match="a password in --database"):
            choose(f"postgresql://h/m?{secret}", {}, "", tmp_path)


def test_people_see_it_without_a_password() -> None:
    assert shown(SQLITE) == SQLITE
    assert shown(SECRET) == "postgresql://me@db.example/moorage"
    assert shown(URL + "?password=secret") == URL
