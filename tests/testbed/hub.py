"""A stand-in for Hugging Face: the parts of its HTTP API that moorage asks, on loopback, with a
second server for the content of large files, as theirs is sent from other hosts.

    hub.push("lab/model", {"a.bin": b"..."})         # the new commit's id
    hub.push("datasets/lab/set", {...}, revision="v1")

It was written after what the site documents and its own client sends; the site itself is reached
by no test.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGE = 1024 * 1024
"""Bytes from which a file is kept outside of git."""
PAGE = 3
TOKEN = "hf_stand_in_token"
Files = dict[str, bytes]


@dataclass
class Repo:
    """`revisions` by name, and by their own ids."""

    revisions: dict[str, Files] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False


class Hub:
    """Use `running`."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.seen: list[tuple[str, str, bool]] = []
        """Method, path, and whether there was a token, of every request to the site."""
        self.sent: list[tuple[str, bool]] = []
        """The same of the host that sends large files."""
        self.failing = 0
        """So many of the next requests are answered 503."""
        self._site = _serve(self, _Site)
        self._content = _serve(self, _Content)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._site.server_address[1]}"

    @property
    def content(self) -> str:
        return f"http://127.0.0.1:{self._content.server_address[1]}"

    def push(
        self, name: str, files: Files, *, revision: str = "main", private: bool = False,
        gated: bool = False,
    ) -> str:  # fmt: skip
        """A commit with these files; its id."""
        repo = self.repos.setdefault(name, Repo())
        repo.private, repo.gated = private, gated
        listing = json.dumps({key: hashlib.sha256(files[key]).hexdigest() for key in files})
        sha = hashlib.sha1(f"{len(repo.revisions)} {listing}".encode()).hexdigest()
        repo.revisions[sha] = dict(files)
        repo.heads[revision] = sha
        return sha

    def close(self) -> None:
        for server in (self._site, self._content):
            server.shutdown()
            server.server_close()


@contextmanager
def running() -> Iterator[Hub]:
    hub = Hub()
    try:
        yield hub
    finally:
        hub.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    hub: Hub


def _serve(hub: Hub, handler: type[BaseHTTPRequestHandler]) -> _Server:
    server = _Server(("127.0.0.1", 0), handler)
    server.hub = hub
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        raise NotImplementedError

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_content(self, content: bytes, etag: str) -> None:
        wanted = self.headers.get("Range")
        if wanted is None:
            self.reply(200, content, ETag=f'"{etag}"')
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        end = min(int(last) + 1 if last else len(content), len(content))
        told = f"bytes {first}-{end - 1}/{len(content)}"
        self.reply(206, content[int(first) : end], ETag=f'"{etag}"', Content_Range=told)


class _Site(_Handler):
    def do_GET(self) -> None:
        hub = self.server.hub
        token = self.headers.get("Authorization", "")
        parts = urlsplit(self.path)
        hub.seen.append((self.command, unquote(parts.path), bool(token)))
        if hub.failing:
            hub.failing -= 1
            self.reply(503)
        elif token not in ("", f"Bearer {TOKEN}"):
            self.reply(401)
        elif parts.path in ("/api/whoami-v2", "/api/models"):
            self.reply(200, b"[]")
        else:
            page = int(parse_qs(parts.query).get("cursor", ["0"])[0])
            self.answer(parts.path.strip("/").split("/"), bool(token), page)

    def answer(self, parts: list[str], known: bool, page: int) -> None:
        api = parts[0] == "api"
        if api:
            parts = parts[2:] if parts[1] == "models" else parts[1:]
        count = 3 if parts[0] in ("datasets", "spaces") else 2
        name, (verb, revision, *rest) = "/".join(parts[:count]), parts[count:]
        repo = self.server.hub.repos.get(name)
        if repo is None or (repo.private and not known):
            self.reply(404 if known else 401, X_Error_Code="RepoNotFound")
            return
        sha = repo.heads.get(unquote(revision), unquote(revision))
        if repo.gated and not known and not (api and verb == "revision"):
            self.reply(403, X_Error_Code="GatedRepo")
        elif sha not in repo.revisions:
            self.reply(404, X_Error_Code="RevisionNotFound")
        elif api and verb == "revision":
            told = {"id": name, "sha": sha, "lastModified": "2024-05-06T07:08:09.000Z"}
            self.reply(200, json.dumps(told).encode())
        elif api:
            self.tree(repo.revisions[sha], unquote("/".join(rest)), page)
        else:
            self.file(name, sha, repo.revisions[sha], unquote("/".join(rest)))

    def tree(self, files: Files, below: str, page: int) -> None:
        under = f"{below}/" if below else ""
        found = [key for key in sorted(files) if key.startswith(under)]
        folders = {key.rpartition("/")[0] for key in found} - {"", below}
        if below and not found:
            self.reply(404, X_Error_Code="EntryNotFound")
            return
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": one}
                   for one in sorted(folders)]  # fmt: skip
        entries += [_entry(key, files[key]) for key in found]
        some, more = entries[page : page + PAGE], page + PAGE
        headers = {}
        if more < len(entries):
            path = urlsplit(self.path).path
            link = f"{self.server.hub.url}{path}?recursive=true&cursor={more}"
            headers["Link"] = f'<{link}>; rel="next"'
        self.reply(200, json.dumps(some).encode(), **headers)

    def file(self, name: str, sha: str, files: Files, key: str) -> None:
        content = files.get(key)
        if content is None:
            self.reply(404, X_Error_Code="EntryNotFound")
            return
        if len(content) < LARGE:
            self.send_content(content, _git(content))
            return
        place = f"{self.server.hub.content}/{name}/{sha}/{quote(key)}?signature=abc"
        self.reply(
            302, Location=place, X_Linked_Size=str(len(content)), X_Repo_Commit=sha,
            X_Linked_ETag=f'"{hashlib.sha256(content).hexdigest()}"',
        )  # fmt: skip


class _Content(_Handler):
    def do_GET(self) -> None:
        hub = self.server.hub
        parts = urlsplit(self.path)
        hub.sent.append((unquote(parts.path), "Authorization" in self.headers))
        for name, repo in hub.repos.items():
            for sha, files in repo.revisions.items():
                start = f"/{name}/{sha}/"
                if unquote(parts.path).startswith(start) and parts.query == "signature=abc":
                    content = files[unquote(parts.path)[len(start) :]]
                    self.send_content(content, hashlib.md5(content).hexdigest())
                    return
        self.reply(403)


def _entry(key: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file", "oid": _git(content), "size": len(content), "path": key
    }  # fmt: skip
    if len(content) >= LARGE:
        oid = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
    return entry


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
