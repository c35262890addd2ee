import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from moorage.backends.ssh import bundle
from moorage.backends.ssh.bundle import Bundles, needs_glibc, pack
from moorage.errors import Unavailable

WALK = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
for part in ("agent", "data", "protocol"):
    package = importlib.import_module("moorage." + part)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
import moorage
print(moorage.__version__)
"""


def test_the_same_files_give_the_same_bytes(tmp_path):
    one, other = Bundles(tmp_path / "a").make(), Bundles(tmp_path / "b").make()
    assert one.digest == other.digest
    assert one.path.read_bytes() == other.path.read_bytes()
    assert one.size == one.path.stat().st_size
    with tarfile.open(one.path) as archive:
        names = archive.getnames()
        assert names == sorted(names)
        assert {(e.mtime, e.uid, e.gid, e.mode) for e in archive} == {(0, 0, 0, 0o644)}


def test_everything_of_an_agent_can_be_imported_with_nothing_else(tmp_path):
    made = Bundles(tmp_path).make()
    with tarfile.open(made.path) as archive:
        archive.extractall(tmp_path / "lib", filter="data")
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", WALK, str(tmp_path / "lib")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == bundle.metadata.version("moorage")


def test_a_change_of_the_server_alone_changes_nothing(tmp_path):
    names = {name for name, _ in bundle.contents()}
    assert "moorage/agent/main.py" in names
    assert not [name for name in names if name.startswith(("moorage/server/", "moorage/cli/"))]
    assert not [name for name in names if "__pycache__" in name]


def test_it_is_made_once_and_old_ones_go(tmp_path, monkeypatch):
    given = list(bundle.contents())
    made = []
    for number in range(bundle.KEPT + 3):
        files = [*given[:5], ("moorage/number", str(number).encode())]
        monkeypatch.setattr(bundle, "contents", lambda files=files: iter(files))
        made.append(Bundles(tmp_path).make())
        os.utime(made[-1].path, (number, number))
    assert len({one.digest for one in made}) == len(made)
    left = sorted((tmp_path / "server" / "bundles").iterdir())
    assert len(left) == bundle.KEPT + 1
    before = made[-1].path.stat().st_ino
    assert Bundles(tmp_path).make() == made[-1]
    assert made[-1].path.stat().st_ino == before


def test_a_missing_part_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "NEEDED", ("no-such-distribution",))
    with pytest.raises(Unavailable, match="no-such-distribution is not installed"):
        Bundles(tmp_path).make()


def test_a_disk_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "server").write_text("a file where a directory should be")
    with pytest.raises(Unavailable, match="cannot be packed"):
        Bundles(tmp_path).make()


def test_glibc_is_read_from_the_symbols():
    assert needs_glibc(b"text") == (2, 17)
    assert needs_glibc(b"\x7fELF..GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.5") == (2, 34)


def test_packing_knows_no_clock():
    files = {"a": b"1", "b/c": b"2"}
    assert pack(files) == pack(dict(files))
    assert Path(bundle.__file__).exists()
