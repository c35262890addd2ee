"""What an agent's removal finds outside of its directory."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from moorage.backends.ssh.onhost import leftovers


@pytest.mark.parametrize("name", ["podman-pause", "somebody"])
def test_what_podman_keeps_until_the_next_boot(tmp_path: Path, name: str) -> None:
    place = tmp_path / "moorage-1-2"
    noted = place / "libpod" / "tmp" / "pause.pid"
    noted.parent.mkdir(parents=True)
    words, pipe = [name, "-c", "echo; read end"], subprocess.PIPE
    with subprocess.Popen(words, executable="/bin/sh", stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"  # its name is to be seen by now
        noted.write_text(f"{process.pid}\n")
        leftovers._forget_podman(str(place))
        if name == "somebody":  # who has that number by now
            assert process.poll() is None
            process.terminate()
        assert process.wait(60) == -15
    assert not place.exists()
    leftovers._forget_podman(str(place))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "moorage-1-2").symlink_to("precious")
    leftovers._forget_podman(str(tmp_path / "moorage-1-2"))
    assert (tmp_path / "precious").is_dir()
