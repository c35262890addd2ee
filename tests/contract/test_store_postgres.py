"""PostgreSQL keeps the contract."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
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
from postgres import Postgres


@pytest.fixture(scope="module")
def shared(postgres_server: Postgres) -> Iterator[str]:
    """URL of one database for all tests here: a schema is made sooner than a database."""
    url = postgres_server.new_database()
    yield url
    postgres_server.drop_database(url)


class OnPostgres:
    """A schema of one database for each directory, and a server that leads there."""

    dialect = "postgres"

    @pytest.fixture(autouse=True)
    def schemas(self, shared: str) -> None:
        self._database = shared
        self._urls: dict[Path, str] = {}

    def open(self, directory: Path) -> Store:
        if directory not in self._urls:
            schema = f"s{secrets.token_hex(6)}"
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
