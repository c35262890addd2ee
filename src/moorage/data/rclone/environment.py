"""What rclone gets of an agent's or a server's environment: nothing but what it needs. A server's
may hold the keys of its database and of others' stores."""

from __future__ import annotations

import os
from collections.abc import Mapping

from moorage.data.rclone import lending, options

KEPT = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LANG", "LC_ALL"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE"}
    | {f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")}
    | {f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "ALL", "NO")}
)
"""What says where things are, and how the network is reached."""
CHAINS: Mapping[str, tuple[str, ...]] = {
    "s3": ("AWS_",),
    "google cloud storage": ("GOOGLE_", "GCLOUD_", "CLOUDSDK_", "GCE_"),
    "azureblob": ("AZURE_", "IDENTITY_", "MSI_"),
}
"""How the variables begin that a backend's own chain of credentials reads."""


def of_process(
    variables: Mapping[str, str], environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The whole environment of one rclone: its mount's `variables`, and what it needs of
    `environ`. What holds credentials only where the store is to use those of the node."""
    environ = os.environ if environ is None else environ
    chain = _chain(variables)
    found = {
        name: text for name, text in environ.items() if name in KEPT or name.startswith(chain)
    }
    return {**found, **variables}


def _chain(variables: Mapping[str, str]) -> tuple[str, ...]:
    def option(name: str) -> str:
        return variables.get(f"RCLONE_CONFIG_{options.REMOTE.upper()}_{name}", "")

    own = option("ENV_AUTH") == "true" and not option(lending.PROFILE.upper())
    return CHAINS.get(option("TYPE"), ()) if own else ()
