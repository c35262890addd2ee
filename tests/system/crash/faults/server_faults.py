"""The points of a server: before and after each kind of commit, before and after each message."""

from __future__ import annotations

import time

import faultpoints
from faultpoints import Patches, around


def kinds(_store, batch):
    """What the statements of a commit are for; a group has all of its batches' kinds."""
    found = {}
    queries = {statement.query for statement in batch}
    if "insert_run" in queries:
        found["submit"] = None
    elif "insert_job" in queries:
        found["fire"] = None
    if "insert_attempt" in queries:
        found["assign"] = None
    if "delete_run" in queries:
        found["delete"] = None
    if "upsert_node" in queries:
        found["node"] = None
    for statement in batch:
        params = statement.params
        if statement.query == "update_attempt":
            found["end" if params["state"] == "done" else "report"] = None
        if statement.query in ("update_job", "update_run") and params["stopping"]:
            found["cancel"] = None
        if statement.query == "update_job" and params["not_before"] is not None:
            found["retry"] = None
    return [f"server.commit.{kind}" for kind in found]


def _sqlite(module):
    around(module.SqliteStore, "write", kinds)


def _links(module):
    def sent(_links, _node, message):
        return f"server.send.{type(message).__name__}"

    around(module.Links, "send", sent)


def _boot(module):
    """A clock that a test may have set ahead."""
    try:
        with open(f"{faultpoints.PLACE}/clock") as file:
            ahead = float(file.read())
    except OSError:
        return
    _, *others = module.start.__defaults__
    module.start.__defaults__ = (lambda: time.time() + ahead, *others)


def _engine(module):
    # Committed, and nobody has been told.
    around(module.Engine, "submit", "server.submit", before=False)


Patches(
    {
        "moorage.store.sqlite": _sqlite,
        "moorage.engine.links": _links,
        "moorage.engine.loop": _engine,
        "moorage.engine.boot": _boot,
    }
)
