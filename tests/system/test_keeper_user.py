"""The same tests as an ordinary user, when root runs them: user namespaces instead of root's
mounts, descent instead of control groups."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

UID = 1234
HERE = Path(__file__).parent


def interpreter() -> str | None:
    """One that every user may run, and that understands what is installed here."""
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    for found in (sys.executable, shutil.which(f"python{wanted}", path="/usr/bin:/usr/local/bin")):
        if found is None:
            continue
        if not readable(found):
            continue
        tried = subprocess.run(
            [found, "-c", "import ctypes"], user=UID, group=UID, capture_output=True, cwd="/"
        )
        if tried.returncode == 0:
            return found
    return None


def readable(path: str) -> bool:
    real = Path(path).resolve()
    passable = all(parent.stat().st_mode & 0o001 for parent in real.parents)
    return passable and bool(real.stat().st_mode & 0o004)


@pytest.mark.root
@pytest.mark.parametrize("name", ["test_keeper.py", "test_keeper_sandbox.py"])
def test_as_an_ordinary_user(name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user runs these tests directly")
    python = interpreter()
    if python is None or not readable(__file__):
        pytest.skip("other users may not read this checkout, or run this interpreter")
    # Not in /tmp: jobs have their own, and some tests look for what is outside of it.
    with tempfile.TemporaryDirectory(prefix="keeper-user-", dir="/var/lib") as place:
        os.chown(place, UID, UID)
        done = subprocess.run(
            [
                python,
                "-m",
                "pytest",
                "-o",
                "cache_dir=/dev/null",
                "--basetemp",
                f"{place}/base",
                str(HERE / name),
            ],
            user=UID,
            group=UID,
            extra_groups=[],
            cwd=HERE.parents[1],
            env={
                "PATH": os.environ["PATH"],
                "HOME": place,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout + done.stderr
