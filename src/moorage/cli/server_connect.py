"""`moorage server connect`, `disconnect` and `ca`: using a server on another machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import msgspec

from moorage.cli.client import Client
from moorage.cli.home import CONNECTION, authority, checked, elsewhere, from_home, home_directory
from moorage.errors import InvalidInput, NotFound, Problem


@click.command()
@click.argument("url")
@click.option("--token-file", required=True, metavar="FILE", help="Holds the token; - is stdin.")
@click.option("--ca", metavar="FILE", help="Whose certificates it shows; default: the system's.")
def connect(url: str, token_file: str, ca: str | None) -> None:
    """Use a server on another machine from now on, once it has answered.

    The address, the token and the certificate of its authority are kept in MOORAGE_HOME (0600).
    Several addresses of servers on one database are separated by commas.

    \b
    Example:
      moorage server connect https://10.0.0.5:7321 --token-file token --ca ca.pem
    """
    address = checked(url, _token(token_file), authority(ca))
    with Client(address=address) as client:
        info = client.info()
        answered = client.address.url
    home = home_directory()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(home / CONNECTION, msgspec.json.encode(address))
    click.echo(f"connected to {answered} as {info.user}, version {info.version}")


@click.command()
def disconnect() -> None:
    """Use the server of this machine again.

    \b
    Example:
      moorage server disconnect
    """
    path = home_directory() / CONNECTION
    there = path.exists()
    path.unlink(missing_ok=True)
    click.echo("disconnected" if there else "not connected to a server elsewhere")


@click.command()
def ca() -> None:
    """Print the certificate of the authority that clients of this server trust. It is no secret.

    \b
    Example:
      moorage server ca > ca.pem
    """
    address = elsewhere() or from_home(home_directory())
    if address is None or not address.ca:
        raise NotFound(
            "there is no authority of our own: no server was told to listen for other machines, "
            "or it has a certificate of yours; start one: moorage server start --listen ADDRESS"
        )
    sys.stdout.write(address.ca)


def _token(path: str) -> str:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).expanduser().read_text("ascii")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise InvalidInput(
            Problem(
                f"{path} cannot be read: {why}",
                "name a file with the token, such as server/token of the server's MOORAGE_HOME",
                "--token-file",
            )
        ) from None
    if len(text.split()) != 1:
        raise InvalidInput(Problem(f"{path} does not hold one token", field="--token-file"))
    return text.strip()


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    partial.replace(path)
