"""The parts of one server that have to do with object stores, put together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from moorage.engine.loop import Engine
from moorage.server.objectstore import ObjectStore
from moorage.server.settings import Settings
from moorage.server.storage.access import Stores
from moorage.server.storage.mounts import Mounts
from moorage.server.storage.storages import Storages
from moorage.server.storage.vault import VARIABLE, Vault

KEY_FILE = "secrets.key"


class Equipment(NamedTuple):
    """As `Services` has them."""

    storages: Storages
    mounts: Mounts


def equip(
    engine: Engine, object_store: ObjectStore, settings: Settings, directory: Path
) -> Equipment:
    """`directory`: where the server keeps its files. The key of secrets is there unless the
    environment or a setting names a file that several servers share."""
    given = os.environ.get(VARIABLE) or settings.secrets_key_file
    vault = Vault(Path(given).expanduser() if given else directory / KEY_FILE)
    stores = Stores(engine.cluster, vault, settings.default_store, object_store, engine.clock)
    storages = Storages(engine, stores)
    return Equipment(storages, Mounts(storages))
