"""How the stores of an attempt are reached: asked of the servers with the node's token, when the
attempt needs it. What comes back holds secrets; it is written nowhere here."""

from __future__ import annotations

import http.client
import threading
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from moorage.agent.uplink.addresses import Addresses
from moorage.agent.uplink.download import PAUSES, Broken, connect, message_of, recognize, shut
from moorage.data.base import SourceError
from moorage.data.stopping import breaking
from moorage.decoding import from_json
from moorage.protocol.stores import DEFAULT
from moorage.specs.stores.record import Access

PATIENCE = 900.0
"""Seconds without any answer, as for blobs: a restart of the server must fail no job."""


class StoreDesk:
    """Calls block; each may be broken off."""

    def __init__(self, addresses: Addresses, token: Path, patience: float = PATIENCE) -> None:
        self._addresses = addresses
        self._token = token
        self._patience = patience

    def __call__(self, store: str, key: str) -> Access:
        """By the name of a store, empty for the default one, and the key of an attempt on this
        node that uses it. SourceError."""
        path = f"/v1/node/stores/{quote(store or DEFAULT, safe='')}?attempt={quote(key)}"
        since, rounds = time.monotonic(), 0
        reason = "there is no server"
        stopped = threading.Event()
        with breaking(stopped.set):
            while True:
                for url in self._addresses.known:
                    try:
                        return self._ask(url, path)
                    except (Broken, OSError, http.client.HTTPException) as error:
                        reason = str(error) or type(error).__name__
                if stopped.is_set() or time.monotonic() - since >= self._patience:
                    raise SourceError(f"store {store or DEFAULT}: the server cannot say how it "
                                      f"is reached: {reason}")  # fmt: skip
                stopped.wait(PAUSES[min(rounds, len(PAUSES) - 1)])
                rounds += 1

    def _ask(self, url: str, path: str) -> Access:
        parts = urlsplit(url)
        connection = connect(parts, self._addresses.trust(url))
        try:
            connection.connect()
            recognize(connection, parts, self._addresses.owner)
            with breaking(lambda: shut(connection)):
                token = self._token.read_text().strip()
                headers = {"Authorization": f"Bearer {token}"}
                connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
                response = connection.getresponse()
                body = response.read()
        finally:
            connection.close()
        if response.status == 503:
            raise Broken(f"it says: {message_of(body)}")
        if response.status != 200:
            raise SourceError(message_of(body))
        try:
            return from_json(body, Access)
        except msgspec.MsgspecError:
            raise SourceError("the server says in unknown words how a store is reached") from None
