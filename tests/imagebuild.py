"""Images for tests, made here in a moment: no registry can be reached, and none is needed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")
_NAMES = (
    "sh ash cat echo env id ls ln mkdir mount pwd rm sleep stat touch true false kill head dd "
    "tail printf wc sync df grep sort tr readlink test chmod chown cp mv trap seq ps nproc tee"
)
APPLETS = _NAMES.split()
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nann:x:1234:1234:Ann:/home/ann:/bin/sh\n"
GROUP = "root:x:0:\nann:x:1234:\nstaff:x:50:ann\n"


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of a layer; a regular file unless `type` says otherwise."""
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def layer(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar archive of these."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def busybox() -> bytes:
    """A layer with a small system."""
    found = [member(name, type=tarfile.DIRTYPE, mode=0o755) for name in ("bin", "etc", "root")]
    found.append(member("home/ann", type=tarfile.DIRTYPE, mode=0o755, uid=1234, gid=1234))
    found.append(member("bin/busybox", BUSYBOX.read_bytes(), mode=0o755))
    found += [member(f"bin/{name}", type=tarfile.SYMTYPE, linkname="busybox") for name in APPLETS]
    found.append(member("etc/passwd", PASSWD.encode()))
    found.append(member("etc/group", GROUP.encode()))
    return layer(*found)


def sha(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def config(layers: Sequence[bytes], wanted: Mapping[str, Any]) -> bytes:
    """The configuration of an image; `wanted` as `Env`, `Cmd`..."""
    return json.dumps(
        {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": dict(wanted),
            "rootfs": {"type": "layers", "diff_ids": [sha(one) for one in layers]},
        }
    ).encode()


def tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info, _ = member(name, content)
            tar.addfile(info, io.BytesIO(content))
    return path


def docker_archive(path: Path, layers: Sequence[bytes], **wanted: Any) -> Path:
    """As `docker save` makes it."""
    settings = config(layers, wanted)
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    entry = {"Config": "config.json", "RepoTags": ["test:1"], "Layers": names}
    files = {"manifest.json": json.dumps([entry]).encode(), "config.json": settings}
    return tar(path, files | dict(zip(names, layers, strict=True)))


def blobs(
    layers: Sequence[bytes], press: Callable[[bytes], bytes] = gzip.compress, **wanted: Any
) -> tuple[bytes, dict[str, bytes]]:
    """A manifest, and all that it names by digest."""
    settings = config(layers, wanted)
    pressed = [press(one) for one in layers]
    kind = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": {
            "mediaType": f"{kind}.config.v1+json",
            "digest": sha(settings),
            "size": len(settings),
        },
        "layers": [
            {"mediaType": f"{kind}.layer.v1.tar+gzip", "digest": sha(one), "size": len(one)}
            for one in pressed
        ],
    }
    return json.dumps(manifest).encode(), {sha(one): one for one in (settings, *pressed)}


def oci_archive(
    path: Path,
    layers: Sequence[bytes],
    press: Callable[[bytes], bytes] = gzip.compress,
    **wanted: Any,
) -> Path:
    """As `podman save --format oci-archive` makes it."""
    manifest, content = blobs(layers, press, **wanted)
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": sha(manifest),
                "size": len(manifest),
                "platform": {"os": "linux", "architecture": ARCHITECTURE},
            }
        ],
    }
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps(index).encode(),
    }
    content = {**content, sha(manifest): manifest}
    files |= {f"blobs/{digest.replace(':', '/')}": blob for digest, blob in content.items()}
    return tar(path, files)
