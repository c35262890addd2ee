"""Proves a store: every rule between tables that the core relies on, and that content is there.

Reads only; works on a store in use as well, where each rule is looked at in one statement and so
at one moment. What is found names its repair: statements where that is safe and mechanical, else
words that say what to do or what is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, get_args

import msgspec

from moorage.core import boot
from moorage.core.job import JobStateName
from moorage.core.shape import shapes_of
from moorage.core.storage import StorageState
from moorage.decoding import from_json
from moorage.protocol.agent import AttemptState
from moorage.protocol.api import Finding, NodeState, RunRef, RunState
from moorage.specs.task import Task
from moorage.store.base import Row, Statement, Store, StoreBroken
from moorage.store.numbers import MARGIN, is_number
from moorage.store.telling import Tell, nobody

_PAGE = 500


class Found(NamedTuple):
    """A problem, and the statements that repair it; none: nothing mechanical does."""

    finding: Finding
    repair: tuple[Statement, ...] = ()


class Rule(NamedTuple):
    """Rows of `query` are problems. Texts are filled in with their columns."""

    query: str
    problem: str
    remedy: str
    repairs: tuple[str, ...]


RULES = (
    Rule(
        "check_live_jobs_of_ended_runs",
        "job {job} is {state}, but its run {run} has ended ({run_state})",
        "the job is ended as lost",
        ("repair_job_lost",),
    ),
    Rule(
        "check_jobs_without_attempt",
        "job {job} is {state}, but there is no live attempt {attempt} of it",
        "the job is ended as lost; submit it again if it matters",
        ("repair_job_lost", "repair_run_of_job"),
    ),
    Rule(
        "check_live_runs_without_jobs",
        "run {run} is {state}, but none of its jobs is live",
        "the run is ended, as its jobs were",
        ("repair_run_from_jobs",),
    ),
    Rule(
        "check_jobs_elsewhere",
        "job {job} is on node {node}, but its attempt {attempt} is on node {attempt_node}",
        "the attempt is believed",
        ("repair_job_node",),
    ),
    Rule(
        "check_live_attempts_of_ended_jobs",
        "attempt {attempt} of job {job} is {state}, but the job is {job_state}",
        "the attempt is ended",
        ("repair_attempt_over",),
    ),
    Rule(
        "check_attempts_beyond",
        "job {job} had {attempt} attempts, but counts {counted}",
        "the count is raised: no attempt may be started twice",
        ("repair_job_count",),
    ),
    Rule(
        "check_ended_runs_without_time",
        "run {run} is {state}, but has no time of its end",
        "the latest time known is taken",
        ("repair_run_time",),
    ),
    Rule(
        "check_ended_jobs_without_time",
        "job {job} is {state}, but has no time of its end",
        "the latest time known is taken",
        ("repair_job_time",),
    ),
    Rule(
        "check_ended_attempts_without_time",
        "attempt {attempt} of job {job} is done, but has no time of its end",
        "the latest time known is taken",
        ("repair_attempt_time",),
    ),
    Rule(
        "check_live_with_end",
        "run {run} is {state}, but has a time of its end",
        "the time is removed",
        ("repair_no_end",),
    ),
    Rule(
        "check_lost_content",
        "{kind} {digest} of run {run} ({name}, {state}) is not there",
        "it is lost here: delete the run, or submit its file again, which uploads it",
        (),
    ),
    Rule(
        "check_blob_bounds",
        "blob {digest} lies outside its pack {pack}",
        "it is lost: its row is removed, so that the next upload brings it again",
        ("repair_forget_blob",),
    ),
)
NUMBERS = (
    *("schema_version", "epoch", "highest_run", "highest_job", "events_trimmed"),
    *("restored_jobs", "restored_attempt"),
)
"""What `meta` may hold; not all of it is there in every store."""
_LEGAL: Mapping[str, frozenset[str]] = {
    "run": frozenset(get_args(RunState)),
    "job": frozenset(get_args(JobStateName)),
    "attempt": frozenset((*get_args(AttemptState), "assigned", "prefilled")),
    "node": frozenset(get_args(NodeState)),
    "storage": frozenset(get_args(StorageState)),
}


def check_tables(store: Store, now: float, tell: Tell = nobody) -> Iterator[Found]:
    """Everything wrong with the rows. StoreBroken where they cannot even be read."""
    yield from _states(store)
    for number, rule in enumerate(RULES):
        tell("rules", number, len(RULES))
        for row in store.read(rule.query):
            yield _broken(rule, row, now)
    yield from _requests(store)
    unreadable = list(_meta(store, now))
    yield from unreadable
    if not unreadable:  # what follows reads those numbers
        yield from _numbers(store)
        yield from _ranks(store, now)
        yield from _start(store)


def _broken(rule: Rule, row: Row, now: float) -> Found:
    params: Mapping[str, Any] = {**row, "now": now}
    repair = tuple(Statement(query, params) for query in rule.repairs)
    problem = rule.problem.format_map(row)
    return Found(Finding(problem, rule.remedy, bool(repair)), repair)


def _states(store: Store) -> Iterator[Found]:
    for row in store.read("check_states"):
        what, state = row["what"], row["state"]
        if state not in _LEGAL[what]:
            many = f"{what} is" if row["total"] == 1 else f"{what}s are"
            problem = f"{row['total']} {many} {state!r} (number {row['id']} is one)"
            remedy = "no version of moorage knows this state: restore a backup"
            yield Found(Finding(problem, remedy))


def _numbers(store: Store) -> Iterator[Found]:
    known, next_ = store.read("check_numbers")[0], store.read("max_ids")[0]
    for what in ("run", "job"):
        if known[what] > next_[what]:
            problem = f"{what} {known[what]} was there, but its number would be given out again"
            mark = {"key": f"highest_{what}", "value": str(known[what])}
            finding = Finding(problem, "the number is noted as used", repairable=True)
            yield Found(finding, (Statement("raise_mark", mark),))


def _requests(store: Store) -> Iterator[Found]:
    position: dict[str, Any] = {"user": "", "id": ""}
    while rows := store.read("check_requests", {**position, "limit": _PAGE}):
        for row in rows:
            try:
                from_json(row["runs"], list[RunRef])
            except msgspec.MsgspecError:
                repair = Statement("delete_request", {"user": row["user"], "id": row["id"]})
                problem = f"the answer to request {row['id']!r} of {row['user']} cannot be read"
                remedy = "it is forgotten: a repetition of that request submits again"
                yield Found(Finding(problem, remedy, repairable=True), (repair,))
        position = {"user": rows[-1]["user"], "id": rows[-1]["id"]}


def _meta(store: Store, now: float) -> Iterator[Found]:
    for key in NUMBERS:
        for row in store.read("meta", {"key": key}):
            if not is_number(row["value"]):
                told = f"{key} is {row['value']!r}, not a number"
                if key == "schema_version":
                    yield Found(Finding(told, "restore a backup"))
                    continue
                value, remedy = _instead(store, key, now)
                repair = Statement("set_meta", {"key": key, "value": str(value)})
                yield Found(Finding(told, remedy, repairable=True), (repair,))


def _instead(store: Store, key: str, now: float) -> tuple[int, str]:
    """What to write where a number is lost, and why that."""
    known = store.read("check_known")[0]
    if key == "epoch":
        # Agents refuse a server of an older epoch than they know: milliseconds are beyond all
        # that starts and restores can have come to.
        return int(now * 1000), "the number is set far above all that were used"
    if key == "events_trimmed":
        return max(0, known["first_event"] - 1), "the feed begins with the first event there is"
    if key == "restored_jobs":
        return known["job"], "every job counts as restored: its next attempt has a new number"
    if key == "restored_attempt":
        return known["attempt"] + MARGIN, "numbers go on far above all that are known"
    # What was deleted may have had higher numbers than rows and events still know. Every run and
    # every job had events, so there were fewer of them than events.
    highest = max(known[key.removeprefix("highest_")], known["last_event"])
    return highest + MARGIN, "numbers go on far above all that are known"


def _ranks(store: Store, now: float) -> Iterator[Found]:
    """Jobs that lack ranks, of which nobody would know whether they run."""
    there: dict[tuple[int, int], list[int]] = {}
    for row in store.read("live_attempts"):
        there.setdefault((row["job_id"], row["attempt"]), []).append(row["rank"])
    wanted = {}
    for row in store.read("live_runs"):
        with suppress(msgspec.MsgspecError):  # which `_start` tells
            wanted[row["id"]] = len(shapes_of(from_json(row["spec"], Task)))
    for row in store.read("live_jobs"):
        ranks = there.get((row["id"], row["attempt"]))
        absent = set(range(wanted.get(row["run_id"], 0))).difference(ranks or [])
        if ranks is None or not absent:
            continue
        named = ", ".join(map(str, sorted(absent)))
        told = (
            f"job {row['id']} is {row['state']}, but attempt {row['attempt']} lacks rank {named}"
        )
        params = {"job": row["id"], "attempt": row["attempt"], "now": now}
        remedy = "the job is ended as lost, its other ranks are stopped; submit it again"
        names = ("repair_attempt_over", "repair_job_lost", "repair_run_of_job")
        repair = tuple(Statement(name, params) for name in names)
        yield Found(Finding(told, remedy, repairable=True), repair)


def _start(store: Store) -> Iterator[Found]:
    """What a server does with the tables when it starts, tried."""
    for row in store.read("live_runs"):
        try:
            from_json(row["spec"], Task)
        except msgspec.MsgspecError as error:
            problem = f"the spec of run {row['id']} ({row['name']}) cannot be read: {error}"
            yield Found(Finding(problem, "restore a backup: no server starts from this"))
            return
    if failure := _failure(partial_start(store)):
        remedy = "repair what stands above, then check again; else restore a backup"
        yield Found(Finding(f"no server can start from these tables: {failure}", remedy))


def partial_start(store: Store) -> Callable[[], object]:
    """The step of a start that reads tables, to be called."""
    return lambda: boot.restore(
        runs=store.read("live_runs"),
        jobs=store.read("live_jobs"),
        attempts=store.read("live_attempts"),
        nodes=store.read("nodes"),
        ids=store.read("max_ids")[0],
        dropped_logs=store.read("dropped_logs"),
        stores=store.read("stores"),
        storages=store.read("storages"),
        earlier_attempts=store.read("earlier_attempts"),
    )


def _failure(start: Callable[[], object]) -> str:
    try:
        start()
    except StoreBroken:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
