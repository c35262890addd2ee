"""What can go wrong with a store: one class, whatever engine or cloud said it."""

from __future__ import annotations

import re
from typing import Literal

from moorage.errors import Forbidden, NotFound, Unavailable

Reason = Literal[
    "no-bucket", "no-object", "denied", "unreachable", "changed", "not-possible", "failed"
]

_FIXES: dict[Reason, str] = {
    "no-bucket": "check its name and region, or make it: moorage storage create",
    "no-object": "check its name (moorage storage du shows what is there)",
    "denied": "check the credentials and what they may do there",
    "unreachable": "check the endpoint and the network",
    "changed": "try again",
    "not-possible": "",
    "failed": "try again",
}
_EXIT_CODES: dict[Reason, int] = {
    "no-bucket": NotFound.exit_code,
    "no-object": NotFound.exit_code,
    "denied": Forbidden.exit_code,
}
_STATUS = re.compile(r"status (?:code )?(\d{3})|(\d{3}) [A-Z][a-z]+")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,200})</Message>")
_DENIED_CODES = (
    "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "AuthenticationFailed", "AuthorizationFailure", "RequestTimeTooSkewed",
)  # fmt: skip
_AWAY = (
    "error sending request", "connect error", "dns error", "operation timed out", "timed out",
    "connection refused", "connection closed", "certificate", "name or service", "name resolution",
)  # fmt: skip


class StoreProblem(Unavailable):
    """A store does not do what was asked: `place`, why, and what to do about it. Never has
    credentials in it."""

    def __init__(self, reason: Reason, place: str, said: str, fix: str = "") -> None:
        self.reason = reason
        self.place = place
        self.said = said
        self.fix = fix or _FIXES[reason]
        self.exit_code = _EXIT_CODES.get(reason, self.exit_code)
        text = f"{place}: {said}"
        super().__init__(f"{text}; {self.fix}" if self.fix else text)


def problem_of(error: Exception, place: str, *, whole_bucket: bool = False) -> StoreProblem:
    """What an engine's exception means. `whole_bucket`: nothing but the bucket was asked for, so
    that `not found` means the bucket."""
    if isinstance(error, StoreProblem):
        return error
    text = str(error)
    codes = _CODE.findall(text)
    code = codes[0] if codes else ""
    name = type(error).__name__
    if code in ("NoSuchBucket", "ContainerNotFound") or (
        isinstance(error, FileNotFoundError) and whole_bucket
    ):
        return StoreProblem("no-bucket", place, "there is no such bucket")
    if isinstance(error, FileNotFoundError):
        return StoreProblem("no-object", place, "there is no such object")
    if name in ("PreconditionError", "AlreadyExistsError") or code == "PreconditionFailed":
        return StoreProblem("changed", place, "the object has changed meanwhile")
    if name in ("PermissionDeniedError", "UnauthenticatedError") or code in _DENIED_CODES:
        detail = f" ({code})" if code else ""
        return StoreProblem("denied", place, f"access denied{detail}")
    if name == "NotSupportedError" or "NotImplemented" in text:
        return StoreProblem("not-possible", place, "the store cannot do that")
    if name == "InvalidPathError" or "Could not parse path" in text:
        said = "its key has an empty part, '.', '..' or a control character"
        return StoreProblem("not-possible", place, said, "rename it in the store")
    lowered = text.lower()
    if "missing credentials" in lowered or "credential" in lowered or "169.254" in text:
        said = "no credentials were found"
        return StoreProblem("denied", place, said, "moorage store check says where they may be")
    if any(word in lowered for word in _AWAY):
        return StoreProblem("unreachable", place, f"the store does not answer{why(lowered)}")
    return StoreProblem("failed", place, _brief(text, code))


def why(lowered: str) -> str:
    """Of an error in lower case, from whatever library: why nothing answers, in brackets."""
    for sign, word in (
        ("connection refused", "connection refused"),
        ("dns error", "its name is not known"),
        ("name or service", "its name is not known"),
        ("name resolution", "its name is not known"),
        ("certificate", "its certificate is not trusted"),
        ("timed out", "no answer in time"),
    ):
        if sign in lowered:
            return f" ({word})"
    return ""


def _brief(text: str, code: str) -> str:
    """One line without the request, which may have a signature in it."""
    message = _MESSAGE.search(text)
    if code:
        return f"the store says {code}" + (f": {message[1]}" if message else "")
    status = _STATUS.search(text)
    if status:
        return f"the store says {status[1] or status[2]}"
    first = text.splitlines()[0] if text else "it failed"
    return re.sub(r"https?://\S+", "its URL", first)[:200]
