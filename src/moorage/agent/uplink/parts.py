"""Packages for buckets from the server: see `data/parts.py`."""

from __future__ import annotations

import http.client
import shutil
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from moorage.agent.uplink.addresses import Addresses
from moorage.agent.uplink.download import PAUSES, Broken, connect, message_of, recognize, shut
from moorage.data.base import SourceError
from moorage.data.stopping import breaking
from moorage.protocol.objectstore import PARTS_PATH

PATIENCE = 900.0
"""Seconds without any answer, as for blobs."""
_PIECE = 1 << 20


class PartsDesk:
    """Calls block; each may be broken off."""

    def __init__(self, addresses: Addresses, token: Path, patience: float = PATIENCE) -> None:
        self._addresses = addresses
        self._token = token
        self._patience = patience

    def __call__(self, digest: str, into: Path) -> None:
        """See `data.parts.Fetch`."""
        since, rounds = time.monotonic(), 0
        reason = "there is no server"
        stopped = threading.Event()
        with breaking(stopped.set):
            while True:
                for url in self._addresses.known:
                    try:
                        self._fetch(url, PARTS_PATH.format(digest=digest), into)
                        return
                    except (Broken, OSError, http.client.HTTPException) as error:
                        reason = str(error) or type(error).__name__
                if stopped.is_set() or time.monotonic() - since >= self._patience:
                    raise SourceError(f"packages for buckets cannot be fetched: {reason}")
                stopped.wait(PAUSES[min(rounds, len(PAUSES) - 1)])
                rounds += 1

    def _fetch(self, url: str, path: str, into: Path) -> None:
        parts = urlsplit(url)
        connection = connect(parts, self._addresses.trust(url))
        try:
            connection.connect()
            recognize(connection, parts, self._addresses.owner)
            with breaking(lambda: shut(connection)):
                headers = {"Authorization": f"Bearer {self._token.read_text().strip()}"}
                connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
                response = connection.getresponse()
                if response.status == 503:
                    raise Broken(f"it says: {message_of(response.read(65536))}")
                if response.status != 200:
                    raise SourceError(message_of(response.read(65536)))
                with into.open("wb") as file:
                    shutil.copyfileobj(response, file, _PIECE)
                if response.length:
                    raise Broken("the connection broke")
        finally:
            connection.close()
