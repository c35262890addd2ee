"""The parts of addresses that all kinds of stores share."""

from __future__ import annotations

import re

from moorage.specs.stores.record import Address

SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*"
_LONGEST = 2048
_SIGNED = re.compile(
    r"[?&](sig|signature|x-amz-signature|x-goog-signature|awsaccesskeyid|"
    r"x-amz-credential|x-amz-security-token|access_token|token)=",
    re.IGNORECASE,
)


class BadAddress(ValueError):
    """An address that says nothing, and why. Never has the address itself, which may contain a
    secret. `fix`: what to write instead."""

    def __init__(self, reason: str, fix: str = "") -> None:
        self.reason = reason
        self.fix = fix
        super().__init__(f"{reason}; {fix}" if fix else reason)


def scheme_of(text: str) -> str:
    """What stands before `://`, in lower case; empty where nothing does."""
    found = re.match(rf"({SCHEME})://", text)
    return found[1].lower() if found else ""


def has_secret(text: str) -> bool:
    """Whether a URI gives credentials: before an `@` in its host, or as a signed query."""
    authority, _, rest = text.partition("://")[2].partition("/")
    return "@" in authority or _SIGNED.search(f"{authority}/{rest}") is not None


def rest_of(text: str) -> str:
    """What follows the scheme. BadAddress for what no store may be asked for."""
    if has_secret(text):
        raise BadAddress(
            "the URI contains credentials, which would be stored with the run",
            "remove them, and give them to `moorage store add`",
        )
    if len(text) > _LONGEST:
        raise BadAddress(f"the URI is longer than {_LONGEST} characters")
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise BadAddress("the URI contains a control character")
    return text.partition("://")[2]


def split(rest: str) -> tuple[str, str]:
    """First name and path below it, of `name/a/b` and `name/a/b/`."""
    bucket, _, path = rest.partition("/")
    if not bucket:
        raise BadAddress("the name of a bucket is missing", "write it after ://")
    return bucket, clean(path)


def clean(path: str) -> str:
    """A path below a bucket without a slash at its end."""
    path = path.removesuffix("/")
    if any(part in (".", "..", "") for part in path.split("/")) and path:
        raise BadAddress("the path has an empty part, '.' or '..'", "write it without these")
    return path


def plain(text: str) -> Address:
    """`scheme://bucket/path`, as most kinds and all declared stores are addressed."""
    return Address(*split(rest_of(text)))


def joined(scheme: str, *parts: str) -> str:
    """The other way round; empty parts are left out."""
    return f"{scheme}://" + "/".join(part for part in parts if part)
