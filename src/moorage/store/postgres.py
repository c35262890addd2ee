"""The shared database: PostgreSQL, one leading server that writes, any number that read.

`import moorage.store.postgres` needs no driver; `open_postgres` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorage.errors import Unavailable

if TYPE_CHECKING:
    from moorage.store.postgres_store import PostgresStore

_WITHOUT_DRIVER = (
    "PostgreSQL needs a driver that is not installed: pip install 'moorage[postgres]'"
)


def open_postgres(url: str) -> PostgresStore:
    """Open the database at `postgresql://...` and bring its schema up to date.

    The store reads at once; it writes once its `leadership` is acquired, and never again after
    its session is lost. InvalidInput for what is no such address; Unavailable without the driver;
    StoreBroken, with the remedy, when the database cannot be reached or used.
    """
    require_driver()
    from moorage.store.postgres_store import PostgresStore

    return PostgresStore(url)


def examine_postgres(url: str) -> PostgresStore:
    """The database as it is: nothing is made or migrated. It can be written at once, because no
    server leads: StoreBroken, with the remedy, where one does."""
    require_driver()
    from moorage.store.postgres_store import PostgresStore

    store = PostgresStore(url, migrate=False)
    try:
        store.seize()
    except BaseException:
        store.close()
        raise
    return store


def require_driver() -> None:
    """Unavailable where no driver is installed, or none that finds libpq."""
    try:
        import psycopg  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise Unavailable(_WITHOUT_DRIVER) from error
