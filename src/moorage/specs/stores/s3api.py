"""What all kinds have in common that speak Amazon's API: names, and how both engines are told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from moorage.specs.stores.record import Access, Engine

VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")
_ADDRESS = r"\d{1,3}(\.\d{1,3}){3}"
_SUFFIXES = ("-s3alias", "--ol-s3")


def check_name(name: str) -> str:
    """Amazon's rules for the names of general purpose buckets."""
    if not 3 <= len(name) <= 63:
        return "it must have 3 to 63 characters"
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*[a-z0-9]", name):
        return "use lowercase letters, digits, . and -, with a letter or digit at both ends"
    if ".." in name:
        return "two dots may not follow each other"
    if re.fullmatch(_ADDRESS, name):
        return "it may not look like an IP address"
    if name.startswith("xn--"):
        return "it may not begin with xn--"
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return f"it may not end with {suffix}"
    return ""


def rclone(access: Access, provider: str, endpoint: str = "") -> Mapping[str, str]:
    """Options of rclone's s3 backend. `endpoint`: the kind's usual one, unless another is given.

    Buckets are made and checked by the server, so rclone shall not try (`no_check_bucket`): many
    keys may write objects only.
    """
    options = {
        "type": "s3",
        "provider": provider,
        "env_auth": "false" if access.secrets or access.anonymous else "true",
        "endpoint": access.endpoint or endpoint,
        "region": access.region,
        "no_check_bucket": "true",
        **_keys(access),
    }
    if access.path_style or access.endpoint:
        by_path = access.path_style or _is_bare(access.endpoint)
        options["force_path_style"] = "true" if by_path else "false"
    return {name: text for name, text in options.items() if text}


def obstore(
    access: Access, bucket: str, endpoint: str = "", *, path_style: bool = False
) -> tuple[Engine, Mapping[str, str]]:
    """obstore's S3Store. Where the bucket is part of the host name, its endpoint must say so.

    Whether plain HTTP is allowed is an option of the client, not of the store, and not said here.
    """
    place = access.endpoint or endpoint
    by_path = access.path_style or path_style or "." in bucket or _is_bare(place)
    config = {
        "bucket": bucket,
        "region": access.region,
        "virtual_hosted_style_request": "false" if by_path else "true",
        "endpoint": place if by_path or not place else _below(place, bucket),
        "skip_signature": "true" if access.anonymous else "",
        **_keys(access),
    }
    return "s3", {name: text for name, text in config.items() if text}


def required(access: Access, kind: str) -> str:
    """The endpoint, of a kind that has none of its own. ValueError where it was not declared."""
    if access.endpoint:
        return access.endpoint
    fix = f"declare the store: moorage store add NAME --type {kind} --endpoint URL"
    raise ValueError(f"nothing says where this store is; {fix}")


def _keys(access: Access) -> dict[str, str]:
    names = ("access_key_id", "secret_access_key", "session_token")
    return {name: access.secrets[name] for name in names if name in access.secrets}


def _is_bare(endpoint: str) -> bool:
    """Can no host be called `bucket.` and this? So with addresses, and names without a dot."""
    host = urlsplit(endpoint).hostname or ""
    return bool(host) and ("." not in host or re.fullmatch(_ADDRESS, host) is not None)


def _below(endpoint: str, bucket: str) -> str:
    """`https://bucket.host`."""
    scheme, _, rest = endpoint.partition("://")
    return f"{scheme}://{bucket}.{rest}"
