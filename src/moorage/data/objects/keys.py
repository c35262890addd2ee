"""Keys of S3 and alike as obstore asks for them. With plain settings it would add what the
process's environment has beside them, such as another account's AWS_SESSION_TOKEN."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from moorage.specs.stores.record import Access

_SPARE = 60
"""Seconds before they expire after which they are found anew."""


class Keys:
    """`found` at first; then what `renew` gives, or the account's own chain where nobody
    `declared` any."""

    def __init__(
        self, declared: Access, found: Access, renew: Callable[[], Access] | None = None
    ) -> None:
        self._declared, self._found, self._renew = declared, found, renew

    def __call__(self) -> Any:
        expires = self._found.expires
        if expires is not None and expires < time.time() + _SPARE:
            self._found = self._anew()
            expires = self._found.expires
        secrets = self._found.secrets
        return {
            "access_key_id": secrets.get("access_key_id", ""),
            "secret_access_key": secrets.get("secret_access_key", ""),
            "token": secrets.get("session_token"),
            "expires_at": None if expires is None else datetime.fromtimestamp(expires, UTC),
        }

    def _anew(self) -> Access:
        from moorage.data.objects.chains import completed

        if not self._declared.secrets:
            return completed(self._declared)
        return self._found if self._renew is None else self._renew()
