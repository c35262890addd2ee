"""`moorage store add`: declare an object store."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import MappingProxyType

import click

from moorage.cli.client import Client
from moorage.cli.render import printable, say
from moorage.cli.session import asks, connect, json_option, print_json
from moorage.cli.transport import segment
from moorage.errors import InvalidInput, Problem
from moorage.protocol.stores import Credentials, StoreCheck, StoreRequest, StoreView
from moorage.specs.stores import registry

SECRETS: Mapping[str, str] = MappingProxyType(
    {"gcs": "service_account_key", "azure": "account_key"}
)
"""What the secret of a kind is called, where it is not that of an access key."""
REACHED: Mapping[Credentials, str] = MappingProxyType(
    {
        "stored": "it is reached with the keys that were given",
        "role": "nodes reach it with an hour's keys of its role",
        "server": "it is reached with the credentials that the server finds by itself",
        "node": "each node reaches it with its own credentials",
        "none": "it is reached without credentials, for public buckets only",
        "embedded": "it is reached with keys of its own",
    }
)
"""With what a store is reached, in a sentence."""


@click.command()
@click.argument("name")
@click.option("--type", "kind", required=True, metavar="KIND", help="s3, gcs, azure, r2, ...")
@click.option("--endpoint", default="", metavar="URL", help="Default: the kind's usual one.")
@click.option("--region", default="", help="Of its buckets.")
@click.option("--account", default="", help="Azure's storage account; Cloudflare's for r2.")
@click.option(
    "--path-style", is_flag=True, help="Buckets are in the path: MinIO, SeaweedFS, Ceph."
)
@click.option("--access-key-id", default="", metavar="ID", help="Its secret is asked for.")
@click.option("--secret-from", metavar="VARIABLE", help="Take the secret from the environment.")
@click.option("--sas", is_flag=True, help="The secret is a SAS token (azure).")
@click.option("--own-credentials", is_flag=True, help="Use those that the server finds by itself.")
@click.option("--anonymous", is_flag=True, help="Without credentials: public buckets.")
@click.option("--role", default="", metavar="ARN", help="What nodes get credentials of, hourly.")
@json_option
def add(
    name: str, kind: str, endpoint: str, region: str, account: str, path_style: bool,
    access_key_id: str, secret_from: str | None, sas: bool, own_credentials: bool,
    anonymous: bool, role: str, as_json: bool,
) -> None:  # fmt: skip
    """Declare an object store, or declare it anew.

    The secret is never an argument: it is asked for on a terminal, else read from standard input,
    or taken from the variable that --secret-from names. It is sealed before the server keeps it.
    Without keys, say what else: --own-credentials or --anonymous.
    With --role ARN (or `federation`) a node gets credentials for an hour and the buckets of its
    job only, where the store can mint them; that needs boto3 beside the server.

    \b
    Examples:
      moorage store add lab --type s3 --endpoint https://minio.lab:9000 --path-style \\
          --access-key-id ada
      moorage store add images --type gcs < service-account.json
      moorage store add aws --type s3 --region eu-west-1 --own-credentials
    """
    keyless = own_credentials or anonymous
    _require_one(own_credentials, anonymous, bool(access_key_id or secret_from or sas))
    word = "sas_token" if sas else SECRETS.get(kind.lower(), "")
    secrets: dict[str, str] = {}
    known = registry.kind(kind)  # what is none, the server says, with all that there are
    if not (keyless or role or known is None or known.read_only or known.name == "file"):
        secrets = _keys(word, access_key_id, secret_from)
    elif role and (access_key_id or secret_from):
        secrets = _keys("", access_key_id, secret_from)
    request = StoreRequest(
        name, kind, endpoint, region, account, path_style, anonymous, role, secrets
    )
    with connect() as client:
        view = client.transport.call("POST", "/v1/stores", StoreView, body=request, again=True)
        if as_json:
            print_json(view)
        else:
            click.echo(f"store {view.name} is declared; {reached(view)}")
        tell_default(view)
        checked = check_of(client, name)  # which takes some seconds where it does not answer
    if checked.problem:
        say(f"warning: {printable(checked.problem)}; {checked.fix}".removesuffix("; "))


def check_of(client: Client, name: str) -> StoreCheck:
    """One look of the server at a store."""
    path = f"/v1/stores/{segment(name)}/check"
    return client.transport.call("POST", path, StoreCheck, again=True)


def reached(view: StoreView) -> str:
    """With what, in a sentence."""
    return "it is a directory" if view.kind == "file" else REACHED[view.credentials]


def tell_default(view: StoreView) -> None:
    """Says where new buckets with nothing but a name go, after a change of that."""
    if view.default_was:
        say(
            f"from now on, new buckets written as `name:` without `store:` are made in "
            f"{view.default_now}, no longer in {view.default_was}; `default_store` in the "
            "server's config.yml sets it for good"
        )


def _require_one(own: bool, anonymous: bool, keys: bool) -> None:
    if own + anonymous + keys > 1:
        field = "--own-credentials" if own else "--anonymous"
        raise InvalidInput(Problem("it is one or the other: keys or none", field=field))


def _keys(word: str, access_key_id: str, secret_from: str | None) -> dict[str, str]:
    """What a kind is reached with: one secret of that name, or an access key. Asks for what is
    missing; InvalidInput where nobody can be asked."""
    if word and not access_key_id:
        return {word: _secret(secret_from)}
    if not access_key_id and secret_from is None and asks():
        sys.stderr.write("Access key id: ")
        sys.stderr.flush()
        access_key_id = sys.stdin.readline().strip()
    if not access_key_id:
        reason = "whose secret is it?" if secret_from else "nothing says which keys it takes"
        fix = (
            "add --access-key-id ID with the secret on standard input, or --own-credentials for "
            "those that the server finds by itself, or --anonymous"
        )
        raise InvalidInput(Problem(reason, fix, "--access-key-id"))
    return {"access_key_id": access_key_id, "secret_access_key": _secret(secret_from)}


def _secret(variable: str | None) -> str:
    if variable is not None:
        found = os.environ.get(variable, "")
        if not found:
            reason = f"the variable {variable} is not set"
            raise InvalidInput(Problem(reason, f"export {variable}=...", "--secret-from"))
        return found
    if asks():
        from getpass import getpass

        found = getpass("Secret (not shown): ", sys.stderr)
    else:
        found = sys.stdin.read()
    if not found.strip():
        fix = "write it to standard input, or name a variable with --secret-from"
        raise InvalidInput(Problem("the secret is empty", fix))
    return found.strip()
