"""Where credentials come from when none were declared: what each cloud's own tools would take on
this machine, in the same order. What an instance has by its role is left to obstore."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from moorage.specs.stores import registry
from moorage.specs.stores.record import Access

_VENDORS = "/sys/class/dmi/id/sys_vendor"


def completed(access: Access, environ: Mapping[str, str] | None = None) -> Access:
    """The access with what this account has for its kind; as it is where secrets were declared,
    or where the machine may have a role. Where nothing is found it is anonymous: public buckets
    can be read. StoreProblem where something is found that cannot be used."""
    if access.secrets or access.anonymous:
        return access
    environ = os.environ if environ is None else environ
    kind = registry.kind(access.kind)
    home = Path(environ.get("HOME") or Path.home())
    if access.kind in ("moorage", "file"):
        return access
    if access.kind == "gcs":
        from moorage.data.objects import google  # who works with one kind pays for one

        found = google.completed(access, environ, home)
    elif access.kind == "azure":
        from moorage.data.objects import microsoft

        found = microsoft.completed(access, environ, home)
    elif access.kind == "hf":
        token = _hub_token(environ, home)
        endpoint = access.endpoint or environ.get("HF_ENDPOINT", "").rstrip("/")
        return replace(access, endpoint=endpoint, secrets={"token": token} if token else {})
    else:
        from moorage.data.objects import amazon

        profile = kind.profile if kind is not None else None
        found = amazon.completed(access, environ, home, profile)
    if found.secrets or found.anonymous or _has_role(access.kind, environ):
        return found
    return replace(found, anonymous=True)


def missing(access: Access) -> str:
    """What to say of an access that is anonymous only because nothing was found: where one looked
    for credentials of its kind."""
    kind = registry.kind(access.kind)
    if kind is None:
        return ""
    places = list(kind.variables)
    if kind.profile is not None:
        places.append(kind.profile.credentials)
    elif access.kind == "s3":
        places.append("~/.aws/credentials")
    elif access.kind == "gcs":
        places.append("gcloud auth application-default login")
    return "no credentials were found in " + ", ".join(places) if places else ""


def _has_role(kind: str, environ: Mapping[str, str]) -> bool:
    """May the machine have credentials of its own for this kind? Asking the address of metadata
    takes many seconds on a machine that has none."""
    if any(name in environ for name in _ROLE_VARIABLES):
        return True
    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true" and kind == "s3":
        return False
    vendor = _vendor()
    return {"s3": "amazon", "gcs": "google", "azure": "microsoft"}.get(kind, "-") in vendor


_ROLE_VARIABLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AZURE_FEDERATED_TOKEN_FILE",
    "IDENTITY_ENDPOINT",
    "GCE_METADATA_HOST",
)


def _vendor() -> str:
    try:
        return Path(_VENDORS).read_text(errors="replace").strip().lower()
    except OSError:
        return ""


def _hub_token(environ: Mapping[str, str], home: Path) -> str:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if environ.get(name):
            return environ[name]
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    kept = Path(environ.get("HF_HOME") or cache / "huggingface") / "token"
    place = Path(environ.get("HF_TOKEN_PATH") or kept)
    try:
        return place.read_text().strip()
    except OSError:
        return ""
