"""Azure Blob Storage. Its buckets are containers of a storage account."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moorage.specs.stores.addresses import BadAddress, joined, plain, rest_of, scheme_of, split
from moorage.specs.stores.record import Access, Address, Engine, StoreKind

_HOST = re.compile(r"([a-z0-9]{3,24})\.blob\.core\.windows\.net", re.IGNORECASE)
_DOMAIN = "blob.core.windows.net"


def is_host(host: str) -> bool:
    """Whether a host belongs to a storage account, or is meant to."""
    return host.lower().endswith(f".{_DOMAIN}")


def check_name(name: str) -> str:
    """Azure's rules for containers."""
    if not 3 <= len(name) <= 63:
        return "it must have 3 to 63 characters"
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*[a-z0-9]", name):
        return "use lowercase letters, digits and -, with a letter or digit at both ends"
    return "two dashes may not follow each other" if "--" in name else ""


def _read(text: str) -> Address:
    if scheme_of(text) != "https":
        return plain(text)
    host, _, rest = rest_of(text).partition("/")
    account = _HOST.fullmatch(host)
    if account is None:
        raise BadAddress(
            "the storage account must have 3 to 24 letters and digits",
            f"write https://ACCOUNT.{_DOMAIN}/CONTAINER",
        )
    if not rest:
        raise BadAddress("the container is missing", f"write https://{host}/CONTAINER")
    return Address(*split(rest), account=account[1].lower())


def _write(address: Address) -> str:
    if not address.account:
        return joined("az", address.bucket, address.path)
    return joined("https", f"{address.account}.{_DOMAIN}", address.bucket, address.path)


def _rclone(access: Access) -> Mapping[str, str]:
    base = access.endpoint or f"https://{access.account}.{_DOMAIN}"
    token = access.secrets.get("sas_token", "").removeprefix("?")
    options = {
        "type": "azureblob",
        "account": access.account,
        "key": access.secrets.get("account_key", ""),
        "sas_url": f"{base.rstrip('/')}/?{token}" if token else "",
        "env_auth": "" if access.secrets or access.anonymous else "true",
        "endpoint": access.endpoint,
        "no_check_container": "true",
    }
    return {name: text for name, text in options.items() if text}


def _obstore(access: Access, bucket: str) -> tuple[Engine, Mapping[str, str]]:
    config = {
        "container_name": bucket,
        "account_name": access.account,
        "account_key": access.secrets.get("account_key", ""),
        "sas_key": access.secrets.get("sas_token", ""),
        "token": access.secrets.get("token", ""),
        "skip_signature": "true" if access.anonymous else "",
        "endpoint": access.endpoint,
    }
    return "azure", {name: text for name, text in config.items() if text}


KIND = StoreKind(
    name="azure",
    title="Azure Blob Storage",
    schemes=("az",),
    read=_read,
    write=_write,
    check_name=check_name,
    rclone=_rclone,
    obstore=_obstore,
    aliases=("az",),
    variables=("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"),
    needs=("account",),
)
