"""List a bucket in which some keys are no paths: `a//b`, `../x`, or with a line end.

obstore refuses the whole listing for one such key; rclone shows it all, with characters of its own
for what could not be in a path. It shows no etags, so objects are told apart by their time.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from subprocess import PIPE

from moorage.data.base import SourceError
from moorage.data.objects.bucket import Bucket, Found
from moorage.data.rclone import options, program
from moorage.data.stopping import run_program
from moorage.data.transfer.names import reason_against_file
from moorage.specs import mounts
from moorage.specs.stores import registry

_WORDS = ("lsjson", "-R", "--no-mimetype", "--use-server-modtime")
_DOTS = {"．": ".", "．．": ".."}
_PICTURES = {0x2400 + code: code for code in range(0x20)} | {0x2421: 0x7F}
"""Of control characters."""


def listing(bucket: Bucket, prefix: str) -> list[Found]:
    """Everything below `prefix`. SourceError."""
    if why := program.why_not():
        raise SourceError(f"{bucket.at(prefix)} has keys that only rclone can list; {why}")
    kind = registry.kind(bucket.access.kind)
    assert kind is not None
    wanted = mounts.Bucket("", bucket=bucket.name, path=prefix)
    variables = options.variables(wanted, dict(kind.rclone(bucket.access)))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RCLONE_")}
    done = run_program(
        [str(program.find()), *_WORDS, options.remote(wanted, prefix)],
        env={**kept, **variables},
        stdout=PIPE,
        stderr=PIPE,
        cwd="/",
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise SourceError(f"{bucket.at(prefix)} cannot be listed: {said or 'it was broken off'}")
    above = f"{prefix}/" if prefix else ""
    found = []
    for one in json.loads(done.stdout):
        path = _key(one["Path"])
        if not one["IsDir"]:
            found.append(Found(above + path, one["Size"], _time(one["ModTime"])))
        elif not reason_against_file(path):  # else it only leads to what is shown as well
            found.append(Found(f"{above}{path}/", 0, 0.0))
    return found


def _key(path: str) -> str:
    parts = [_DOTS.get(part, part) for part in path.split("/")]
    return "/".join(parts).translate(_PICTURES)


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
