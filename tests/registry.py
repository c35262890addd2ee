"""A registry on loopback, Debian's `docker-registry`, with an account or without."""

from __future__ import annotations

import base64
import http.client
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ACCOUNT, PASSWORD = "bob", "s3cret word"
_HASH = "$2b$05$abcdefghijklmnopqrstuuDM.KJwaIBUdFNSI0sjlLSPixyAOKFFm"
_CONFIG = """\
version: 0.1
log: {{level: info}}
storage: {{filesystem: {{rootdirectory: {place}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
_AUTH = "auth: {{htpasswd: {{realm: test, path: {path}}}}}\n"


@dataclass
class Registry:
    """It listens."""

    port: int
    process: subprocess.Popen[str]
    log: Path
    authorization: str = ""

    def name(self, repository: str) -> str:
        return f"localhost:{self.port}/{repository}"

    def push(self, repository: str, tag: str, manifest: bytes, blobs: Mapping[str, bytes]) -> None:
        """As clients do it, in the fewest requests."""
        for digest, content in blobs.items():
            answer = self._ask("POST", f"/v2/{repository}/blobs/uploads/")
            place = answer.getheader("Location") or ""
            mark = "&" if "?" in place else "?"
            self._ask("PUT", f"{place}{mark}digest={digest}", content, "application/octet-stream")
        kind = "application/vnd.oci.image.manifest.v1+json"
        self._ask("PUT", f"/v2/{repository}/manifests/{tag}", manifest, kind)

    def _ask(
        self, method: str, url: str, body: bytes = b"", kind: str = ""
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": self.authorization, "Content-Type": kind}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, url, body, {k: v for k, v in headers.items() if v})
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        assert answer.status < 300, (method, url, answer.status)
        return answer

    def requests(self, part: str) -> int:
        """How often it was asked for something with this in its path."""
        lines = self.log.read_text().splitlines()
        return sum("response completed" in line and part in line for line in lines)


@contextmanager
def serve(place: Path, *, account: bool = False) -> Iterator[Registry]:
    """Skips where it is not installed."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config, log = place / "config.yml", place / "log"
    text = _CONFIG.format(place=place / "data", port=port)
    authorization = ""
    if account:
        (place / "htpasswd").write_text(f"{ACCOUNT}:{_HASH}\n")
        text += _AUTH.format(path=place / "htpasswd")
        authorization = "Basic " + base64.b64encode(f"{ACCOUNT}:{PASSWORD}".encode()).decode()
    config.write_text(text)
    process = subprocess.Popen(
        [program, "serve", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "listening on" in line:
                break
        with subprocess.Popen(["tee", str(log)], stdin=process.stdout, stdout=subprocess.DEVNULL):
            try:
                yield Registry(port, process, log, authorization)
            finally:
                process.kill()
                process.wait()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
