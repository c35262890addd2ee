"""What runs ask of buckets, looked at before they are accepted: is the store known, is the bucket
there, may it be read and written, whose is it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec
from msgspec.structs import replace

from moorage.core.storage import LiveStorage
from moorage.data.objects.chains import missing
from moorage.data.objects.errors import StoreProblem
from moorage.errors import InvalidInput, MoorageError, NotFound, Problem
from moorage.protocol.api import RunRequest
from moorage.protocol.stores import EMBEDDED, DataPlan
from moorage.server.storage import buckets
from moorage.server.storage.access import placed
from moorage.server.storage.look import Look, try_writing
from moorage.server.storage.storages import LOOK_WITHIN, Storages, plain
from moorage.specs.mounts import Bucket
from moorage.specs.stores.record import Access, Address
from moorage.specs.task import Task

BELIEVED = 60.0
"""Seconds for which a bucket that could be written to is not tried again."""


@dataclass
class Report:
    """What was found out about the buckets of one run."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    data: list[DataPlan] = field(default_factory=list)
    to_make: list[Bucket] = field(default_factory=list)
    seen: list[tuple[LiveStorage, Look]] = field(default_factory=list)
    """Storages that were looked at."""


@dataclass(frozen=True)
class _Seen:
    """One bucket as it is. `trouble`: why that cannot be said; `sure`: the server has credentials
    of its own, so that the trouble is a problem."""

    access: Access
    look: Look | None = None
    trouble: MoorageError | None = None
    sure: bool = True


class Mounts:
    """Called on the engine's loop."""

    def __init__(self, storages: Storages) -> None:
        self._storages = storages
        self._stores = storages.stores
        self._written: dict[tuple[str, str, str], float] = {}

    def settled(self, requests: Sequence[RunRequest]) -> list[RunRequest]:
        """The same with every store by its one name, so that a run keeps its buckets whatever
        becomes of the defaults; one that is not known stays as it is, and `require` says so."""
        return [
            replace(request, spec=self.resolved(request.spec)[0])
            if _buckets(request.spec)
            else request
            for request in requests
        ]

    def resolved(self, task: Task) -> tuple[Task, list[Problem]]:
        """The same for one task, and the stores that are not known."""
        named = _buckets(task)
        if not named:
            return task, []
        mounts, problems = list(task.mounts), []
        for number, bucket in named:
            try:
                own_name = bucket.bucket if bucket.managed else ""
                store = self._stores.resolve(bucket.store, own_name)
                mounts[number] = replace(bucket, store=store)
            except NotFound as error:
                message, _, fix = str(error).partition("; ")
                problems.append(Problem(message, fix, f"mounts[{number}]"))
        return replace(task, mounts=mounts), problems

    async def examine(self, task: Task) -> Report:
        """All that stands against its buckets. Changes nothing but a probe, which it removes."""
        task, unknown = self.resolved(task)
        report = Report(unknown)
        left_out = {problem.field for problem in unknown}
        named = [
            (number, _known(one))
            for number, one in _buckets(task)
            if f"mounts[{number}]" not in left_out
        ]
        looks = await asyncio.gather(*(self._seen(bucket) for _, bucket in named))
        for (number, bucket), seen in zip(named, looks, strict=True):
            before = len(report.problems)
            self._judge(bucket, seen, report)
            report.problems[before:] = [
                one._replace(field=f"mounts[{number}]") for one in report.problems[before:]
            ]
        return report

    async def require(self, requests: Sequence[RunRequest], user: str) -> None:
        """For a submit: examines all, each bucket once, and makes those that are to be made.
        InvalidInput with every problem."""
        tasks = [request.spec for request in requests]
        kinds = {key_of(task): task for task in tasks if _buckets(task)}
        reports = await asyncio.gather(*(self.examine(task) for task in kinds.values()))
        found = dict(zip(kinds, reports, strict=True))
        problems = [
            problem._replace(field=f"runs[{number}].spec.{problem.field}")
            for number, task in enumerate(tasks)
            if _buckets(task)
            for problem in found[key_of(task)].problems
        ]
        if problems:
            raise InvalidInput(*problems)
        for storage, look in (pair for report in reports for pair in report.seen):
            await self._storages.note(storage, look)
        self._storages.hold([one for report in reports for one, _ in report.seen])
        wanted = {one.bucket: one for report in reports for one in report.to_make}
        await asyncio.gather(*(self._provide(one, user) for one in wanted.values()))

    async def _provide(self, bucket: Bucket, user: str) -> None:
        access = placed(await self._stores.access(bucket.store), bucket.region, bucket.account)
        try:
            storage = await self._storages.make(
                bucket.bucket, bucket.store, user, persistent=bucket.persistent, access=access
            )
            self._storages.hold([storage])
        except MoorageError as error:
            message, fix = plain(error)
            raise InvalidInput(
                Problem(f"the bucket {bucket.bucket} cannot be made: {message}", fix, "mounts")
            ) from None

    async def _seen(self, bucket: Bucket) -> _Seen:
        access = Access(bucket.store)
        try:
            async with asyncio.timeout(LOOK_WITHIN * 4 if bucket.store == EMBEDDED else None):
                access = await self._stores.access(bucket.store)
        except (MoorageError, TimeoutError) as error:
            known = error if isinstance(error, MoorageError) else _late(access, bucket)
            return _Seen(access, trouble=known)
        access = placed(access, bucket.region, bucket.account)
        sure = bool(access.secrets) or self._is_certain(bucket.store)
        try:
            shown = self._uri(replace(bucket, path=""))
            look = await self._storages.look(access, bucket.bucket, bucket.path, shown)
            if look.there and not look.single and _writes(bucket):
                await self._try_writing(access, bucket)
        except StoreProblem as error:
            return _Seen(access, trouble=error, sure=sure)
        return _Seen(access, look)

    def _is_certain(self, store: str) -> bool:
        """Does a node get there as far as the server, and no farther?"""
        cluster = self._storages.engine.cluster
        return store in cluster.stores or store == EMBEDDED or not cluster.hosts_by_node

    async def _try_writing(self, access: Access, bucket: Bucket) -> None:
        now = self._storages.engine.clock()
        place = (bucket.store, bucket.bucket, bucket.path)
        if self._written.get(place, 0.0) > now:
            return
        shown = self._uri(replace(bucket, path=""))
        call = partial(try_writing, access, bucket.bucket, bucket.path, shown)
        await self._storages.ask(access, bucket.bucket, LOOK_WITHIN, call)
        self._written = {key: until for key, until in self._written.items() if until > now}
        self._written[place] = now + BELIEVED

    def _judge(self, bucket: Bucket, seen: _Seen, report: Report) -> None:
        uri = self._uri(bucket)
        storage = self._storages.find(bucket.bucket) if bucket.managed else None
        if storage is not None and (wrong := _mismatch(bucket, storage)):
            report.problems.append(wrong)
        elif seen.trouble is not None:
            self._troubled(bucket, seen, report, uri)
        elif seen.look is not None and seen.look.there:
            self._there(bucket, seen.look, storage, report, uri)
        else:
            self._missing(bucket, storage, report, uri)

    def _troubled(self, bucket: Bucket, seen: _Seen, report: Report, uri: str) -> None:
        message, fix = plain(seen.trouble or StoreProblem("failed", uri, "it failed"))
        if isinstance(seen.trouble, StoreProblem) and seen.trouble.reason == "unreachable":
            endpoint = seen.access.endpoint or self._stores.kind_of(bucket.store).title
            message = f"{uri}: store {bucket.store} at {endpoint} cannot be reached"
            fix = f"check it: moorage store check {bucket.store}"
        elif lacking := self._lacking(bucket, seen.access):
            message = message if lacking in message else f"{message}: {lacking}"
            fix = f"declare it with its secret: moorage store add NAME --type {bucket.store}"
        if seen.sure or bucket.managed:
            report.problems.append(Problem(message, fix))
            return
        report.warnings.append(f"not looked at: {message}; the node tries with its own")
        report.data.append(_plan(bucket, uri))

    def _lacking(self, bucket: Bucket, access: Access) -> str:
        """Which credentials the server would have needed, if it has none."""
        declared = bucket.store in self._storages.engine.cluster.stores
        return missing(access) if access.anonymous and not declared else ""

    def _there(
        self, bucket: Bucket, look: Look, storage: LiveStorage | None, report: Report, uri: str
    ) -> None:
        if bucket.managed and storage is None:
            fix = (
                f"write `source: {uri}` instead of `name: {bucket.bucket}` to use it, or choose "
                "another name"
            )
            told = f"a bucket {bucket.bucket} is in store {bucket.store}, not made by moorage"
            report.problems.append(Problem(told, fix))
            return
        if bucket.path and not look.objects and not _writes(bucket):
            report.problems.append(
                Problem(f"there is nothing at {uri}", "check its path; upper and lower case count")
            )
            return
        if storage is not None:
            report.warnings += _persistence(bucket, storage)
            if storage.state == "making":
                report.to_make.append(bucket)
            report.seen.append((storage, look))
        report.data.append(
            _plan(bucket, uri, objects=look.objects, bytes=look.bytes, more=look.more)
        )

    def _missing(
        self, bucket: Bucket, storage: LiveStorage | None, report: Report, uri: str
    ) -> None:
        if not bucket.managed:
            fix = "check its name and region, or write `name:` to have one made"
            report.problems.append(Problem(f"there is no bucket {uri}", fix))
            return
        if storage is not None and not storage.made:
            fix = f"moorage storage delete {storage.name}, then submit again to have one made"
            told = f"the bucket of storage {storage.name} is gone, and moorage did not make it"
            report.problems.append(Problem(told, fix))
            return
        if storage is not None and storage.state in ("ready", "missing"):
            report.seen.append((storage, Look(False)))
            report.warnings.append(
                f"the bucket {uri} was deleted, and not by moorage: it is made again, empty"
            )
        report.to_make.append(bucket)
        report.data.append(_plan(bucket, uri, will_make=True))

    def _uri(self, bucket: Bucket) -> str:
        address = Address(bucket.bucket, bucket.path, bucket.region, bucket.account)
        if bucket.store in self._storages.engine.cluster.stores:
            return "/".join(filter(None, (f"{bucket.store}://{bucket.bucket}", bucket.path)))
        try:
            return self._stores.kind_of(bucket.store).write(address)
        except ValueError:
            return f"{bucket.store}://{bucket.bucket}"


def key_of(task: Task) -> bytes:
    """Tasks with the same buckets in the same places have the same problems."""
    return msgspec.json.encode(_buckets(task))


def _buckets(task: Task) -> list[tuple[int, Bucket]]:
    return [(n, one) for n, one in enumerate(task.mounts) if isinstance(one, Bucket)]


def _known(bucket: Bucket) -> Bucket:
    """Without the part of its path that is known only when a job starts."""
    literal, reference, _ = bucket.path.partition("${{")
    return replace(bucket, path=literal.rpartition("/")[0]) if reference else bucket


def _writes(bucket: Bucket) -> bool:
    return not bucket.read_only and (bucket.mode != "copy" or bucket.sync_back)


def _mismatch(bucket: Bucket, storage: LiveStorage) -> Problem | None:
    if storage.store != bucket.store:
        told = f"storage {storage.name} is in store {storage.store}, not in {bucket.store}"
        return Problem(told, f"write `store: {storage.store}`, or choose another name")
    if storage.state == "deleting":
        return Problem(f"storage {storage.name} is being deleted", "wait until it is gone")
    return None


def _persistence(bucket: Bucket, storage: LiveStorage) -> Iterator[str]:
    if not storage.made and not bucket.persistent:
        yield f"storage {storage.name} was not made by moorage, so it is not deleted with this run"
    if storage.persistent and storage.made and not bucket.persistent:
        yield (
            f"storage {storage.name} was made to stay, so it is not deleted with this run; "
            f"delete it with moorage storage delete {storage.name}"
        )


def _plan(
    bucket: Bucket,
    uri: str,
    *,
    will_make: bool = False,
    objects: int | None = None,
    bytes: int | None = None,
    more: bool = False,
) -> DataPlan:
    return DataPlan(bucket.target, uri, bucket.mode, bucket.store, will_make, objects, bytes, more)


def _late(access: Access, bucket: Bucket) -> StoreProblem:
    place = buckets.shown_at(access, bucket.bucket)
    return StoreProblem("unreachable", place, "the store takes too long to start")
