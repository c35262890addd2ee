"""What a store allows is found out before a run is accepted: moto, with its permissions on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from moorage.protocol.agent import Start
from moorage.specs.stores.record import Access
from system.servers import Server, SocketAgent, serving

boto3 = pytest.importorskip("boto3")

READER = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": "*"}
    ],
}
_MOTO = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"


class Cloud:
    """A moto of its own: permissions are switched on for the whole process."""

    def __init__(self, log: Path) -> None:
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-c", _MOTO], stdout=subprocess.PIPE, stderr=output
            )
        self.endpoint = self._listening(log)

    def _listening(self, log: Path) -> str:
        tail = subprocess.Popen(
            ["tail", f"--pid={self._process.pid}", "-s", "0.1", "-n", "+1", "-f", str(log)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert tail.stdout is not None
        try:
            for line in tail.stdout:
                if "Running on http://" in line:
                    return "http://" + line.split("Running on http://")[1].split()[0]
        finally:
            tail.kill()
            tail.wait()
            tail.stdout.close()
        raise AssertionError(log.read_text())

    def client(self, service: str, key: str = "root", secret: str = "root") -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
        )

    def user(self, name: str, policy: dict[str, Any]) -> dict[str, str]:
        """Its keys."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        given = iam.create_access_key(UserName=name)["AccessKey"]
        return {
            "access_key_id": given["AccessKeyId"],
            "secret_access_key": given["SecretAccessKey"],
        }

    def enforce(self, after: int) -> None:
        """Permissions count from now on (0), or never (a large number)."""
        parts = urlsplit(self.endpoint)
        assert parts.hostname
        connection = HTTPConnection(parts.hostname, parts.port)
        connection.request("POST", "/moto-api/reset-auth", str(after))
        connection.getresponse().read()
        connection.close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    found = Cloud(tmp_path_factory.mktemp("moto") / "log")
    yield found
    found.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "home").mkdir(0o700)
    with serving(tmp_path / "home") as started:
        yield started


def declare(server: Server, cloud: Cloud, secrets: dict[str, str], **more: Any) -> None:
    body = {
        "name": "cloud", "kind": "s3", "endpoint": cloud.endpoint, "region": "us-east-1",
        "path_style": True, "secrets": secrets, **more,
    }  # fmt: skip
    reply = server.call("POST", "/v1/stores", body)
    assert reply.status == 200, reply.body


def problems(server: Server, bucket: str, **fields: Any) -> list[str]:
    mount = {"type": "bucket", "target": "/d", "store": "cloud", "bucket": bucket, **fields}
    task = {"type": "task", "commands": ["true"], "mounts": [mount]}
    reply = server.call("POST", "/v1/plan", {"runs": [{"spec": task}]})
    assert reply.status == 200, reply.body
    found: list[str] = reply.json["runs"][0].get("problems", [])
    return found


def test_reading_is_not_writing(server: Server, cloud: Cloud) -> None:
    bucket = f"set-{os.urandom(4).hex()}"
    cloud.client("s3").create_bucket(Bucket=bucket)
    declare(server, cloud, cloud.user(f"reader-{bucket}", READER))
    cloud.enforce(0)
    try:
        assert problems(server, bucket, read_only=True) == []
        assert problems(server, bucket, mode="copy") == []
        [problem] = problems(server, bucket)
        assert "may not be written to" in problem
        assert "mount with read_only: true" in problem
        assert len(problems(server, bucket, mode="copy", sync_back=True)) == 1
        mount = {"type": "bucket", "target": "/d", "store": "cloud", "bucket": f"new-{bucket}",
                 "managed": True}  # fmt: skip
        task = {"type": "task", "commands": ["true"], "mounts": [mount]}
        body = {"request_id": "r", "runs": [{"spec": task}]}
        refused = server.call("POST", "/v1/runs", body)
        assert refused.status == 422
        assert "access denied" in refused.json["message"]
        assert server.call("GET", "/v1/storages").json["storages"] == []
    finally:
        cloud.enforce(10**9)


def test_nodes_get_credentials_of_the_role_for_their_buckets(server: Server, cloud: Cloud) -> None:
    bucket = f"set-{os.urandom(4).hex()}"
    cloud.client("s3").create_bucket(Bucket=bucket)
    role = f"arn:aws:iam::123456789012:role/{bucket}"
    keys = {"access_key_id": "root-key", "secret_access_key": "root-secret-of-the-cloud"}
    declare(server, cloud, keys, role=role)
    with SocketAgent(server) as node:
        node.greet()
        mount = {"type": "bucket", "target": "/d", "store": "cloud", "bucket": bucket}
        server.submit(mounts=[mount])
        launch = node.expect(Start).launch
        path = f"/v1/node/stores/cloud?attempt={launch.job}.{launch.attempt}.0"
        reply = server.call("GET", path, token=server.node_token)
        assert reply.status == 200, reply.body
        access = msgspec.json.decode(reply.body, type=Access)
        assert b"root-secret" not in reply.body
        assert set(access.secrets) == {"access_key_id", "secret_access_key", "session_token"}
        assert access.expires is not None
        again = server.call("GET", path, token=server.node_token)
        assert again.body == reply.body, "one for all, as long as it is fresh"


def test_federation_narrows_what_the_user_may(server: Server, cloud: Cloud) -> None:
    keys = {"access_key_id": "root-key", "secret_access_key": "root-secret-of-the-cloud"}
    declare(server, cloud, keys, role="federation")
    reply = server.call("GET", "/v1/stores/cloud/access?bucket=mine")
    assert "session_token" in reply.json["secrets"]
    assert "session_token" not in server.call("GET", "/v1/stores/cloud/access").json["secrets"]
