"""What a kind of object store is to moorage: how its addresses are written, what its buckets may
be called, and how the two engines (obstore, rclone) are told to reach it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

Engine = Literal["s3", "gcs", "azure", "http", "local"]
"""obstore's classes of stores."""


class Address(Struct, frozen=True, omit_defaults=True):
    """Where something lies, as its URI says."""

    bucket: str
    path: str = ""
    """An object or a prefix below the bucket; no slash at either end."""
    region: str = ""
    account: str = ""
    """Azure's storage account."""


class Access(Struct, frozen=True, omit_defaults=True):
    """How to reach one store. Handed to whoever works with it, never written into a run."""

    kind: str
    """Name of a `StoreKind`."""
    endpoint: str = ""
    """A URL where the store is not at its kind's usual place."""
    region: str = ""
    account: str = ""
    path_style: bool = False
    secrets: dict[str, str] = {}
    """`access_key_id secret_access_key session_token` (S3 and alike), `service_account_key` (JSON)
    or `token` (GCS), `account_key sas_token` (Azure), `token` (HF).
    Empty: the engines' own chain."""
    anonymous: bool = False
    """Unsigned requests: public buckets."""
    expires: float | None = None
    """Unix time after which the secrets no longer work."""

    def __repr__(self) -> str:
        return f"Access({self.kind}, {self.endpoint or 'usual endpoint'}, secrets hidden)"


class Profile(Struct, frozen=True):
    """Where an account of a machine keeps its keys for a kind that speaks Amazon's API; paths may
    begin with `~`. As SkyPilot documents them, so that nothing has to be set up twice."""

    name: str
    """Of the section."""
    credentials: str = "~/.aws/credentials"
    config: str = "~/.aws/config"
    account: str = ""
    """A file that has nothing but the account's number."""


class StoreKind(Struct, frozen=True):
    """One kind. Adding a store is adding one of these, in a module of its own."""

    name: str
    title: str
    """For people: `Amazon S3`."""
    schemes: tuple[str, ...]
    """What may stand before `://`; none where addresses look otherwise."""
    read: Callable[[str], Address]
    """An address of this kind. ValueError with the reason."""
    write: Callable[[Address], str]
    """The other way round: what `storage ls` shows."""
    check_name: Callable[[str], str]
    """Why a bucket may not be called so; empty where it may."""
    rclone: Callable[[Access], Mapping[str, str]]
    """Options of rclone's backend (`type`, `provider`, ...), for RCLONE_CONFIG_<NAME>_*."""
    obstore: Callable[[Access, str], tuple[Engine, Mapping[str, str]]]
    """obstore's class and its configuration for a bucket. ValueError where obstore cannot."""
    aliases: tuple[str, ...] = ()
    """Other words for it in `store:`."""
    variables: tuple[str, ...] = ()
    """Environment variables that its own chain reads, for messages."""
    profile: Profile | None = None
    """Where keys are that nobody declared; None: where the cloud's own tools look."""
    needs: tuple[str, ...] = ()
    """What a store of this kind must be declared with, if not with an endpoint."""
    read_only: bool = False
    mountable: bool = True
