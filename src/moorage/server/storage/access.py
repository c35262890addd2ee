"""Which stores there are, and how each is reached."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec.structs import replace

from moorage.core.cluster import Cluster
from moorage.core.storage import LiveStore
from moorage.data.objects.chains import completed
from moorage.errors import InvalidInput, NotFound, Problem, Unavailable, those_known
from moorage.protocol.stores import DEFAULT, EMBEDDED, Credentials, StoreRequest, StoreView
from moorage.server.storage import roles
from moorage.server.storage.vault import Sealed, Vault
from moorage.specs.stores import registry
from moorage.specs.stores.record import Access, StoreKind

_KNOWN_SECRETS = frozenset(
    (
        *("access_key_id", "secret_access_key", "session_token"),
        *("service_account_key", "token", "account_key", "sas_token"),
    )
)
_FRESH = 0.5
"""The part of its life for which an access that was minted is handed out again."""


class Embedded(Protocol):
    """The store that the server itself runs."""

    async def access(self) -> Access:
        """How to reach it from this machine; it is started where it does not run. Unavailable."""


class Stores:
    """All stores that specs can name. Called on the engine's loop."""

    def __init__(
        self,
        cluster: Cluster,
        vault: Vault,
        default: str = "",
        embedded: Embedded | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`default`: the setting `default_store`."""
        self._cluster = cluster
        self._vault = vault
        self._default = default
        self._embedded = embedded
        self._clock = clock
        self._minted: dict[tuple[str, tuple[str, ...], bool], Access] = {}

    @property
    def default(self) -> str:
        """Where `name:` without `store:` goes."""
        declared = self._cluster.stores
        if self._default:
            return self._default
        return next(iter(declared)) if len(declared) == 1 else EMBEDDED

    def resolve(self, word: str, named: str = "") -> str:
        """The one name of a store, for a name of it as specs have it. `named`: a bucket with a
        name stays where it is, whatever becomes of the default. NotFound."""
        word = word or DEFAULT
        if word == DEFAULT:
            storage = self._cluster.storages.get(named)
            word = self.default if storage is None else storage.store
        if word in self._cluster.stores:
            return word
        kind = registry.kind(word)
        if kind is None:
            known = [*self._cluster.stores, *(one.name for one in registry.KINDS)]
            told = those_known(word, known, "store ls")
            raise NotFound(
                f"there is no store {word[:80]}; {told}; declare it with moorage store add "
                f"{word[:80]} --type s3 --endpoint URL"
            )
        return kind.name

    def kind_of(self, name: str) -> StoreKind:
        """What kind of store this is. NotFound."""
        declared = self._cluster.stores.get(name)
        kind = registry.kind(declared.kind if declared is not None else name)
        if kind is None:
            raise NotFound(f"store {name} is of a kind that this version does not know")
        return kind

    async def access(self, name: str) -> Access:
        """What the server itself works with; empty secrets stand for what the engines find by
        themselves. NotFound, Sealed, Unavailable."""
        name = self.resolve(name)
        if name == EMBEDDED:
            if self._embedded is None:
                raise Unavailable("this server has no store of its own; declare one: store add")
            return await self._embedded.access()
        declared = self._cluster.stores.get(name)
        if declared is None:
            return await asyncio.to_thread(completed, Access(kind=name))
        found = access_of(declared, self._vault.open(declared.secrets, name))
        bare = not (found.secrets or found.anonymous)
        return await asyncio.to_thread(completed, found) if bare else found

    async def handed_out(
        self, name: str, buckets: Sequence[str], session: str, *, writes: bool
    ) -> Access:
        """What a node gets for these buckets: short-lived and scoped where the store has a role,
        else as `access`. Where the server has nothing, the node looks for its own."""
        name = self.resolve(name)
        access = await self.access(name)
        declared = self._cluster.stores.get(name)
        if declared is None or not declared.role:
            if access.secrets or declared is not None:
                return access
            kind = registry.kind(access.kind)
            mirror = access.endpoint if kind is not None and kind.read_only else ""
            return Access(kind=access.kind, endpoint=mirror)
        wanted = (name, tuple(sorted(set(buckets))), writes)
        known = self._minted.get(wanted)
        fresh = self._clock() + roles.LASTS * (1 - _FRESH)
        if known is None or (known.expires or 0.0) < fresh:
            known = await asyncio.to_thread(
                roles.mint, access, declared.role, wanted[1], session, writes=writes
            )
            self._minted = {
                key: one for key, one in self._minted.items() if (one.expires or 0.0) > fresh
            }
            self._minted[wanted] = known
        return known

    def declare(self, request: StoreRequest, user: str) -> LiveStore:
        """The store of a request, its secrets sealed. InvalidInput, Sealed."""
        if problems := _problems(request):
            raise InvalidInput(*problems)
        kind = registry.kind(request.kind)
        assert kind is not None
        self.forget(request.name)
        others = [one.secrets for one in self._cluster.stores.values()
                  if one.secrets and one.name != request.name]  # fmt: skip
        return LiveStore(
            name=request.name,
            kind=kind.name,
            user=user,
            created_at=self._clock(),
            endpoint=request.endpoint.rstrip("/"),
            region=request.region,
            account=request.account,
            path_style=request.path_style,
            anonymous=request.anonymous,
            role=request.role,
            secrets=self._vault.seal(request.secrets, others) if request.secrets else "",
        )

    def forget(self, name: str) -> None:
        """Hand out nothing any more that was minted for it."""
        self._minted = {key: one for key, one in self._minted.items() if key[0] != name}

    async def views(self) -> list[StoreView]:
        """Declared ones, and the kinds that can be used without."""
        declared = [self._declared(one) for one in self._cluster.stores.values()]
        kinds = [await self._kind(kind) for kind in registry.KINDS]
        return sorted(declared, key=lambda one: one.name) + kinds

    def _declared(self, store: LiveStore) -> StoreView:
        problem = ""
        try:
            self._vault.open(store.secrets, store.name)
        except Sealed as error:
            problem = str(error)
        return StoreView(
            name=store.name,
            kind=store.kind,
            credentials=_credentials(store),
            declared=True,
            default=store.name == self.default,
            endpoint=store.endpoint,
            region=store.region,
            account=store.account,
            path_style=store.path_style,
            role=store.role,
            user=store.user,
            created_at=store.created_at,
            storages=self._storages(store.name),
            problem=problem,
        )

    async def _kind(self, kind: StoreKind) -> StoreView:
        credentials: Credentials = "embedded"
        if kind.name != EMBEDDED:
            found = await asyncio.to_thread(completed, Access(kind=kind.name))
            credentials = "server" if found.secrets else "node"
        default = kind.name == self.default
        storages = self._storages(kind.name)
        return StoreView(
            kind.name, kind.name, credentials, False, default=default, storages=storages
        )

    def _storages(self, name: str) -> int:
        return sum(one.store == name for one in self._cluster.storages.values())


def access_of(store: LiveStore, secrets: dict[str, str]) -> Access:
    """As it was declared."""
    return Access(
        kind=store.kind,
        endpoint=store.endpoint,
        region=store.region,
        account=store.account,
        path_style=store.path_style,
        secrets=secrets,
        anonymous=store.anonymous,
    )


def placed(access: Access, region: str, account: str) -> Access:
    """For a bucket whose address names a region or an account."""
    return replace(access, region=region or access.region, account=account or access.account)


def _credentials(store: LiveStore) -> Credentials:
    if store.anonymous:
        return "none"
    if store.role:
        return "role"
    return "stored" if store.secrets else "server"


def _problems(request: StoreRequest) -> list[Problem]:
    """What stands against declaring it."""
    problems = []
    if not registry.is_store_name(request.name) or request.name == DEFAULT:
        fix = "use up to 41 lowercase letters, digits and dashes, and no kind's name"
        problems.append(Problem(f"{request.name} cannot be the name of a store", fix, "name"))
    kind = registry.kind(request.kind)
    if kind is None or kind.name == EMBEDDED:
        names = [one.name for one in registry.KINDS if one.name != EMBEDDED]
        fix = f"there are {', '.join(names)}"
        problems.append(Problem(f"{request.kind} is no kind of store", fix, "kind"))
    if kind is not None and kind.read_only:
        fix = f"set {' and '.join(kind.variables)} where the server runs"
        problems.append(Problem(f"{kind.title} is there without being declared", fix, "kind"))
    if request.endpoint and not _is_endpoint(request.endpoint, request.kind):
        fix = "write it as in https://minio.example:9000"
        problems.append(Problem(f"{request.endpoint} is no address of a store", fix, "endpoint"))
    if kind is not None and not request.endpoint and (lacking := _lacking(kind, request)):
        problems.append(Problem(f"nothing says where {kind.title} is", lacking, "endpoint"))
    if "service_account_key" in request.secrets and not _is_account(
        request.secrets["service_account_key"]
    ):
        fix = "give the JSON file of a service account"
        problems.append(Problem("this is no key of Google's", fix, "secrets"))
    for word in sorted(set(request.secrets) - _KNOWN_SECRETS):
        fix = f"there are {', '.join(sorted(_KNOWN_SECRETS))}"
        problems.append(Problem(f"{word} is no secret of a store", fix, "secrets"))
    keys = {"access_key_id", "secret_access_key"}
    if len(keys & set(request.secrets)) == 1:
        [missing] = keys - set(request.secrets)
        fix = "an access key is an id and a secret"
        problems.append(Problem(f"{missing} is missing", fix, "secrets"))
    if request.secrets and kind is not None and kind.name == "file":
        problems.append(Problem("a directory takes no credentials", "leave them out", "secrets"))
    if request.anonymous and request.secrets:
        problems.append(Problem("a store without credentials has no secrets", "", "anonymous"))
    if request.role and not roles.is_role(request.role):
        fix = f"write arn:aws:iam::ACCOUNT:role/NAME, or {roles.FEDERATION}"
        problems.append(Problem(f"{request.role} is no role", fix, "role"))
    return problems


def _lacking(kind: StoreKind, request: StoreRequest) -> str:
    """What a store of that kind must be told as well, to be found."""
    if not request.secrets and kind.profile is not None and kind.profile.account:
        return ""  # the account is where the keys are
    lacking = [name for name in kind.needs if not getattr(request, name)]
    words = [f"--{name} {name.upper()}" for name in lacking if name != "endpoint"]
    if not lacking or not words:
        return "add --endpoint URL" if lacking else ""
    return f"add {' '.join(words)}, or --endpoint URL"


def _is_account(text: str) -> bool:
    """Is that a service account's key? Its content is checked by who uses it."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and {"client_email", "private_key"} <= set(found)


def _is_endpoint(text: str, kind: str) -> bool:
    from urllib.parse import urlsplit

    if kind == "file":
        return text.startswith("/")
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
    except ValueError:
        return False
