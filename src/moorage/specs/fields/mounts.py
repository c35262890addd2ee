"""`workdir:`, `files:`, `repos:` and `volumes:`: where a job's files come from."""

from __future__ import annotations

from typing import NamedTuple

from moorage.specs.checks import (
    check_target,
    check_volume_source,
    check_volume_target,
    is_repo_url,
)
from moorage.specs.fields.field import Field, Reader, require_table
from moorage.specs.mounts import Files, HostPath, Mount, Repo
from moorage.specs.nodes import Map
from moorage.specs.schemas import FLAG, NAME, mapping, one_or_many
from moorage.specs.values import Value

NETWORK = "this version has only instance volumes, not network volumes,"
NETWORK_FIX = "write a directory of the node: /path/on/node:/path/in/job"


class Written(NamedTuple):
    """A mount and where it was written."""

    mount: Mount
    value: Value


def each(read: Reader) -> Reader:
    """A reader of lists, one mount an item."""

    def read_all(value: Value) -> list[Written]:
        found = []
        for item in value.items():
            mount = item.context.attempt(read, item)
            if mount is not None:
                found.append(Written(mount, item))
        return found

    return read_all


def read_target(value: Value) -> str:
    """Where files or a repository appear."""
    return _target(value, value.text(later=True))


def _target(value: Value, text: str) -> str:
    target = value.check(check_target, text)
    if target.startswith("/") and not text.startswith("/"):
        fix = "write where it shall appear, after a colon or as `path`"
        value.warn(f"this lies beside the working directory and appears at {target}", fix)
    return target


def read_workdir(value: Value) -> list[Written]:
    """A directory that becomes the working directory."""
    return [Written(Files(source=value.text(), target="."), value)]


FILES = (
    Field("local_path", "File or directory to upload.", lambda v: v.text(), NAME),
    Field("path", "Where it appears.", read_target, NAME, default="`local_path`"),
)


def read_files(value: Value) -> Files:
    """`local[:target]`, or `{local_path, path}`."""
    if isinstance(value.node, Map):
        given = require_table(value, FILES)
        if "local_path" not in given:
            value.reject("local_path is missing")
        source = given["local_path"]
        return Files(source, given["path"] if "path" in given else _target(value, source))
    source, colon, target = value.text(later=True).partition(":")
    if not source or (colon and (not target or ":" in target)):
        fix = "write local_path and path where a name contains a colon"
        value.reject(f"'{value.shown}' is not local or local:target", fix)
    source = value.settled(source)
    return Files(source, _target(value, target or source))


def _url(value: Value) -> str:
    url = value.text(later=True)
    if not is_repo_url(url):
        value.reject(f"'{value.shown}' is not the URL of a repository")
    return _without_password(value, url)


def _without_password(value: Value, url: str) -> str:
    authority = url.partition("://")[2].partition("/")[0]
    if ":" in authority.rpartition("@")[0]:
        fix = "remove it: the node uses its own git credentials"
        value.reject("the URL contains a password, which would be stored with the run", fix)
    return url


REPO = (
    Field("local_path", "Local checkout, taken as it stands.", lambda v: v.text(), NAME),
    Field("url", "Repository that the node clones, without its submodules.", _url, NAME),
    Field("branch", "Branch of the URL.", lambda v: v.text(later=True), NAME),
    Field("hash", "Commit of the URL.", lambda v: v.text(later=True), NAME),
    Field("path", "Where it appears.", read_target, NAME, default="`.`"),
    Field(
        "if_exists",
        "What to do where the target has files already.",
        lambda v: v.choice(("error", "skip")),
        {"enum": ["error", "skip"]},
        form="`error`, `skip`",
        default="`error`",
    ),
)


def read_repo(value: Value) -> Repo:
    """`path[:target]`, `url[:target]`, or a mapping."""
    if isinstance(value.node, Map):
        given = require_table(value, REPO)
        if ("local_path" in given) == ("url" in given):
            value.reject("a repository needs either local_path or url")
        if "local_path" in given and given.keys() & {"branch", "hash"}:
            value.reject("branch and hash need url: a local checkout is taken as it stands")
        source = given.pop("local_path", None)
        return Repo(target=given.pop("path", "."), source=source, **given)
    head, colon, target = _split_repo(value.text(later=True))
    if not head or (colon and (not target or ":" in target)):
        value.reject(f"'{value.shown}' is not a path or URL with an optional :target")
    place = _target(value, target) if target else "."
    if is_repo_url(head):
        return Repo(target=place, url=_without_password(value, head))
    head = value.settled(head)
    return Repo(target=place, source=head)


def _split_repo(text: str) -> tuple[str, str, str]:
    """Repository, colon and target; a URL has colons of its own in its scheme and host."""
    start = 0
    if "://" in text:
        start = text.find("/", text.index("://") + 3)
        start = len(text) if start < 0 else start
    elif is_repo_url(text):
        start = text.index(":") + 1
    rest, colon, target = text[start:].partition(":")
    return text[:start] + rest, colon, target


def _volume_name(value: Value) -> list[str]:
    return [item.text(later=True) for item in value.one_or_many()]


VOLUME = (
    Field(
        "instance_path",
        "Directory or file of the node.",
        lambda v: v.parse(check_volume_source, later=True),
        NAME,
    ),
    Field(
        "path",
        "Where it appears: absolute.",
        lambda v: v.parse(check_volume_target, later=True),
        NAME,
    ),
    Field(
        "optional",
        "Leave it out where the node does not have it.",
        lambda v: v.flag(),
        FLAG,
        default="`false`",
    ),
    Field(
        "read_only", "Mount it read-only.", lambda v: v.flag(), FLAG, "moorage", default="`false`"
    ),
    Field(
        "name",
        "Name of a directory that the node keeps for `instance: true`. Without it, a network "
        "volume, which this version does not have yet.",
        _volume_name,
        one_or_many(NAME),
    ),
    Field(
        "instance",
        "The volume belongs to the node.",
        lambda v: v.flag(),
        FLAG,
        "moorage",
        default="`false`",
    ),
)


def read_volume(value: Value) -> HostPath:
    """`/node:/job[:ro]`, `{instance_path, path}`, or `{name, path, instance: true}`."""
    if not isinstance(value.node, Map):
        return _short_volume(value)
    given = require_table(value, VOLUME)
    if "name" in given and not given.get("instance"):
        value.reject(f"{NETWORK} so `name` refers to nothing", NETWORK_FIX)
    if "path" not in given:
        value.reject("path is missing")
    if ("name" in given) == ("instance_path" in given):
        value.reject("a volume needs either instance_path or name with instance: true")
    source = given.get("instance_path") or _kept_directory(value, given["name"])
    flags = {name: given[name] for name in ("read_only", "optional") if name in given}
    return HostPath(source=source, target=given["path"], **flags)


def _kept_directory(value: Value, names: list[str]) -> str:
    name = names[0] if len(names) == 1 else ""
    if not name or "/" in name or name in (".", ".."):
        value.reject("an instance volume has one name, without slashes")
    return name


def _short_volume(value: Value) -> HostPath:
    source, _, rest = value.text(later=True).partition(":")
    target, colon, mode = rest.partition(":")
    if not source or not target or (colon and mode not in ("ro", "rw")):
        fix = "write /path/on/node:/path/in/job, and :ro after it to read only"
        value.reject(f"'{value.shown}' is not a volume", fix)
    if "/" not in source and not source.startswith("~"):
        value.reject(f"{NETWORK} so `{value.shown}` refers to nothing", NETWORK_FIX)
    return HostPath(
        source=value.check(check_volume_source, source),
        target=value.check(check_volume_target, target),
        read_only=mode == "ro",
    )


WORKDIR_FIELD = Field(
    "workdir",
    "Directory that is uploaded as the working directory.",
    read_workdir,
    NAME,
    "moorage",
    form="local path",
)
FILES_FIELD = Field(
    "files",
    "Files and directories to upload. Nothing at the target is deleted.",
    each(read_files),
    {
        "type": "array",
        "items": {
            "anyOf": [NAME, mapping({row.name: row.schema for row in FILES}, ("local_path",))]
        },
    },
    form="list of `local[:target]` or `{local_path, path}`",
)
REPOS_FIELD = Field(
    "repos",
    "Git repositories: a local checkout with its local changes, or a URL.",
    each(read_repo),
    {
        "type": "array",
        "items": {"anyOf": [NAME, mapping({row.name: row.schema for row in REPO})]},
    },
    form="list of `path[:target]`, `url[:target]` or a mapping",
)
VOLUMES_FIELD = Field(
    "volumes",
    "Directories and files of the node. Network volumes are refused by this version.",
    each(read_volume),
    {
        "type": "array",
        "items": {"anyOf": [NAME, mapping({row.name: row.schema for row in VOLUME}, ("path",))]},
    },
    form="list of `/node:/job[:ro]` or a mapping",
)
