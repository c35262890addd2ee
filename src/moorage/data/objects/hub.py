"""Repositories of Hugging Face as buckets that are only read.

What there is, is asked of the site's HTTP API; contents come through obstore. When a repository is
opened its revision is resolved to a commit, and everything is read from that, so that a push
meanwhile mixes nothing. The token goes to the site only: large files are sent from other hosts,
to which addresses with signatures of their own lead.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.message import Message
from http.client import HTTPException
from typing import IO, TYPE_CHECKING, Any, NoReturn
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from moorage.data.objects.bucket import Bucket, Found
from moorage.data.objects.errors import StoreProblem, why
from moorage.data.objects.retrying import retries
from moorage.data.objects.silence import Silence
from moorage.data.objects.unfinished import Uploads
from moorage.data.stopping import breaking
from moorage.specs.stores.record import Access

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_SITE = "https://huggingface.co"
_ANSWER = 20.0
"""Seconds for one request."""
_PAUSE = 1.0
_AGAIN = (429, 500, 502, 503, 504)
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="next"')
_TOKEN = "set HF_TOKEN where the server or the node runs, or log in there: hf auth login"  # noqa: S105
_SLOTS = 500
"""Parts of a second by which contents of one commit's time are told apart."""


class Site:
    """The HTTP API, as one account has it."""

    def __init__(self, token: str, patience: float, shown: str) -> None:
        self._headers = {"User-Agent": "moorage"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._patience = patience
        self._shown = shown
        self._opener: OpenerDirector = build_opener(_SameSite)

    def json(self, url: str) -> tuple[Any, str]:
        """An answer, and the address of the next page, if there is one. StoreProblem."""
        headers, body = self._ask(url, "GET")
        try:
            answer = json.loads(body)
        except ValueError:
            self._no_api()
        found = _NEXT.search(headers.get("Link", ""))
        if found and urlsplit(found[1])[:2] != urlsplit(url)[:2]:
            self._no_api()
        return answer, found[1] if found else ""

    def head(self, url: str) -> Message:
        """What the site says of a file, wherever its content is. StoreProblem."""
        return self._ask(url, "HEAD")[0]

    def _no_api(self) -> NoReturn:
        fix = "check HF_ENDPOINT"
        raise StoreProblem("failed", self._shown, "what answers is not Hugging Face", fix)

    def _ask(self, url: str, method: str) -> tuple[Message, bytes]:
        deadline, pause = time.monotonic() + self._patience, _PAUSE
        while True:
            timeout = min(_ANSWER, max(1.0, self._patience))
            request = Request(url, headers=self._headers, method=method)  # noqa: S310  # of the site
            try:
                with self._opener.open(request, timeout=timeout) as reply:
                    return reply.headers, reply.read()
            except HTTPError as error:
                error.close()
                if method == "HEAD" and error.code in (301, 302, 303, 307, 308):
                    return error.headers, b""
                if error.code not in _AGAIN or time.monotonic() + pause > deadline:
                    raise self._problem(error.code, error.headers) from None
            except (OSError, HTTPException) as error:
                if time.monotonic() + pause > deadline:
                    said = f"the site does not answer{why(str(error).lower())}"
                    raise StoreProblem("unreachable", self._shown, said) from None
            _rest(pause)
            pause *= 2

    def _problem(self, status: int, headers: Message) -> StoreProblem:
        code = headers.get("X-Error-Code", "")
        if code == "EntryNotFound":
            return StoreProblem("no-object", self._shown, "there is no such file")
        if code == "RevisionNotFound":
            said = "the repository has no such revision"
            fix = "write a branch, tag or commit of it after @"
            return StoreProblem("not-possible", self._shown, said, fix)
        if code == "GatedRepo":
            said = "the repository is gated, and this account may not read it"
            return StoreProblem("denied", self._shown, said, f"accept its terms, and {_TOKEN}")
        if status in (401, 404) or code == "RepoNotFound":
            said = "there is no such repository, or it is private"
            fix = f"check its name (hf://datasets/... for a dataset); if it is private, {_TOKEN}"
            return StoreProblem("denied", self._shown, said, fix)
        if status == 403:
            return StoreProblem("denied", self._shown, "access denied", _TOKEN)
        if status in _AGAIN:
            said = f"the site says {status}"
            return StoreProblem("unreachable", self._shown, said, "try again later")
        return StoreProblem("failed", self._shown, f"the site says {status}")


class Repository(Bucket):
    """A commit of a repository. Thread-safe."""

    def __init__(
        self,
        reads: ObjectStore,
        site: Site,
        shown: str,
        access: Access,
        name: str,
        commit: Commit,
        silence: Silence,
    ) -> None:
        super().__init__(reads, self._refuse, shown, access, name, silence=silence)
        self._site = site
        self._commit = commit

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[list[Found]]:
        """See `Bucket`."""
        below = f"/{quote(prefix)}" if prefix else ""
        url = f"{self._commit.tree}{below}?recursive=true"
        while url:
            try:
                with self.silence.asking():
                    page, url = self._site.json(url)
            except StoreProblem as error:
                if error.reason == "no-object":
                    return
                raise
            files = [self._found(one) for one in page if one.get("type") == "file"]
            if found := [one for one in files if one.key > after and one.key != prefix]:
                yield found

    def _found(self, entry: Mapping[str, Any]) -> Found:
        large = entry.get("lfs") or {}
        etag = _etag(str(large.get("oid") or entry.get("oid") or ""))
        size = int(large.get("size", entry.get("size", 0)))
        return Found(str(entry["path"]), size, self._commit.time_of(etag), etag)

    def head(self, key: str) -> Found:
        """See `Bucket`."""
        try:
            headers = self._site.head(f"{self._commit.files}/{quote(key)}")
        except StoreProblem as error:
            raise StoreProblem(error.reason, self.at(key), error.said, error.fix) from None
        etag = _etag(headers.get("X-Linked-Etag") or headers.get("ETag") or "")
        size = headers.get("X-Linked-Size") or headers.get("Content-Length") or "0"
        return Found(key, int(size), self._commit.time_of(etag), etag)

    def buffer(self, key: str, etag: str = "") -> tuple[memoryview, Found]:
        """See `Bucket`. Of a commit nothing changes; those who send it have other etags."""
        content, found = super().buffer(key)
        return content, found._replace(etag=etag, modified=self._commit.time_of(etag))

    def pieces(self, key: str, start: int, end: int, etag: str = "") -> Iterator[bytes]:
        """See `Bucket`."""
        return super().pieces(key, start, end)

    @property
    def uploads(self) -> Uploads:
        """See `Bucket`. There are none."""
        return Uploads(self._reads, self.access, self.name, self.shown)

    def _refuse(self) -> NoReturn:
        said = "repositories of Hugging Face can only be read here"
        raise StoreProblem("not-possible", self.shown, said, "write to another store")


class Commit:
    """What a revision stands for."""

    def __init__(self, config: Mapping[str, str], sha: str, made: float) -> None:
        self.tree = f"{config['api']}/tree/{sha}"
        self.files = f"{config['page']}/resolve/{sha}"
        self._made = made

    def time_of(self, etag: str) -> float:
        """When the commit was made. Below the second stands a part of the content's digest, so
        that a file here with this time and size is known to be the same content: all files of a
        commit have one time."""
        found = re.search(r"[0-9a-f]{8}", etag)
        return int(self._made) + (int(found[0], 16) % _SLOTS) / _SLOTS if found else self._made


def open_repository(
    access: Access,
    name: str,
    config: Mapping[str, str],
    patience: float,
    shown: str,
    silence: Silence,
) -> Repository:
    """See `open_bucket`; one request. StoreProblem also where there is no such repository."""
    from datetime import timedelta

    from obstore import store as stores

    token = access.secrets.get("token", "")
    site = Site(token, patience, shown)
    with silence.asking():
        told, _ = site.json(f"{config['api']}/revision/{config['revision']}")
    sha = told.get("sha") if isinstance(told, dict) else None
    if not isinstance(sha, str) or not re.fullmatch(r"[0-9a-f]{7,64}", sha):
        fix = "check HF_ENDPOINT"
        raise StoreProblem("failed", shown, "what answers is not Hugging Face", fix)
    commit = Commit(config, sha, _seconds(str(told.get("lastModified", ""))))
    client: Any = {
        "connect_timeout": timedelta(seconds=10),
        "timeout": timedelta(days=1),
        "read_timeout": timedelta(seconds=60),
        "allow_http": True,  # https addresses stay https; who names an http mirror means it
        "default_headers": {"Authorization": f"Bearer {token}"} if token else {},
    }
    reads = stores.HTTPStore.from_url(
        commit.files, client_options=client, retry_config=retries(patience)
    )
    return Repository(reads, site, shown, access, name, commit, silence)


def check(access: Access) -> None:
    """StoreProblem where the site does not answer, or does not take the token."""
    site = (access.endpoint or _SITE).rstrip("/")
    token = access.secrets.get("token", "")
    asked = Site(token, 5.0, site)
    try:
        asked.json(f"{site}/api/whoami-v2" if token else f"{site}/api/models?limit=1")
    except StoreProblem as error:
        if error.reason != "denied":
            raise
        raise StoreProblem("denied", site, "the token is not valid", _TOKEN) from None


class _SameSite(HTTPRedirectHandler):
    """Follows to the same site only, as the token goes along."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:  # fmt: skip
        """See `HTTPRedirectHandler`; which would make a GET of a HEAD."""
        if urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
            return None
        return Request(newurl, headers=dict(req.header_items()), method=req.get_method())  # noqa: S310  # the same site


def _rest(seconds: float) -> None:
    stopped = threading.Event()
    with breaking(stopped.set):
        stopped.wait(seconds)


def _etag(text: str) -> str:
    """Says by what it names the content: git's digest of a small file, SHA-256 of a large one."""
    bare = text.removeprefix("W/").strip('"')
    kind = {40: "git", 64: "sha256"}.get(len(bare)) if re.fullmatch(r"[0-9a-f]+", bare) else None
    return f'"{kind}:{bare}"' if kind else text


def _seconds(text: str) -> float:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
