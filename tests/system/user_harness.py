"""Programs of this checkout as other users, where root runs the tests."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PATIENCE = 270.0
"""Seconds for a program; whole suites are run here, on a busy machine."""


def interpreter() -> str:
    """One that every user may run, and that understands what is installed here."""
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    others = shutil.which(f"python{wanted}", path="/usr/bin:/usr/local/bin")
    for found in (os.path.realpath(sys.executable), others):
        if found is not None and _passable(Path(found)) and _readable(Path(__file__)):
            return found
    return pytest.skip("other users may not read these files, or run this interpreter")


def _passable(path: Path) -> bool:
    outer = all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)
    return outer and _readable(path)


def _readable(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o004)


@contextmanager
def place() -> Iterator[Path]:
    """A directory that every user may pass. Not in /tmp: jobs have their own."""
    with tempfile.TemporaryDirectory(prefix="moorage-user-", dir="/var/lib") as made:
        Path(made).chmod(0o711)
        yield Path(made)


class User:
    """An ordinary user, with a home below the place."""

    def __init__(self, uid: int, place: Path) -> None:
        self.uid = uid
        self.python = interpreter()
        self.home = place / str(uid)
        self.home.mkdir()
        self.home.chmod(0o755)
        os.chown(self.home, uid, uid)
        self._seen = place / f"seen-by-{uid}"
        self._seen.mkdir()
        self._script, self._path = self._way_in()

    def _way_in(self) -> tuple[str, str]:
        """A script that shows checkout and packages where that user gets to them (root's own home
        is closed to others) and runs its arguments, and the path on which Python finds them."""
        packages = [path for path in map(Path, site.getsitepackages()) if path.is_dir()]
        lines = ["mount --make-rslave /"]
        roots: list[Path] = []
        for number, source in enumerate([CHECKOUT, *packages]):
            seen = self._seen / str(number)
            seen.mkdir()
            lines.append(f"mount --bind '{source}' {seen}")
            roots += [seen] if number else [seen / "src", seen / "tests"]
        drop = f"setpriv --reuid={self.uid} --regid={self.uid} --clear-groups"
        lines += [f"cd {self._seen}/0", f'exec {drop} "$@"']
        return "\n".join(lines), ":".join(map(str, roots))

    @property
    def moorage_home(self) -> Path:
        return self.home / ".moorage"

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a program as this user, in the checkout, with pipes."""
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-euc", self._script, "sh", *arguments],
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": str(self.home),
                "PYTHONPATH": self._path,
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code and both outputs of a program."""
        with self.popen(*arguments) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, out, err

    def moorage(self, *arguments: str) -> tuple[int, str, str]:
        """The command."""
        return self.run(self.python, "-m", "moorage", *arguments)
