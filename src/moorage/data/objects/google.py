"""Google's application default credentials."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from moorage.data.objects.errors import StoreProblem
from moorage.specs.stores.record import Access

_TOKENS = "https://oauth2.googleapis.com/token"
_PATIENCE = 20


def completed(access: Access, environ: Mapping[str, str], home: Path) -> Access:
    """The access with the key of a service account, or with a token of the user who logged in."""
    named = environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    config = Path(environ.get("CLOUDSDK_CONFIG") or home / ".config" / "gcloud")
    path = Path(named) if named else config / "application_default_credentials.json"
    try:
        text = path.read_text()
        found = json.loads(text)
    except OSError as error:
        if named:
            said = (error.strerror or str(error)).lower()
            fix = "set GOOGLE_APPLICATION_CREDENTIALS"
            raise StoreProblem("denied", named, said, fix) from None
        return access
    except ValueError:
        raise StoreProblem("denied", str(path), "the file cannot be understood") from None
    kind = found.get("type") if isinstance(found, dict) else None
    if kind == "service_account":
        return replace(access, secrets={"service_account_key": text})
    if kind == "authorized_user":
        token, lasts = _token(found, path)
        return replace(access, secrets={"token": token}, expires=time.time() + lasts)
    said = f"credentials of the type {kind} are not supported"
    fix = "use a service account, or: gcloud auth application-default login"
    raise StoreProblem("denied", str(path), said, fix)


def _token(found: Mapping[str, str], path: Path) -> tuple[str, float]:
    from http.client import HTTPException  # with TLS and more, they take 30 ms to load
    from urllib.error import HTTPError
    from urllib.parse import urlencode
    from urllib.request import Request, urlopen

    asked = {name: found.get(name, "") for name in ("client_id", "client_secret", "refresh_token")}
    body = urlencode({**asked, "grant_type": "refresh_token"}).encode()
    place = found.get("token_uri", _TOKENS)
    fix = "gcloud auth application-default login"
    if not place.startswith(("https://", "http://127.0.0.1:")):
        raise StoreProblem("denied", str(path), "its token_uri is no https address", fix)
    try:
        with urlopen(Request(place, body), timeout=_PATIENCE) as reply:  # noqa: S310  # checked above
            answer = json.load(reply)
        return str(answer["access_token"]), float(answer.get("expires_in", 3600))
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        if isinstance(error, HTTPError):
            error.close()
        said = "Google gives no token for this login"
        raise StoreProblem("denied", str(path), said, fix) from None
