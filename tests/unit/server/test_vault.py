from __future__ import annotations

import stat
from pathlib import Path

import pytest

from moorage.server.storage.vault import Sealed, Vault

SECRETS = {"access_key_id": "ada", "secret_access_key": "not for other eyes"}


def test_what_is_sealed_can_be_opened_and_not_read(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "server" / "secrets.key")
    text = vault.seal(SECRETS, [])
    assert vault.open(text, "lab") == SECRETS
    assert "not for" not in text
    assert stat.S_IMODE(vault.path.stat().st_mode) == 0o600
    assert vault.open("", "lab") == {}


def test_the_key_is_made_once(tmp_path: Path) -> None:
    first, second = Vault(tmp_path / "key"), Vault(tmp_path / "key")
    text = first.seal(SECRETS, [])
    key = (tmp_path / "key").read_bytes()
    other = second.seal(SECRETS, [text])
    assert (tmp_path / "key").read_bytes() == key
    assert first.open(other, "lab") == SECRETS
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_another_key_opens_nothing_and_seals_nothing_beside(tmp_path: Path) -> None:
    mine, other = Vault(tmp_path / "mine"), Vault(tmp_path / "other")
    text = mine.seal(SECRETS, [])
    other.seal(SECRETS, [])
    with pytest.raises(Sealed, match=r"store lab are sealed with another key than .*/other"):
        other.open(text, "lab")
    with pytest.raises(Sealed, match="MOORAGE_SECRETS_KEY_FILE"):
        other.seal(SECRETS, [text])


def test_a_server_without_the_key_makes_no_second_one(tmp_path: Path) -> None:
    text = Vault(tmp_path / "mine").seal(SECRETS, [])
    other = Vault(tmp_path / "other")
    with pytest.raises(Sealed, match="no such file or directory"):
        other.seal(SECRETS, [text])
    with pytest.raises(Sealed, match="copy it from the server"):
        other.open(text, "lab")
    assert not other.path.exists()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "key")
    text = vault.seal(SECRETS, [])
    vault.path.chmod(0o640)
    with pytest.raises(Sealed, match=r"others can read .*: run chmod 0600"):
        vault.open(text, "lab")


def test_damage_is_told_with_the_remedy(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "key")
    text = vault.seal(SECRETS, [])
    with pytest.raises(Sealed, match="damaged: moorage store add lab again"):
        vault.open(text[:-4] + "AAAA", "lab")
    vault.path.write_text("short")
    with pytest.raises(Sealed, match="is no key of moorage"):
        vault.open(text, "lab")
