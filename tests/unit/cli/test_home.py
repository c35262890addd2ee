from __future__ import annotations

import pytest

from moorage.cli.home import authority, checked
from moorage.errors import InvalidInput


def test_a_token_is_not_sent_in_the_clear():
    with pytest.raises(
        InvalidInput, match=r"MOORAGE_URL: .* would show your token .*; use the https"
    ):
        checked("https://a:1,http://10.0.0.5:1", "t")
    assert checked("http://127.0.0.1:1", "t").url == "http://127.0.0.1:1"


def test_the_authority_is_a_certificate_alone(tmp_path, monkeypatch):
    file = tmp_path / "ca.pem"
    with pytest.raises(InvalidInput, match=r"--ca: .* cannot be read: No such file"):
        authority(str(file))
    for text in ("nothing", "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n"):
        file.write_text(text)
        with pytest.raises(InvalidInput, match=r"--ca: .* is no certificate"):
            authority(str(file))
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    monkeypatch.setenv("MOORAGE_CA", str(file))
    assert authority(None) == checked("https://a:1", "t").ca == file.read_text()
    monkeypatch.delenv("MOORAGE_CA")
    assert authority(None) == ""
