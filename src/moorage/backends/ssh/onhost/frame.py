"""The first program of every call: takes in the others, runs one, and writes its answer.

Standard input carries lengths and contents: this file, a request in JSON, then whatever the
program reads. The answer is one line of standard output that begins with a word of the caller's,
for logins print all kinds of things before.
"""

from __future__ import annotations

import errno
import json
import os
import pathlib
import sys
import types
from typing import Any, BinaryIO

SHELL = "moorage-shell-runs"
"""Printed by the shell, so that a login without one is known."""
NO_PYTHON = "moorage-no-python"
_SPACE = (errno.ENOSPC, errno.EDQUOT)


def explain(error: OSError) -> list[str]:
    """Cause and fix of what the system refused."""
    place = " in " + str(pathlib.Path(str(error.filename)).parent) if error.filename else ""
    if error.errno in _SPACE:
        return ["the disk is full" + place, "make space there"]
    words = os.strerror(error.errno) if error.errno else str(error)
    named = str(error.filename) + ": " if error.filename else ""
    return [named + words.lower(), "let the user write there, or use another one"]


def import_all(sources: dict[str, str]) -> None:
    """Make modules of texts, in order, as if they had been found on disk."""
    for name, source in sources.items():
        parents = name.split(".")[:-1]
        for length in range(1, len(parents) + 1):
            package = types.ModuleType(".".join(parents[:length]))
            package.__path__ = []
            sys.modules.setdefault(package.__name__, package)
        module = types.ModuleType(name)
        sys.modules[name] = module
        exec(compile(source, "<%s>" % name, "exec"), module.__dict__)  # noqa: S102


def serve(stream: BinaryIO) -> int:
    """Answer one request; the exit code."""
    request = json.loads(stream.read(int(stream.readline())).decode())
    answer: dict[str, Any] = {}
    try:
        import_all(request["modules"])
        answer["value"] = sys.modules[request["main"]].main(request["arguments"], stream)
    except OSError as error:
        answer["problem"] = explain(error)
    except RuntimeError as error:  # what the programs raise: cause, then fix
        answer["problem"] = [str(part) for part in error.args] or ["unknown"]
    sys.stdout.write("\n%s %s\n" % (request["word"], json.dumps(answer)))
    sys.stdout.flush()
    return 0
