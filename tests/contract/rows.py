"""Statements that fill every column with something plausible."""

from __future__ import annotations

from typing import Any

from moorage.protocol.api import FINAL_STATES
from moorage.store.base import Statement


def run(number: int, **changes: Any) -> Statement:
    return Statement(
        "insert_run",
        {
            "id": number,
            "name": f"run-{number}",
            "user": "ada",
            "state": "queued",
            "reason": "",
            "message": "",
            "exit_code": None,
            "priority": 0,
            "spec": '{"type":"task","commands":["true"]}',
            "source": "",
            "dialect": "native",
            "tags": "{}",
            "submitted_at": 100.0 + number,
            "started_at": None,
            "ended_at": 200.0 + number if changes.get("state") in FINAL_STATES else None,
            "next_at": None,
            "stopping": 0,
            "node": "",
            "attempt": 0,
            **changes,
        },
    )


def job(number: int, run_id: int, **changes: Any) -> Statement:
    return Statement(
        "insert_job",
        {
            "id": number,
            "run_id": run_id,
            "idx": 0,
            "state": "queued",
            "reason": "",
            "message": "",
            "exit_code": None,
            "attempt": 0,
            "node_id": None,
            "not_before": None,
            "stopping": 0,
            "failed_at": None,
            "queued_at": 100.0,
            "started_at": None,
            "ended_at": None,
            "cause": None,
            **changes,
        },
    )


def node(number: int, **changes: Any) -> Statement:
    return Statement(
        "upsert_node",
        {
            "id": number,
            "name": f"node-{number}",
            "boot_id": "b00t",
            "state": "up",
            "version": "0.1.0",
            "resources": "{}",
            "isolation": "{}",
            "pythons": "[]",
            "last_seen": 100.0,
            "address": "",
            **changes,
        },
    )


def attempt(job_id: int, number: int = 1, **changes: Any) -> Statement:
    return Statement(
        "insert_attempt",
        {
            "job_id": job_id,
            "attempt": number,
            "rank": 0,
            "node_id": 1,
            "state": "staging",
            "gpus": "[]",
            "assigned_at": 101.0,
            **changes,
        },
    )


def progress(job_id: int, state: str, **changes: Any) -> Statement:
    return Statement(
        "update_attempt",
        {
            "job_id": job_id,
            "attempt": 1,
            "rank": 0,
            "state": state,
            "started_at": 102.0,
            "ended_at": None,
            "phases": "[]",
            "outcome": None,
            "usage": None,
            **changes,
        },
    )


def event(kind: str = "run.submitted", **changes: Any) -> Statement:
    return Statement(
        "insert_event",
        {
            "at": 100.0,
            "kind": kind,
            "run_id": None,
            "job_id": None,
            "node_id": None,
            "data": "{}",
            **changes,
        },
    )


def pack(name: str, **changes: Any) -> Statement:
    return Statement("insert_pack", {"id": name, "bytes": 148, "added_at": 100.0, **changes})


def blob(digest: str, pack_id: str, **changes: Any) -> Statement:
    return Statement(
        "insert_blob",
        {
            "digest": digest,
            "pack": pack_id,
            "start": 48,
            "length": 100,
            "size": 200,
            "added_at": 100.0,
            **changes,
        },
    )


def fleet(name: str, **changes: Any) -> Statement:
    fields = {"spec": "{}", "state": "active", "created_at": 1.0, "updated_at": 2.0}
    return Statement("upsert_fleet", {"name": name} | fields | changes)


def host(fleet: str, num: int, **changes: Any) -> Statement:
    fields = {
        "address": f"h{num}",
        "spec": "{}",
        "state": "connecting",
        "message": "",
        "fix": "",
        "facts": "{}",
        "node_id": None,
        "force": 0,
        "changed_at": 1.0,
    }
    return Statement("upsert_host", {"fleet": fleet, "num": num} | fields | changes)


def object_store(name: str, **changes: Any) -> Statement:
    fields = {
        "kind": "s3",
        "endpoint": "http://127.0.0.1:9000",
        "region": "",
        "account": "",
        "path_style": 1,
        "anonymous": 0,
        "role": "",
        "secrets": "0123456789ab:sealed",
        "user": "ada",
        "created_at": 1.5,
    }
    return Statement("upsert_store", {"name": name} | fields | changes)


def storage(name: str, store: str, **changes: Any) -> Statement:
    fields = {
        "bucket": name,
        "made": 1,
        "persistent": 0,
        "state": "ready",
        "message": "",
        "born": "2026-11-21T00:00:00Z",
        "made_by": None,
        "user": "ada",
        "created_at": 1.5,
        "last_used": 2.5,
        "unflushed": "[]",
        "objects": 3,
        "bytes": 4,
        "looked_at": 5.5,
    }
    return Statement("upsert_storage", {"name": name, "store": store} | fields | changes)
