"""`type: task`: every field that may stand in one, in the order in which they are read. `env` is
read before whatever may refer to it."""

from __future__ import annotations

from moorage.specs.fields.bucketcache import CONFIG, MOUNT, MOUNT_CACHED
from moorage.specs.fields.bucketkeys import BUCKET
from moorage.specs.fields.buckets import FILE_MOUNTS_FIELD
from moorage.specs.fields.container import AUTH, CONTAINER
from moorage.specs.fields.field import Field, Table
from moorage.specs.fields.gang import GANG, GROUP
from moorage.specs.fields.mounts import (
    FILES,
    FILES_FIELD,
    REPO,
    REPOS_FIELD,
    VOLUME,
    VOLUMES_FIELD,
    WORKDIR_FIELD,
)
from moorage.specs.fields.placement import (
    EXCLUSIVE,
    FLEET_REFERENCE,
    FLEETS_FIELD,
    INSTANCE,
    INSTANCES_FIELD,
)
from moorage.specs.fields.policies import (
    MAX_DURATION,
    ON_NODE_LOSS,
    RETRY,
    RETRY_FIELD,
    SCHEDULE,
    SCHEDULE_FIELD,
    STOP_DURATION,
)
from moorage.specs.fields.ports import PORTS
from moorage.specs.fields.resources import CPU, GPU, RESOURCES, read_resources
from moorage.specs.fields.run import (
    COMMANDS,
    COMPAT,
    ENV,
    NAME_FIELD,
    PRIORITY,
    PYTHON,
    SHELL,
    TAGS,
    WORKING_DIR,
)
from moorage.specs.fields.unsupported import PROFILE_FIELDS, RUN
from moorage.specs.schemas import mapping
from moorage.specs.values import Value, suggestion

OTHER_TYPES = ("dev-environment", "service", "volume", "gateway", "preset")


def read_type(value: Value) -> str:
    """`task`; the other kinds of dstack are known by name."""
    kind = value.text()
    if kind == "fleet":
        value.reject("this is a fleet, and a task is needed here", "use moorage apply -f FILE")
    if kind in OTHER_TYPES:
        value.reject(f"this version does not have '{kind}' documents yet", "write type: task")
    if kind != "task":
        near = suggestion(kind, ("task", *OTHER_TYPES))
        value.reject(f"there is no type '{value.shown}'{near}", "write type: task")
    return kind


TASK: Table = (
    Field(
        "type",
        "Kind of the document.",
        read_type,
        {"const": "task"},
        form="`task`",
        default="required",
    ),
    ENV,
    NAME_FIELD,
    COMMANDS,
    SHELL,
    PYTHON,
    WORKING_DIR,
    WORKDIR_FIELD,
    FILES_FIELD,
    REPOS_FIELD,
    VOLUMES_FIELD,
    FILE_MOUNTS_FIELD,
    Field(
        "resources",
        "What must be free on a node for the job to start.",
        read_resources,
        mapping({row.name: row.schema for row in RESOURCES}),
        form="mapping",
    ),
    *GANG,
    PRIORITY,
    RETRY_FIELD,
    ON_NODE_LOSS,
    MAX_DURATION,
    STOP_DURATION,
    SCHEDULE_FIELD,
    TAGS,
    COMPAT,
    FLEETS_FIELD,
    INSTANCES_FIELD,
    EXCLUSIVE,
    *CONTAINER,
    PORTS,
    *RUN,
    *PROFILE_FIELDS,
)

NESTED: dict[str, Table] = {
    "groups[]": GROUP,
    "resources": RESOURCES,
    "resources.cpu": CPU,
    "resources.gpu": GPU,
    "files[]": FILES,
    "repos[]": REPO,
    "volumes[]": VOLUME,
    "file_mounts.*": BUCKET,
    "file_mounts.*.config": CONFIG,
    "file_mounts.*.config.mount": MOUNT,
    "file_mounts.*.config.mount_cached": MOUNT_CACHED,
    "registry_auth": AUTH,
    "retry": RETRY,
    "schedule": SCHEDULE,
    "fleets[]": FLEET_REFERENCE,
    "instances[]": INSTANCE,
}
"""Tables of the mappings inside a task, for the reference page."""
