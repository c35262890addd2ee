"""The container of a run: its image, and how it is started."""

from __future__ import annotations

from moorage.specs.container import (
    USER_PATTERN,
    RegistryAuth,
    check_entrypoint,
    check_image,
    check_user,
)
from moorage.specs.fields.field import Field, require_table
from moorage.specs.schemas import FLAG, REFERENCE, TEXT, mapping
from moorage.specs.values import Value

AUTH = (
    Field(
        "username",
        "Name of the account in the registry.",
        lambda v: v.text(later=True),
        TEXT,
        form="text",
        default="required",
    ),
    Field(
        "password",
        "Its password or token; `${{ env.NAME }}` keeps it out of the file.",
        lambda v: v.text(later=True),
        TEXT,
        form="text",
        default="required",
    ),
)


def read_auth(value: Value) -> RegistryAuth:
    """Both parts."""
    found = require_table(value, AUTH)
    for name in ("username", "password"):
        if name not in found:
            value.reject(f"the field '{name}' is missing", f"add `{name}:`")
    return RegistryAuth(**found)


CONTAINER = (
    Field(
        "image",
        "Container image: from a registry, an archive, a directory or an image file of the node.",
        lambda v: v.parse(check_image),
        {"type": "string", "pattern": "^[^.~]"},
        form="`name:tag`, `docker-archive:/FILE`, `oci-archive:/FILE`, absolute path",
        default="none: commands run in the node's own system",
    ),
    Field(
        "entrypoint",
        "Program that gets the commands as its arguments, instead of a shell.",
        lambda v: v.parse(check_entrypoint),
        TEXT,
        form="text, split as a shell does",
        default="the image's, without commands",
    ),
    Field(
        "user",
        "Who the job is inside the container.",
        lambda v: v.parse(check_user),
        {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": USER_PATTERN}, REFERENCE]},
        form="`uid_or_name[:gid_or_name]`",
        default="the image's",
    ),
    Field(
        "registry_auth",
        "Account for the registry of the image.",
        read_auth,
        mapping({row.name: row.schema for row in AUTH}, ("username", "password")),
        form="mapping",
    ),
    Field(
        "privileged",
        "All capabilities that the node's account has, and all devices.",
        lambda v: v.flag(),
        FLAG,
        form="`true`, `false`",
        default="`false`",
    ),
    Field(
        "docker",
        "A Docker daemon of the job's own, for `docker` and `docker compose` in its commands, on "
        "nodes whose fleet allows it; without `image`.",
        lambda v: v.flag(),
        FLAG,
        form="`true`, `false`",
        default="`false`",
    ),
)
