"""A directory as a store: what lies in it are its buckets. Undeclared, the directory is `/`, and
`file:///data/set` is the path `set` in the bucket `data`."""

from __future__ import annotations

from collections.abc import Mapping

from moorage.specs.stores.addresses import BadAddress, joined, rest_of, split
from moorage.specs.stores.record import Access, Address, Engine, StoreKind


def check_name(name: str) -> str:
    """The name of a directory."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        return "it must be the name of a directory"
    return "it must have at most 255 bytes" if len(name.encode()) > 255 else ""


def _read(text: str) -> Address:
    host, slash, rest = rest_of(text).partition("/")
    if host not in ("", "localhost") or not slash:
        raise BadAddress("a host is named where none can be", "write file:///path, three slashes")
    if not rest:
        raise BadAddress("this is the root directory", "name a directory in it")
    return Address(*split(rest))


def _rclone(access: Access) -> Mapping[str, str]:
    # The local backend has no root of its own; an alias of a path has.
    return {"type": "alias", "remote": access.endpoint or "/"}


def _obstore(access: Access, bucket: str) -> tuple[Engine, Mapping[str, str]]:
    return "local", {"prefix": f"{access.endpoint.rstrip('/')}/{bucket}"}


KIND = StoreKind(
    name="file",
    title="a directory",
    schemes=("file",),
    read=_read,
    write=lambda address: joined("file", "", address.bucket, address.path).replace("://", ":///"),
    check_name=check_name,
    rclone=_rclone,
    obstore=_obstore,
    aliases=("directory",),
)
