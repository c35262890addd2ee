"""Azure's environment, and the login of its command."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from moorage.specs.stores.record import Access

_KEYS = ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY")
_ACCOUNTS = ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")
_PATIENCE = 30
_LASTS = 1800
"""Seconds for which a token is believed that the command gives; it lasts at least as long."""


def completed(access: Access, environ: Mapping[str, str], home: Path) -> Access:
    """The access with an account and its key or token, as far as there are any."""
    parts = _connection(environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    account = next((environ[name] for name in _ACCOUNTS if environ.get(name)), "")
    account = account or parts.get("AccountName", "")
    same = not access.account or access.account == account
    access = replace(access, account=access.account or account)
    key = next((environ[name] for name in _KEYS if environ.get(name)), "")
    key = key or parts.get("AccountKey", "")
    token = environ.get("AZURE_STORAGE_SAS_TOKEN") or parts.get("SharedAccessSignature", "")
    if same and key:
        return replace(access, secrets={"account_key": key})
    if same and token:
        return replace(access, secrets={"sas_token": token})
    if environ.get("AZURE_CLIENT_ID") and environ.get("AZURE_CLIENT_SECRET"):
        return access  # obstore and rclone read these themselves
    token = _logged_in(environ, home)
    if not token:
        return access
    return replace(access, secrets={"token": token}, expires=time.time() + _LASTS)


def _connection(text: str) -> dict[str, str]:
    """`AccountName=a;AccountKey=k==;...`."""
    return dict(part.split("=", 1) for part in text.split(";") if "=" in part)


def _logged_in(environ: Mapping[str, str], home: Path) -> str:
    config = Path(environ.get("AZURE_CONFIG_DIR") or home / ".azure")
    program = shutil.which("az", path=environ.get("PATH"))
    if program is None or not (config / "azureProfile.json").is_file():
        return ""
    command = ["account", "get-access-token", "--resource", "https://storage.azure.com"]
    try:
        done = subprocess.run(
            [program, *command, "-o", "json"], capture_output=True, timeout=_PATIENCE, check=False
        )
        return str(json.loads(done.stdout)["accessToken"]) if done.returncode == 0 else ""
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        return ""
