"""PostgreSQL keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.blob_suite import BlobSuite
from contract.store_suite import StoreSuite
from moorage.store.base import Store
from moorage.store.databasepacks import DatabasePacks
from moorage.store.leader import Identity
from moorage.store.packs import Packs
from moorage.store.postgres import open_postgres
from moorage.store.writer import Writer
from postgres import Postgres


class OnPostgres:
    """Opens a database for each directory; the one server that writes leads."""

    dialect = "postgres"

    @pytest.fixture(autouse=True)
    def databases(self, postgres_server: Postgres) -> None:
        self._server = postgres_server
        self._urls: dict[Path, str] = {}

    def open(self, directory: Path) -> Store:
        if directory not in self._urls:
            self._urls[directory] = self._server.new_database()
        store = open_postgres(self._urls[directory])
        store.leadership(Identity("one", "http://127.0.0.1:1", "1")).acquire()
        return store


class TestStoreOnPostgres(OnPostgres, StoreSuite):
    pass


class TestBlobsOnPostgres(OnPostgres, BlobSuite):
    def make_packs(self, directory: Path, store: Store, writer: Writer) -> Packs:
        return DatabasePacks(store, writer)
