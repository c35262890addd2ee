"""The same tests as an ordinary user, when root runs them: user namespaces instead of root's
mounts, descent instead of control groups."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

UID = 1234
HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]


def interpreter() -> str | None:
    """One that every user may run, and that understands what is installed here."""
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    others = shutil.which(f"python{wanted}", path="/usr/bin:/usr/local/bin")
    for found in (os.path.realpath(sys.executable), others):
        if found is not None and passable(Path(found)):
            return found
    return None


def passable(path: Path) -> bool:
    """Whether every user gets to this file, and may read it."""
    outer = all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)
    return outer and bool(path.stat().st_mode & 0o004)


@pytest.mark.root
@pytest.mark.parametrize(
    "name", ["system/test_keeper.py", "system/test_keeper_sandbox.py", "unit/data/test_blobs.py"]
)
def test_as_an_ordinary_user(name: str) -> None:
    python = interpreter()
    if python is None or not Path(__file__).stat().st_mode & 0o004:
        pytest.skip("other users may not read these files, or run this interpreter")
    # Not in /tmp: jobs have their own, and some tests look for what is outside of it.
    with tempfile.TemporaryDirectory(prefix="keeper-user-", dir="/var/lib") as place:
        os.chown(place, UID, UID)
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-euc", bring_in(place, python, name)],
            env={"PATH": os.environ["PATH"], "HOME": place, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout + done.stderr


def bring_in(place: str, python: str, name: str) -> str:
    """A script that shows the checkout and its packages where that user gets to them (root's own
    home is closed to others), and runs the tests there."""
    lines = ["mount --make-rslave /"]
    roots = [CHECKOUT / "src", CHECKOUT / "tests"]
    packages = [path for path in map(Path, site.getsitepackages()) if path.is_dir()]
    for number, source in enumerate([CHECKOUT, *packages]):
        seen = Path(place, f"seen-{number}")
        lines += [f"mkdir {seen}", f"mount --bind '{source}' {seen}"]
        roots = [seen / r.relative_to(source) if r.is_relative_to(source) else r for r in roots]
        roots += [seen] if number else []
    lines += [
        f"cd {place}/seen-0",
        f"export PYTHONPATH={':'.join(map(str, roots))}",
        f"exec setpriv --reuid={UID} --regid={UID} --clear-groups {python} -m pytest"
        f" --basetemp {place}/base tests/{name}",
    ]
    return "\n".join(lines)
