"""What a start says before it is over, to whoever waits for it: that the database is locked."""

from __future__ import annotations

import logging
import os
from contextlib import suppress

_LOGGER = "moorage.store.sqlite_wait"


class _Notes(logging.Handler):
    def __init__(self, descriptor: int, prefix: str) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # nobody waits any more
            os.write(self._descriptor, f"{self._prefix}{record.getMessage()}\n".encode())


def tell(descriptor: int, prefix: str = "") -> None:
    """Write what is said from now on to this descriptor, a line each."""
    logging.getLogger(_LOGGER).addHandler(_Notes(descriptor, prefix))
