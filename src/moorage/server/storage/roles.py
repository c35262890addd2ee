"""Credentials for a while, and for some buckets only: what a store of Amazon's API hands out for
a role. Nodes get these; those that are stored stay on the server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from moorage.errors import Unavailable
from moorage.specs.stores.record import Access

FEDERATION = "federation"
"""Instead of a role: credentials of the user itself, narrowed (GetFederationToken)."""
LASTS = 3600
"""Seconds."""
_WITHIN = 5.0
_READ = ("s3:GetObject", "s3:GetBucketLocation", "s3:ListBucket", "s3:GetObjectVersion")
_WRITE = (
    *("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"),
    *("s3:ListMultipartUploadParts", "s3:ListBucketMultipartUploads"),
)


def is_role(text: str) -> bool:
    """What `--role` may be."""
    return text == FEDERATION or (text.startswith("arn:") and ":role/" in text)


def mint(
    access: Access, role: str, buckets: Sequence[str], session: str, *, writes: bool
) -> Access:
    """Access to these buckets for an hour. Blocks. Unavailable where it is refused."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise Unavailable(
            "a store with a role needs a package that is not installed: pip install boto3"
        ) from None
    secrets = access.secrets
    try:
        client = boto3.client(
            "sts",
            endpoint_url=access.endpoint or None,
            region_name=access.region or "us-east-1",
            aws_access_key_id=secrets.get("access_key_id"),
            aws_secret_access_key=secrets.get("secret_access_key"),
            aws_session_token=secrets.get("session_token"),
            config=Config(
                connect_timeout=_WITHIN, read_timeout=_WITHIN, retries={"total_max_attempts": 1}
            ),
        )
        policy = policy_of(buckets, writes=writes)
        if role == FEDERATION:
            given = client.get_federation_token(
                Name=session[:32], Policy=policy, DurationSeconds=LASTS
            )
        else:
            given = client.assume_role(
                RoleArn=role, RoleSessionName=session, Policy=policy, DurationSeconds=LASTS
            )
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "error")
        raise Unavailable(f"the role {role} is refused ({code}): check its trust policy") from None
    except BotoCoreError as error:
        raise Unavailable(f"the role {role} cannot be had: {type(error).__name__}") from None
    return _access(access, given["Credentials"])


def _access(access: Access, given: dict[str, Any]) -> Access:
    secrets = {
        "access_key_id": given["AccessKeyId"],
        "secret_access_key": given["SecretAccessKey"],
        "session_token": given["SessionToken"],
    }
    expires = given["Expiration"].timestamp()
    return msgspec.structs.replace(access, secrets=secrets, expires=expires)


def policy_of(buckets: Sequence[str], *, writes: bool) -> str:
    """What of the role's permissions is handed on."""
    places = [f"arn:aws:s3:::{name}{rest}" for name in buckets for rest in ("", "/*")]
    allowed = [*_READ, *(_WRITE if writes else ())]
    statement = {"Effect": "Allow", "Action": allowed, "Resource": places}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
