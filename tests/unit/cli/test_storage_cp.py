from __future__ import annotations

import pytest

from moorage.cli.storage_cp import _require_apart
from moorage.data.objects.bucket import open_bucket
from moorage.data.transfer.places import Remote
from moorage.errors import InvalidInput
from moorage.specs.stores.record import Access


def place(store: str, endpoint: str, path: str) -> Remote:
    access = Access("s3", endpoint, "us-east-1", anonymous=True)
    return Remote(open_bucket(access, "b", shown=f"{store}://b"), path)


def test_one_bucket_is_one_under_two_names_of_its_store() -> None:
    """With `--delete`, what is to be copied would be deleted."""
    whole = place("lab", "http://127.0.0.1:9", "")
    part = place("same", "http://127.0.0.1:9/", "part")
    for here, there in ((whole, part), (part, whole), (part, part)):
        with pytest.raises(InvalidInput, match="lie in each other"):
            _require_apart(here, there)
    _require_apart(whole, place("other", "http://127.0.0.1:10", "part"))
    _require_apart(part, place("lab", "http://127.0.0.1:9", "party"))
