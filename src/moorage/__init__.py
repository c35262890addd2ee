"""moorage runs AI and HPC workloads on the machines you have, and puts their data where they run.

`moorage.Client` talks to a server; `moorage.__version__` is this release. Both are found on first
use: the keeper, which must stay small, imports this package too.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers read it as true; `typing` itself would cost 3 ms
if TYPE_CHECKING:
    from moorage.cli.client import Client

    __version__: str

__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Client":
        from moorage.cli.client import Client

        return Client
    if name == "__version__":
        from importlib.metadata import version

        return version("moorage")
    raise AttributeError(f"module 'moorage' has no attribute {name!r}")
