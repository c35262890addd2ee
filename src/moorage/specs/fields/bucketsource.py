"""What `file_mounts` takes from where: local paths, and addresses of stores. What is wrong with
an address is said without repeating it where it may contain a secret."""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from msgspec import structs

from moorage.specs import buckets
from moorage.specs.checks import check_target
from moorage.specs.mounts import Bucket
from moorage.specs.nodes import List, Place, Text
from moorage.specs.stores.addresses import BadAddress, has_secret, scheme_of
from moorage.specs.stores.registry import KINDS, kind, meant, of_uri
from moorage.specs.values import Rejected, Value, cut
from moorage.units import BadValue

_VARIABLE = re.compile(r"\$(?:\{\s*([A-Za-z_]\w*)[^}]*\}|([A-Za-z_]\w*))")
_SLIPPED = re.compile(r"([A-Za-z][A-Za-z0-9]*):/*(?=\w)")
_ELSEWHERE = ("http", "https", "ftp", "ftps", "sftp", "ssh")


class Source(NamedTuple):
    """What `source` says: an address, or local paths."""

    address: Bucket | None = None
    local: tuple[str, ...] = ()
    listed: bool = False


def read_target(whole: Value, key: str, place: Place, value: Value) -> str:
    """The key of a mount, as a template; what is wrong with it is said at the key's place."""
    if scheme_of(key):
        # Whatever it is, it may have a secret in it: the field's name shall not have it.
        fix = "write it the other way round: /path/in/job: s3://bucket/path"
        problem = whole.problem("a target cannot be the address of a store", fix, place)
        raise Rejected(problem)
    written = structs.replace(value, node=Text(place, key, False, key))
    text = written.text(later=True)
    no_variables(written, text)
    if text != "/" and text.endswith("/"):
        written.reject("a target cannot end with a slash", f"write {cut(text.rstrip('/'))}")
    try:
        return check_target(text)
    except BadValue as error:
        written.reject(f"'{cut(key)}' is not {error.expected}", error.fix)


def read_source(value: Value) -> Source:
    """An address, a local path, or a list of local paths."""
    if isinstance(value.node, List):
        items = value.items()
        if not items:
            value.reject("the list is empty", "write at least one path")
        return Source(local=tuple(map(_local, items)), listed=True)
    if "://" not in value.text(later=True):
        return Source(local=(_local(value),))
    return Source(_address(value))


def no_variables(value: Value, text: str) -> None:
    """Reject a variable as a shell writes it: it would stay as it is, and name something else."""
    found = _VARIABLE.search(text)
    if found is not None:
        name = found[1] or found[2]
        value.reject(f"{cut(found[0])} is not filled in here", f"write ${{{{ env.{name} }}}}")


def reject_address(value: Value, text: str) -> NoReturn:
    """Say why a text is no address of a store."""
    scheme = scheme_of(text)
    found = kind(meant(scheme) or scheme)
    if not has_secret(text):
        if found is not None and scheme not in found.schemes:
            word = found.schemes[0]
            near = f"there is no store '{scheme}'; did you mean '{word}'?"
            value.reject(near, f"write {word}://")
        if scheme in _ELSEWHERE and of_uri(text) is None:
            fix = "fetch it with a command, or put it into a bucket"
            value.reject(f"what is at {scheme}:// is not in a store", fix)
    try:
        buckets.of_uri(text)
    except BadAddress as error:
        value.reject(error.reason, error.fix)
    value.reject("this is an address where none can be")


def _address(value: Value) -> Bucket:
    text = value.text(later=True).strip()
    no_variables(value, text)
    try:
        found = buckets.of_uri(text)
    except BadAddress:
        reject_address(value, text)
    if text.endswith("/"):
        value.reject("a source cannot end with a slash", f"write {cut(text.rstrip('/'))}")
    return structs.replace(found, bucket=value.settled(found.bucket))


def _local(value: Value) -> str:
    path = value.settled(value.text(later=True)).strip()
    if "://" in path:
        value.reject("a list has local paths only", "mount each address by itself")
    slipped = _SLIPPED.match(path)
    if slipped and any(slipped[1].lower() in one.schemes for one in KINDS):
        fix = f"write {slipped[1]}://{cut(path[slipped.end() :])}, or ./{cut(path)}"
        value.reject("this is a local path, and looks like the address of a store", fix)
    no_variables(value, path)
    if path != "/" and path.endswith("/"):
        value.reject("a source cannot end with a slash", f"write {cut(path.rstrip('/'))}")
    return path
