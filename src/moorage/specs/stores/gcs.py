"""Google Cloud Storage."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moorage.specs.stores.addresses import joined, plain
from moorage.specs.stores.record import Access, Engine, StoreKind


def check_name(name: str) -> str:
    """Google's rules for bucket names."""
    parts = name.split(".")
    if not 3 <= len(name) <= (222 if len(parts) > 1 else 63):
        return "it must have 3 to 63 characters, or up to 222 with dots"
    if any(len(part) > 63 for part in parts):
        return "each part between dots must have at most 63 characters"
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*[a-z0-9]", name):
        return "use lowercase letters, digits, . _ and -, with a letter or digit at both ends"
    if re.search(r"\.\.|\.-|-\.", name):
        return "next to a dot there may be no other dot and no dash"
    if re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", name):
        return "it may not look like an IP address"
    if name.startswith("goog") or re.search(r"g[o0]{2}g[l1]e", name):
        return "it may not begin with goog or resemble google"
    return ""


def _rclone(access: Access) -> Mapping[str, str]:
    options = {
        "type": "google cloud storage",
        "anonymous": "true" if access.anonymous else "",
        "env_auth": "" if access.secrets or access.anonymous else "true",
        "service_account_credentials": access.secrets.get("service_account_key", ""),
        "access_token": access.secrets.get("token", ""),
        "endpoint": f"{access.endpoint.rstrip('/')}/storage/v1/" if access.endpoint else "",
        "location": access.region,
        # Access lists of single objects are an error where a bucket has uniform access.
        "bucket_policy_only": "true",
        "no_check_bucket": "true",
    }
    return {name: text for name, text in options.items() if text}


def _obstore(access: Access, bucket: str) -> tuple[Engine, Mapping[str, str]]:
    config = {
        "bucket": bucket,
        "service_account_key": access.secrets.get("service_account_key", ""),
        "bearer_token": access.secrets.get("token", ""),
        "skip_signature": "true" if access.anonymous else "",
        "base_url": access.endpoint.rstrip("/"),
    }
    return "gcs", {name: text for name, text in config.items() if text}


KIND = StoreKind(
    name="gcs",
    title="Google Cloud Storage",
    schemes=("gs",),
    read=plain,
    write=lambda address: joined("gs", address.bucket, address.path),
    check_name=check_name,
    rclone=_rclone,
    obstore=_obstore,
    aliases=("gs", "gcp"),
    variables=("GOOGLE_APPLICATION_CREDENTIALS",),
)
