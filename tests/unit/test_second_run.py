"""`scripts/test.sh`: what failed is run once more, alone, and only then passes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = {
    "passes": "def test_it():\n    pass\n",
    "fails": "def test_it():\n    assert False\n",
    "fails_once": "def test_it():\n    import pathlib as p\n"
    "    f = p.Path(__file__ + '.mark')\n    g = f.exists()\n    f.touch()\n    assert g\n",
    "is_skipped_then": "import pytest\ndef test_it():\n    import pathlib as p\n"
    "    f = p.Path(__file__ + '.mark')\n    g = f.exists()\n    f.touch()\n"
    "    if g:\n        pytest.skip('no')\n    assert g\n",
    "cannot_be_read": "def test_it(:\n",
}


def run(directory: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (directory / f"test_{name}.py").write_text(text)
    (directory / "pytest.ini").write_text("[pytest]\naddopts = -p recorder -p no:cacheprovider\n")
    return subprocess.run(
        ["sh", str(ROOT / "scripts" / "test.sh"), sys.executable, "0"],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("names", "code", "said"),
    [
        (["passes"], 0, ""),
        (["fails", "passes"], 1, "run once more alone"),
        (["fails_once", "passes"], 0, "passed alone"),
        (["fails_once", "fails"], 1, "run once more alone"),
        (["is_skipped_then"], 1, "skipped, but must run"),
        (["cannot_be_read"], 2, ""),
    ],
)
def test_a_second_run(tmp_path: Path, names: list[str], code: int, said: str) -> None:
    done = run(tmp_path, {name: TESTS[name] for name in names})
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout
    assert ("once more alone" in done.stdout) == bool(said)


def test_where_much_fails_nothing_is_run_again(tmp_path: Path) -> None:
    many = "@pytest.mark.parametrize('n', range(4))\ndef test_it(n):\n    assert n < 0\n"
    done = run(tmp_path, {"many": f"import pytest\n{many}"})
    assert done.returncode == 1
    assert "once more" not in done.stdout
