"""IBM Cloud Object Storage: S3's API, at an address of each region."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moorage.specs.stores import s3api
from moorage.specs.stores.addresses import BadAddress, joined, rest_of, split
from moorage.specs.stores.record import Access, Address, Engine, Profile, StoreKind

REGIONS = (
    *("us-south", "us-east", "eu-de", "eu-gb", "eu-es", "ca-tor", "ca-mon"),
    *("jp-tok", "jp-osa", "au-syd", "br-sao", "us", "eu", "ap"),
)
"""Those that are known here, to say what was meant; new ones are fine."""
_REGION = re.compile(r"[a-z]{2}-[a-z]{3,10}")
_FIX = "write it as in cos://us-east/bucket"


def check_name(name: str) -> str:
    """IBM's rules for bucket names."""
    if not 3 <= len(name) <= 63:
        return "it must have 3 to 63 characters"
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*[a-z0-9]", name):
        return "use lowercase letters, digits, . and -, with a letter or digit at both ends"
    if re.search(r"\.\.|--|\.-|-\.", name):
        return "two dots or dashes may not follow each other"
    if re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", name):
        return "it may not look like an IP address"
    return ""


def _read(text: str) -> Address:
    region, _, rest = rest_of(text).partition("/")
    if region in REGIONS and not rest:
        raise BadAddress("the bucket after the region is missing", _FIX)
    if not rest or not region:
        raise BadAddress("the region of the bucket is missing", _FIX)
    if region not in REGIONS:
        import difflib  # only wrong addresses pay for it

        close = difflib.get_close_matches(region[:40].lower(), REGIONS, n=1)
        if close or not _REGION.fullmatch(region):
            meant = f"; did you mean '{close[0]}'?" if close else ""
            raise BadAddress(f"'{region[:40]}' is not a region of IBM's store{meant}", _FIX)
    return Address(*split(rest), region=region)


def _endpoint(access: Access) -> str:
    if access.endpoint or not access.region:
        return s3api.required(access, "ibm")
    return f"https://s3.{access.region}.cloud-object-storage.appdomain.cloud"


def _rclone(access: Access) -> Mapping[str, str]:
    return s3api.rclone(access, "IBMCOS", _endpoint(access))


def _obstore(access: Access, bucket: str) -> tuple[Engine, Mapping[str, str]]:
    return s3api.obstore(access, bucket, _endpoint(access), path_style=True)


KIND = StoreKind(
    name="ibm",
    title="IBM Cloud Object Storage",
    schemes=("cos",),
    read=_read,
    write=lambda address: joined("cos", address.region, address.bucket, address.path),
    check_name=check_name,
    rclone=_rclone,
    obstore=_obstore,
    aliases=("cos",),
    profile=Profile("ibm", "~/.ibm/credentials.yaml", ""),
    needs=("region",),
)
