"""PostgreSQL keeps the contract."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from contract.blob_suite import BlobSuite
from contract.store_suite import StoreSuite
from moorage.store.base import Store
from moorage.store.databasepacks import DatabasePacks
from moorage.store.leader import Identity
from moorage.store.packs import Packs
from moorage.store.postgres import open_postgres
from moorage.store.writer import Writer


class OnPostgres:
    """A schema of the test's database for each directory, and a server that leads there."""

    dialect = "postgres"

    @pytest.fixture(autouse=True)
    def schemas(self, database: str) -> None:
        self._database = database
        self._urls: dict[Path, str] = {}

    def open(self, directory: Path) -> Store:
        if directory not in self._urls:
            schema = f"s{len(self._urls)}"
            with psycopg.connect(self._database) as connection:
                connection.execute(f"CREATE SCHEMA {schema}".encode())
            self._urls[directory] = f"{self._database}?options=-csearch_path%3D{schema}"
        store = open_postgres(self._urls[directory])
        store.leadership(Identity("one", "http://127.0.0.1:1", "1")).acquire()
        return store


class TestStoreOnPostgres(OnPostgres, StoreSuite):
    pass


class TestBlobsOnPostgres(OnPostgres, BlobSuite):
    def make_packs(self, directory: Path, store: Store, writer: Writer) -> Packs:
        return DatabasePacks(store, writer)
