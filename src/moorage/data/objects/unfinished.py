"""Uploads in parts that nobody finished. Stores that speak Amazon's API keep their parts, and bill
them, and no listing of objects shows them; elsewhere they go by themselves. obstore knows nothing
of them, so these few requests are signed here."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from moorage.data.objects.errors import StoreProblem, problem_of
from moorage.specs.stores import registry

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from obstore.store import ObjectStore

    from moorage.specs.stores.record import Access

_PATIENCE = 5.0
"""Seconds for an answer: somebody waits for the end of the program."""
_VALID = 300
"""Seconds for which a signature is good."""
_EARLIER = 2.0
"""Seconds by which a store's clock may seem to be before ours: its answers tell whole seconds."""
_UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_PART = re.compile(r"<Part>(.*?)</Part>", re.DOTALL)
_UNRESERVED = "-_.~"


class Unfinished(NamedTuple):
    """One of them."""

    key: str
    number: str
    began: float
    """Unix time, by this machine's clock."""


class Uploads:
    """Those of one bucket."""

    def __init__(self, store: ObjectStore, access: Access, name: str, shown: str) -> None:
        self._store, self._access = store, access
        self._name, self._shown = name, shown

    @property
    def kept(self) -> bool:
        """Whether this store keeps them until somebody removes them."""
        kind = registry.kind(self._access.kind)
        return kind is not None and kind.obstore(self._access, self._name)[0] == "s3"

    @property
    def known(self) -> bool:
        """Whether it can be asked for them, with keys that are at hand."""
        return "secret_access_key" in self._access.secrets and self.kept

    def listed(self, prefix: str = "") -> list[Unfinished]:
        """All whose keys begin so. StoreProblem."""
        found: list[Unfinished] = []
        query = {"uploads": "", "prefix": prefix}
        while True:
            text, ahead = self._asked("GET", "", query)
            found += [_read(one, ahead) for one in _UPLOAD.findall(text)]
            after = {
                "key-marker": _word(text, "NextKeyMarker"),
                "upload-id-marker": _word(text, "NextUploadIdMarker"),
            }
            done = _word(text, "IsTruncated") != "true" or not after["key-marker"]
            if done or after.items() <= query.items():  # it would begin anew
                return found
            query |= after

    def below(self, path: str) -> list[Unfinished]:
        """Those to a path, and to all below it. StoreProblem."""
        found = self.listed(path)
        return [one for one in found if not path or f"{one.key}/".startswith(f"{path}/")]

    def size(self, one: Unfinished) -> int:
        """Bytes of its parts. StoreProblem."""
        total, query = 0, {"uploadId": one.number}
        while True:
            text, _ = self._asked("GET", one.key, query)
            sizes = (_word(part, "Size") for part in _PART.findall(text))
            total += sum(int(size) for size in sizes if size.isdecimal())
            after = _word(text, "NextPartNumberMarker")
            truncated = _word(text, "IsTruncated") == "true"
            if not truncated or after in ("", query.get("part-number-marker")):
                return total
            query["part-number-marker"] = after

    def abort(self, one: Unfinished) -> None:
        """Remove its parts; that it has gone is no error. StoreProblem."""
        self._asked("DELETE", one.key, {"uploadId": one.number})

    def abort_own(self, key: str, since: float) -> bool:
        """Remove the one for `key` that was begun since that Unix time; False where there are
        several: some are others', and none is removed. StoreProblem."""
        found = [one for one in self.listed(key) if one.key == key]
        found = [one for one in found if one.began >= since - _EARLIER]
        if len(found) == 1:
            self.abort(found[0])
        return len(found) < 2

    def _asked(self, method: str, key: str, query: Mapping[str, str]) -> tuple[str, float]:
        """The answer's text, and how many seconds the store's clock is ahead of ours."""
        from http.client import HTTPConnection, HTTPException, HTTPSConnection
        from urllib.parse import parse_qs, quote, urlsplit

        import obstore

        # What obstore signs for some key says where the bucket is, and its region, whatever the
        # store and the environment.
        store: Any = self._store  # `known` says that it is one that signs
        where = urlsplit(obstore.sign(store, "GET", "k", timedelta(seconds=_VALID)))
        region = parse_qs(where.query)["X-Amz-Credential"][0].split("/")[2]
        path = where.path.removesuffix("k") + quote(key, safe=f"/{_UNRESERVED}")
        signed = self._signed(method, where.netloc, path, query, region)
        secure = where.scheme == "https"
        made = (HTTPSConnection if secure else HTTPConnection)(where.netloc, timeout=_PATIENCE)
        try:
            made.request(method, f"{path}?{signed}")
            answer = made.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, HTTPException) as error:
            raise problem_of(error, self._shown) from None
        finally:
            made.close()
        if answer.status >= 300 and not (method == "DELETE" and answer.status == 404):
            said = f"the store says {answer.status}"
            told = OSError(f"status {answer.status} <Code>{_word(text, 'Code')}</Code>")
            known = problem_of(told, self._shown) if "<Code>" in text else None
            raise known or StoreProblem("failed", self._shown, said)
        return text, _ahead(answer)

    def _signed(
        self, method: str, host: str, path: str, query: Mapping[str, str], region: str
    ) -> str:
        """The query with Amazon's signature, version 4."""
        import hashlib
        import hmac
        from urllib.parse import quote

        secrets = self._access.secrets
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{now[:8]}/{region}/s3/aws4_request"
        words = {
            **query,
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{secrets['access_key_id']}/{scope}",
            "X-Amz-Date": now,
            "X-Amz-Expires": str(_VALID),
            "X-Amz-SignedHeaders": "host",
        }
        if token := secrets.get("session_token"):
            words["X-Amz-Security-Token"] = token
        text = "&".join(f"{k}={quote(words[k], safe=_UNRESERVED)}" for k in sorted(words))
        request = f"{method}\n{path}\n{text}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        key = f"AWS4{secrets['secret_access_key']}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        told = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}"
        return f"{text}&X-Amz-Signature={hmac.digest(key, told.encode(), 'sha256').hex()}"


def _read(text: str, ahead: float) -> Unfinished:
    began = now = time.time()
    with suppress(ValueError):  # where it is not told, it is taken for one that is under way
        began = datetime.fromisoformat(_word(text, "Initiated")).timestamp() - ahead
    # Stores tell whole seconds, so that one of just now may seem to begin later.
    return Unfinished(_word(text, "Key"), _word(text, "UploadId"), min(began, now))


def _word(text: str, name: str) -> str:
    from html import unescape

    found = re.search(rf"<{name}>([^<]*)</{name}>", text)
    return unescape(found[1]) if found else ""


def _ahead(answer: HTTPResponse) -> float:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()
    except (TypeError, ValueError):
        return 0.0
