"""What the embedded store keeps in its directory, `server/store/` in the server's home:

store.json      its keys and its ports (0600): the same after each start, as mounts know them
security.toml   what SeaweedFS asks of whoever comes; ca.pem, store.pem (0600, new each start)
process.json    which process it is
wanted          it was needed once: it starts with the server, until `moorage store stop`
data/           the objects
log log.1       what SeaweedFS said since its last start, and before
"""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from moorage.decoding import from_json
from moorage.server.tokens import write_secret

PORTS = (
    *("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port"),
    *("volume.port.grpc", "filer.port", "filer.port.grpc", "admin.port", "admin.port.grpc"),
)
"""SeaweedFS's options, in the order in which `Keeping.ports` has them."""
_LOOPBACK = "127.0.0.1"
_LOW, _ABOVE = 12_000, 10_000
"""All are below those that the kernel hands out by itself, so that they are free at the next start
too. The workers of SeaweedFS look for the admin's second port so far above the first, whatever is
said."""


class Keeping(Struct, frozen=True):
    """Contents of store.json."""

    access_key_id: str
    secret_access_key: str
    ports: list[int]

    def __repr__(self) -> str:
        return f"Keeping({self.ports}, secrets hidden)"

    @property
    def port(self) -> int:
        """Where it speaks S3."""
        return self.ports[0]


def settled(directory: Path) -> Keeping:
    """Make the directory, or enter it. OSError."""
    from moorage.server.objectstore.security import secure  # cryptography: most servers need none

    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "data").mkdir(mode=0o700, exist_ok=True)
    keeping = kept(directory)
    if keeping is None:
        keeping = Keeping(secrets.token_hex(10), secrets.token_urlsafe(30), free_ports())
        remember(directory, keeping)
    secure(directory)
    return keeping


def kept(directory: Path) -> Keeping | None:
    """None where there is no store yet."""
    with suppress(FileNotFoundError, msgspec.MsgspecError):
        return from_json((directory / "store.json").read_bytes(), Keeping)
    return None


def remember(directory: Path, keeping: Keeping) -> None:
    """For the next start."""
    write_secret(directory / "store.json", msgspec.json.encode(keeping).decode() + "\n")


def free_ports() -> list[int]:
    """One for each of `PORTS`; nobody has them now."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < len(PORTS):
            low = _LOW + secrets.randbelow(_ABOVE)
            last = len(ports) == len(PORTS) - 2
            wanted = (low, low + _ABOVE) if last else (low,)
            with suppress(OSError):
                ports += [_bound(stack, port) for port in wanted]
        return ports


def are_free(ports: list[int]) -> bool:
    """Whether it can listen there."""
    with ExitStack() as stack:
        try:
            for port in ports:
                _bound(stack, port)
        except OSError:
            return False
    return True


def _bound(stack: ExitStack, port: int) -> int:
    taken = stack.enter_context(socket.socket())
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind((_LOOPBACK, port))
    return int(taken.getsockname()[1])
