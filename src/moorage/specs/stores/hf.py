"""Hugging Face: repositories, read over HTTP. A bucket here is a namespace and a name, with
`datasets` or `spaces` before them where it is no model, and a revision after `@` where one is
given; or `buckets/...`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

from moorage.specs.stores.addresses import BadAddress, clean, joined, rest_of
from moorage.specs.stores.record import Access, Address, Engine, StoreKind

_SITE = "https://huggingface.co"
_PART = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_KINDS = ("datasets", "spaces", "buckets")
_FIX = "write hf://NAMESPACE/NAME, or hf://datasets/NAMESPACE/NAME"
_GATEWAY = "its buckets speak S3: moorage store add NAME --type s3 --endpoint URL"


def check_name(name: str) -> str:
    """`namespace/name`, with what kind of thing it is before it."""
    parts = name.partition("@")[0].split("/")
    if parts[0] in _KINDS:
        parts = parts[1:]
    if len(parts) != 2:
        return "it must be a namespace and a name, with one slash between"
    if not all(_PART.fullmatch(part) for part in parts):
        return "use letters, digits, . _ and -, with a letter or digit first, at most 96 in a part"
    return ""


def _read(text: str) -> Address:
    parts = rest_of(text).split("/")
    count = 3 if parts[0] in _KINDS else 2
    if len(parts) < count or not all(parts[:count]):
        raise BadAddress("this does not name a repository of Hugging Face", _FIX)
    return Address("/".join(parts[:count]), clean("/".join(parts[count:])))


def _rclone(access: Access) -> Mapping[str, str]:
    raise ValueError(f"rclone has no backend for Hugging Face; {_GATEWAY}")


def _obstore(access: Access, bucket: str) -> tuple[Engine, Mapping[str, str]]:
    if bucket.startswith("buckets/"):
        raise ValueError(f"Hugging Face's buckets are not reached over HTTP; {_GATEWAY}")
    name, _, revision = bucket.partition("@")
    site = (access.endpoint or _SITE).rstrip("/")
    plural, _, rest = name.partition("/")
    api = name if plural in _KINDS and "/" in rest else f"models/{name}"
    return "http", {
        "page": f"{site}/{name}",
        "api": f"{site}/api/{api}",
        # A slash of a revision (refs/pr/1) is written %2F, in addresses as in requests.
        "revision": quote(unquote(revision or "main"), safe=""),
    }


KIND = StoreKind(
    name="hf",
    title="Hugging Face",
    schemes=("hf",),
    read=_read,
    write=lambda address: joined("hf", address.bucket, address.path),
    check_name=check_name,
    rclone=_rclone,
    obstore=_obstore,
    aliases=("huggingface",),
    variables=("HF_TOKEN", "HF_ENDPOINT"),
    read_only=True,
    mountable=False,
)
