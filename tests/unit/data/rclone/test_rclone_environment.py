"""What a process of rclone knows of its agent's environment."""

from __future__ import annotations

import pytest

from moorage.data.rclone.environment import of_process
from moorage.data.rclone.options import variables
from moorage.specs.mounts import Bucket
from moorage.specs.stores import registry
from moorage.specs.stores.record import Access

OURS = {
    "PATH": "/bin",
    "HOME": "/home/ann",
    "HTTPS_PROXY": "http://proxy:3128",
    "SSL_CERT_FILE": "/etc/ca.pem",
}
SECRETS = {
    "PGPASSWORD": "pw",
    "MOORAGE_DATABASE": "postgresql://u:pw@db/m",
    "MOORAGE_TOKEN": "t",
    "RCLONE_CONFIG_BUCKET_TOKEN": "of another",
    "RCLONE_RC_ADDR": ":5572",
    "GITHUB_TOKEN": "t",
}
CHAINS = {
    "s3": {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_PROFILE": "p"},
    "gcs": {"GOOGLE_APPLICATION_CREDENTIALS": "/key.json"},
    "azure": {"AZURE_STORAGE_KEY": "key", "AZURE_CLIENT_SECRET": "secret"},
}
KEYS = {
    "s3": {"access_key_id": "own", "secret_access_key": "own"},
    "gcs": {"service_account_key": "{}"},
    "azure": {"account_key": "own"},
}


def environment(access: Access) -> dict[str, str]:
    kind = registry.kind(access.kind)
    assert kind is not None
    own = variables(Bucket("/data", bucket="b"), kind.rclone(access))
    everything = {**OURS, **SECRETS, **{k: v for one in CHAINS.values() for k, v in one.items()}}
    found = of_process(own, everything)
    assert own.items() <= found.items()
    return {name: text for name, text in found.items() if name not in own}


@pytest.mark.parametrize("kind", CHAINS)
def test_credentials_of_the_node_are_for_stores_that_use_them(kind: str) -> None:
    assert environment(Access(kind, account="acc")) == {**OURS, **CHAINS[kind]}
    assert environment(Access(kind, account="acc", secrets=KEYS[kind])) == OURS
    assert environment(Access(kind, account="acc", anonymous=True)) == OURS
