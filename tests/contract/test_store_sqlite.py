"""SQLite keeps the contract."""

from __future__ import annotations

from pathlib import Path

from contract.blob_suite import BlobSuite
from contract.store_suite import StoreSuite
from moorage.store.base import Store
from moorage.store.sqlite import open_sqlite


class TestStoreOnSqlite(StoreSuite):
    dialect = "sqlite"

    def open(self, directory: Path) -> Store:
        return open_sqlite(directory / "moorage.db")


class TestBlobsOnSqlite(BlobSuite):
    def open(self, directory: Path) -> Store:
        return open_sqlite(directory / "moorage.db")
