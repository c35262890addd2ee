"""Where credentials come from when none were declared: what each cloud's own tools would take."""

from __future__ import annotations

from moorage.specs.stores.record import Access


def completed(access: Access) -> Access:
    """The access with the secrets, region and endpoint that this account has for its kind; as it
    is where secrets were declared or the engine finds them by itself (instance roles)."""
    return access
