from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.agent.containers.requests import operations
from moorage.agent.gpus.base import Gpu
from moorage.agent.gpus.devices import Devices
from moorage.agent.keeping import SpawnRequest
from moorage.agent.process import DEFAULT_PIDS, ProcessError, prepare
from moorage.data.base import Bind
from moorage.protocol.agent import Isolation, Launch, Limits

FULL = Isolation()
NONE = Isolation(cgroup="no", mounts="no")
GPUS = Devices(
    {n: Gpu(vendor="nvidia", number=n, name="A", memory=1, nodes=("/dev/null",)) for n in (1, 3)}
)
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


def request(
    place: Path, isolation: Isolation = FULL, binds: list[Bind] | None = None, **fields: Any
) -> SpawnRequest:
    directory = place / "agent" / "attempts" / "7.2.0"
    directory.mkdir(parents=True, exist_ok=True)
    shape: dict[str, Any] = {"commands": ["true"], **fields}
    launch = Launch(run=1, run_name="r", user="u", job=7, index=0, attempt=2, **shape)
    return prepare(launch, directory, binds or [], place / "output.log", isolation, GPUS)


def test_gpus_of_others_are_denied_and_lost_ones_are_told(tmp_path: Path) -> None:
    assert request(tmp_path, limits=Limits(gpus=[3])).denied == []  # it is its own node too
    assert request(tmp_path).denied == ["c 1:3"]
    with pytest.raises(ProcessError, match=r"GPU 0, 2 of this node is gone"):
        request(tmp_path, limits=Limits(gpus=[2, 3, 0]))


@pytest.fixture
def volatile() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        yield Path(place)


def test_the_request_names_everything(tmp_path: Path) -> None:
    found = request(
        tmp_path,
        commands=["cd /; true"],
        limits=Limits(memory=5, cpus=1.5, shm=9, gpus=[1, 3]),
        max_duration=3,
        stop_duration=4,
        env={"A": "b", "HOME": "/h"},
        compat=["dstack"],
    )
    directory = tmp_path / "agent" / "attempts" / "7.2.0"
    assert (found.key, found.cwd, found.max_duration, found.grace) == ("7.2.0", "/workflow", 3, 4)
    assert found.argv == [shutil.which("bash") or shutil.which("sh"), f"{directory}/script"]
    assert found.cgroup == {"memory": 5, "cpus": 1.5, "pids": DEFAULT_PIDS}
    assert found.mounts is not None
    assert found.mounts[0] == ["tmpfs", "/dev/shm", 9]
    assert ["bind", f"{directory}/work", "/workflow", False] in found.mounts
    assert found.env["TMPDIR"] == found.env["MOORAGE_SCRATCH"] == f"{directory}/scratch"
    assert found.env["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert (found.env["A"], found.env["HOME"]) == ("b", "/h")
    assert found.env["DSTACK_WORKING_DIR"] == found.env["MOORAGE_WORKDIR"] == "/workflow"
    assert (directory / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (directory / "script").stat().st_mode & 0o777 == 0o600


def test_a_plain_command_needs_no_script(tmp_path: Path) -> None:
    found = request(tmp_path, commands=["no-such-program 'a b'"])
    assert found.direct == ["no-such-program", "a b"]
    place = tmp_path / "agent" / "attempts" / "7.2.0" / "script"
    assert not place.exists()
    told = subprocess.run(found.argv, capture_output=True, text=True, check=False)
    assert told.returncode == 127
    assert told.stderr.endswith("no-such-program: command not found\n")
    assert told.stderr.startswith(f"{place}: line ")
    far = request(tmp_path, commands=["true " + "x" * 20_000, "false"])
    assert (far.direct, far.argv[1]) == (None, str(place))
    assert request(tmp_path, commands=["echo " + "x" * 20_000]).direct is None


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="/dev/shm is not writable here")
def test_a_home_in_shared_memory_is_not_covered(volatile: Path) -> None:
    found = request(volatile)
    assert found.mounts is not None
    directory = f"{volatile}/agent/attempts/7.2.0"
    assert found.mounts[-1] == ["bind", directory, directory, False]


def test_preparing_twice_is_preparing_once(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    work = tmp_path / "agent" / "attempts" / "7.2.0" / "work"
    binds = [Bind(volume, work / "data")]
    first = request(tmp_path, NONE, binds, python=OWN)
    assert request(tmp_path, NONE, binds, python=OWN) == first
    assert (work / "data").resolve() == volume.resolve()


def test_outer_mounts_come_first(tmp_path: Path) -> None:
    binds = [Bind(tmp_path, Path("/a/b/c")), Bind(tmp_path, Path("/a"))]
    mounts = request(tmp_path, FULL, binds).mounts
    assert mounts is not None
    targets = [mount[2] for mount in mounts]
    assert targets.index("/a") < targets.index("/a/b/c")
    if tmp_path.is_relative_to("/tmp"):
        assert targets[-1] == str((tmp_path / "agent" / "attempts" / "7.2.0").resolve())


def test_without_namespaces_paths_are_real(tmp_path: Path) -> None:
    found = request(tmp_path, NONE, working_dir="a/b")
    assert found.mounts is None
    assert found.cgroup is None
    assert found.cwd == f"{tmp_path}/agent/attempts/7.2.0/work/a/b"
    assert Path(found.cwd).is_dir()
    with pytest.raises(ProcessError, match=r"^/data: this node has no mount namespaces"):
        request(tmp_path, NONE, [Bind(tmp_path, Path("/data"))])
    with pytest.raises(ProcessError, match="read-only cannot be kept"):
        request(tmp_path, NONE, [Bind(tmp_path, Path(found.cwd), read_only=True)])
    request(tmp_path, NONE, [Bind(tmp_path, tmp_path)])


def test_a_volume_may_take_the_place_of_the_working_directory(tmp_path: Path) -> None:
    mounts = request(tmp_path, FULL, [Bind(tmp_path, Path("/workflow"))]).mounts
    assert mounts is not None
    there = [mount[1] for mount in mounts if mount[2] == "/workflow"]
    assert there[-1] == str(tmp_path)  # over the attempt's own, which nobody sees then
    work = tmp_path / "agent" / "attempts" / "7.2.0" / "work"
    with pytest.raises(ProcessError, match="take the place of the working directory"):
        request(tmp_path, NONE, [Bind(tmp_path, work)])
    assert work.is_dir()


def test_engines_get_one_mount_at_the_working_directory(tmp_path: Path) -> None:
    launch = Launch(run=1, run_name="r", user="u", job=7, index=0, attempt=2, commands=["true"])
    for binds in ([], [Bind(tmp_path, Path("/workflow"), read_only=True)]):
        made = operations(launch, tmp_path / "7.2.0", binds)
        there = [mount[1:] for mount in made if mount[2] == "/workflow"]
        mine = [[str(tmp_path / "7.2.0/work"), "/workflow", False]]
        assert there == ([[str(tmp_path), "/workflow", True]] if binds else mine)


@pytest.mark.parametrize(
    ("written", "expected"),
    [(None, "/workflow"), ("x/../y", "/workflow/y"), ("/opt", "/opt"), ("..", "/")],
)
def test_working_directories(tmp_path: Path, written: str | None, expected: str) -> None:
    assert request(tmp_path, working_dir=written).cwd == expected


def test_a_python_is_first_on_the_path(tmp_path: Path) -> None:
    found = request(tmp_path, python=OWN, env={"PATH": "/usr/bin"})
    links, rest = found.env["PATH"].split(":")
    assert rest == "/usr/bin"
    for name in ("python", "python3"):
        assert os.access(Path(links) / name, os.X_OK)
    with pytest.raises(ProcessError, match=r"no Python 2\.3"):
        request(tmp_path, python="2.3")


def test_a_shell_must_exist(tmp_path: Path) -> None:
    assert request(tmp_path, shell="sh").argv[0] == shutil.which("sh")
    with pytest.raises(ProcessError, match="shell: /bin/no-such is not installed"):
        request(tmp_path, shell="/bin/no-such")
