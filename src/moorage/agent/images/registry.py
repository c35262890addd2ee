"""Images from registries, by the protocol of OCI and Docker. Blocks; call it in threads."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from moorage.agent.images.recipe import (
    DIGEST,
    LARGEST,
    Layer,
    Recipe,
    choose,
    compose,
    document,
    sha256,
)
from moorage.agent.uplink.addresses import LOOPBACK
from moorage.data.base import SourceError
from moorage.data.stopping import breaking
from moorage.specs.container import Reference, RegistryAuth

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_TIMEOUT = 30.0  # seconds without a byte
_PIECE = 1024 * 1024
_PAUSES = (0.5, 2.0, 5.0, 15.0)
"""Seconds between tries."""
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_DOCKER = "registry-1.docker.io"


class Unreachable(SourceError):
    """It does not answer: what was pulled before may still serve."""


class Refused(SourceError):
    """The registry will not, however often it is asked."""


class Registry:
    """One image's repository. Nothing it says or raises holds the password."""

    def __init__(self, reference: Reference, auth: RegistryAuth | None) -> None:
        self._reference, self._auth = reference, auth
        host = _DOCKER if reference.host == "docker.io" else reference.host
        name = urlsplit(f"//{host}").hostname or host
        # As container engines do: a registry on this machine may do without certificates.
        scheme = "http" if name in LOOPBACK or name == "localhost" else "https"
        self._base = f"{scheme}://{host}/v2/{quote(reference.name)}/"
        self._authorization = ""
        self._lock = threading.Lock()

    def digest(self) -> str:
        """What the tag means now. SourceError."""
        if self._reference.version.startswith("sha256:"):
            return self._reference.version
        return sha256(self._manifest(self._reference.version))

    def recipe(self, digest: str) -> Recipe:
        """The image of that manifest for this machine, without its layers. SourceError."""
        what = f"image: {self._reference}"
        found = document(self._manifest(digest), what)
        if "manifests" in found:
            found = document(self._manifest(str(choose(found, what).get("digest"))), what)
        layers = []
        for entry in found.get("layers") or []:
            if DIGEST.fullmatch(str(entry.get("digest"))) is None:
                raise SourceError(f"{what} is damaged: a layer has no sha256 digest")
            layers.append(Layer(entry["digest"], "", int(entry.get("size") or 0)))
        wanted = str((found.get("config") or {}).get("digest"))
        content = self._again(lambda: self._read(f"blobs/{wanted}", {}))
        if sha256(content) != wanted:
            raise SourceError(f"{what} is damaged: its configuration is not {wanted}")
        return compose(content, layers, what)

    def fetch(self, layer: Layer, target: Path, arrived: Callable[[int], None]) -> None:
        """Write the bytes of a layer to `target`, going on where an earlier try broke off.
        `arrived` is told how many came. SourceError."""
        self._again(lambda: self._fetch(layer, target, arrived))

    def _manifest(self, version: str) -> bytes:
        accepted = {"Accept": ", ".join((*_MANIFESTS, *_INDEXES))}
        content: bytes = self._again(lambda: self._read(f"manifests/{version}", accepted))
        if version.startswith("sha256:") and sha256(content) != version:
            raise SourceError(f"image: {self._reference} is damaged: its manifest is another")
        return content

    def _read(self, path: str, headers: Mapping[str, str]) -> bytes:
        with self._open(path, headers) as response:
            content: bytes = response.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise Refused(f"image: {self._reference}: the registry sends too much")
        return content

    def _fetch(self, layer: Layer, target: Path, arrived: Callable[[int], None]) -> None:
        stopped = threading.Event()
        with open(target, "ab") as file, breaking(stopped.set):
            have = file.tell()
            if have < layer.size:
                headers = {"Range": f"bytes={have}-"} if have else {}
                with (
                    self._open(f"blobs/{layer.digest}", headers) as response,
                    breaking(lambda: _shut(response)),
                ):
                    if have and response.status != 206:
                        file.truncate(0)
                    while piece := response.read1(_PIECE):
                        file.write(piece)
                        arrived(len(piece))
        if stopped.is_set():
            raise Refused("stopped")
        _verify(layer, target)

    def _again(self, work: Callable[[], Any]) -> Any:
        """Try several times; SourceError says why it did not work."""
        stopped = threading.Event()
        with breaking(stopped.set):
            for pause in (*_PAUSES, None):
                try:
                    return work()
                except Refused:
                    raise
                except (OSError, http.client.HTTPException, SourceError) as error:
                    reason = str(getattr(error, "reason", "") or error) or type(error).__name__
                    if pause is None or isinstance(error, _Hopeless) or stopped.wait(pause):
                        raise Unreachable(f"image: {self._reference}: {reason}") from None
        return None

    def _open(self, path: str, headers: Mapping[str, str]) -> Any:
        """The response; asks for a token where one is wanted. Refused, OSError."""
        try:
            return self._request(path, headers)
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 401:
                    raise self._refusal(error.code) from None
                challenge = error.headers.get("WWW-Authenticate", "")
        with self._lock:
            self._authorization = self._answer(challenge)
        try:
            return self._request(path, headers)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error.code) from None

    def _request(self, path: str, headers: Mapping[str, str]) -> Any:
        request = urllib.request.Request(urljoin(self._base, path), headers=dict(headers))  # noqa: S310 (its scheme is ours)
        if self._authorization:
            # Not to wherever it redirects: stores of blobs are other hosts.
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            return urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError as error:
            if isinstance(error.reason, OSError) and not isinstance(error.reason, TimeoutError):
                raise _Hopeless(f"{urlsplit(self._base).netloc} {_why(error.reason)}") from None
            raise

    def _refusal(self, code: int) -> SourceError:
        what = f"image: {self._reference}"
        if code in (401, 403):
            if self._auth is None:
                return Refused(f"{what}: the registry wants an account; add `registry_auth:`")
            return Refused(f"{what}: the registry refuses the account of registry_auth")
        if code == 404:
            return Refused(f"{what} does not exist; check its name and tag")
        if code == 416:
            return Refused(f"{what} is damaged: a layer is shorter than its manifest says")
        return SourceError(f"{what}: the registry answers with status {code}")

    def _answer(self, challenge: str) -> str:
        """What to say to who wants to know who asks. Refused, OSError."""
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic":
            if self._auth is None:
                raise self._refusal(401)
            return _basic(self._auth)
        if kind.lower() != "bearer":
            raise Refused(f"image: {self._reference}: the registry wants '{kind[:20]}'")
        wanted = dict(_PARAMETER.findall(rest))
        realm = wanted.pop("realm", "")
        place = urlsplit(realm)
        if place.scheme != "https" and not (place.scheme == "http" and _is_here(place.hostname)):
            raise Refused(f"image: {self._reference}: the registry names no safe token server")
        known = {key: wanted[key] for key in ("service", "scope") if key in wanted}
        request = urllib.request.Request(f"{realm}?{urlencode(known)}")  # noqa: S310 (checked)
        if self._auth is not None:
            request.add_unredirected_header("Authorization", _basic(self._auth))
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
                answer = json.loads(response.read(LARGEST))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error.code) from None
        except ValueError:
            raise SourceError("the token server answers with nonsense") from None
        given = answer if isinstance(answer, dict) else {}
        token = given.get("token") or given.get("access_token")
        if not isinstance(token, str):
            raise SourceError("the token server gives no token")
        return f"Bearer {token}"


def _why(error: OSError) -> str:
    return f"cannot be reached: {error.strerror or error}"


class _Hopeless(SourceError):
    """Nobody is there: the job is better off knowing it now."""


def _shut(response: http.client.HTTPResponse) -> None:
    """Wake whoever reads from it, unless all was read."""
    with (
        suppress(OSError, ValueError),
        socket.socket(fileno=os.dup(response.fileno())) as again,
    ):
        again.shutdown(socket.SHUT_RDWR)


def _is_here(host: str | None) -> bool:
    return host in LOOPBACK or host == "localhost"


def _basic(auth: RegistryAuth) -> str:
    text = base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()
    return f"Basic {text}"


def _verify(layer: Layer, target: Path) -> None:
    """SourceError, and the file is gone, where it is another one; it is then fetched anew."""
    found = hashlib.sha256()
    with open(target, "rb") as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    if f"sha256:{found.hexdigest()}" != layer.digest:
        target.unlink()
        raise SourceError(f"layer {layer.digest} arrived damaged")
