"""Modes `mount` and `cached` of buckets."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from moorage.data import scratch
from moorage.data.base import Bind, Handle, NotHere, SourceError
from moorage.data.buckets import Moved, Use, kept_place, note_kept
from moorage.data.rclone import environment, lending, options, program
from moorage.data.rclone.flushing import Flush
from moorage.data.rclone.mount import How, RcloneMount
from moorage.data.rclone.watching import Tell, Watch
from moorage.data.stopping import breaking, run_program
from moorage.specs.mounts import Bucket
from moorage.specs.stores import registry
from moorage.specs.stores.record import Access

_PATIENCE = 60.0  # seconds for a store to say what a path is


class Mounted:
    """Both modes. `unflushed` is a directory on the file system of the attempts, which keeps what
    could not be uploaded."""

    def __init__(self, unflushed: Path) -> None:
        self._unflushed = unflushed
        self._lock = threading.Lock()
        self._watches: dict[Path, Watch] = {}
        self._renewals: dict[Path, lending.Renewal] = {}

    def problems(self, bucket: Bucket) -> tuple[list[str], list[str]]:
        """See `buckets.Mode`."""
        why = program.why_not()
        return ([f"{bucket.target}: {why}"] if why else []), []

    def prepare(self, use: Use) -> Handle:
        """See `buckets.Mode`."""
        bucket = use.bucket
        if why := program.why_not():
            raise NotHere(f"{bucket.target}: {why}")
        mount = RcloneMount(use.directory)
        try:
            name = self._set_up(mount, bucket, use.access())
            self._renew(use)
            self._start(mount)
        except SourceError as error:
            raise type(error)(f"{bucket.target}: {error}") from None
        source = mount.place / name if name else mount.place
        detail = f"{bucket.target}: {options.shown(bucket).partition(':')[2]} mounted"
        return Handle([Bind(source, use.target, bucket.read_only)], detail)

    def _start(self, mount: RcloneMount) -> None:
        """Until it is there, or nobody wants it any more: its store may hang."""
        wake = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            with breaking(lambda: os.eventfd_write(wake, 1)):
                mount.start(wake)
        finally:
            os.close(wake)

    def _set_up(self, mount: RcloneMount, bucket: Bucket, access: Access) -> str:
        """The object's name where it is one."""
        variables = _variables(access, bucket, mount.directory)
        path, name = bucket.path, ""
        if _is_object(bucket, variables):
            path, _, name = path.rpartition("/")
        words = options.arguments(bucket, options.remote(bucket, path), mount.mountpoint, name)
        mount.set_up(How(words, variables, bucket))
        return name

    def _renew(self, use: Use) -> None:
        """Its keys, where they do not last."""
        with self._lock:
            if use.directory not in self._renewals and lending.ends(use.directory) is not None:
                self._renewals[use.directory] = lending.Renewal(use.directory, use.access)

    def attend(self, use: Use, tell: Tell, doomed: Callable[[], bool]) -> None:
        """See `buckets.Mode`."""
        self._renew(use)
        watch = self._watch(RcloneMount(use.directory))
        if watch is not None:
            watch.tell, watch.doomed = tell, doomed

    def _watch(self, mount: RcloneMount) -> Watch | None:
        """None where nothing was ever mounted."""
        with self._lock:
            watch = self._watches.get(mount.directory)
            if watch is None and (how := mount.how()) is not None:
                watch = self._watches[mount.directory] = Watch(mount, how.bucket)
            return watch

    def flush(self, use: Use, tell: Callable[[Moved], None], patience: float) -> str:
        """See `buckets.Mode`."""
        mount, bucket = RcloneMount(use.directory), use.bucket
        if bucket.read_only or mount.how() is None:
            return ""
        flush = Flush(mount, bucket.mode == "cached")
        # What is dead or was rebooted away is started again by its supervisor.
        watch = self._watch(mount)
        if watch is not None and not flush.over():
            watch.need()
            flush.wait(tell, patience)
        return ""

    def release(self, use: Use) -> None:
        """See `buckets.Mode`."""
        self.put_away(use.directory, use.place.directory.name)

    def put_away(self, directory: Path, key: str) -> None:
        """End a mount, whatever its state, knowing no more than its directory; what is not in the
        bucket is kept. SourceError."""
        with self._lock:
            watch = self._watches.pop(directory, None)
            renewal = self._renewals.pop(directory, None)
        for one in (watch, renewal):
            if one is not None:
                one.stop()
        if not directory.is_dir():
            return
        mount = RcloneMount(directory)
        mount.end()
        if mount.dirty(1):
            self._keep(mount, kept_place(self._unflushed, key, directory.name))

    def _keep(self, mount: RcloneMount, place: Path) -> None:
        if (how := mount.how()) is not None:
            mount.set_up(How(how.words, {}, how.bucket))  # without its secrets
            lending.forget(mount.directory)
            note_kept(mount.directory, how.bucket)
        mount.directory.rename(place)

    def resume(
        self,
        bucket: Bucket,
        directory: Path,
        access: Access,
        tell: Callable[[Moved], None],
        patience: float,
    ) -> None:
        """See `buckets.Resumable`."""
        mount = RcloneMount(directory)
        how = mount.how()
        if how is None:
            raise SourceError(f"{directory} does not say what is to be uploaded where")
        mount.end()  # that of an agent which was killed meanwhile
        variables = _variables(access, bucket, directory)
        mount.set_up(How(how.words, variables, bucket))
        try:
            mount.start()
            Flush(mount, cached=True).wait(tell, patience)
        finally:
            mount.end()
            mount.set_up(How(how.words, {}, bucket))
            lending.forget(directory)
        scratch.remove(directory)


def _variables(access: Access, bucket: Bucket, directory: Path) -> dict[str, str]:
    found = lending.lent(_options(access, bucket), access, directory)
    return options.variables(bucket, found)


def _options(access: Access, bucket: Bucket) -> dict[str, str]:
    kind = registry.kind(access.kind)
    if kind is None:
        raise SourceError(f"this node does not know stores of kind {access.kind}; upgrade it")
    if not kind.mountable:
        raise SourceError(f"{kind.title} cannot be mounted; use mode: COPY")
    # What an address says holds for this bucket only.
    access = msgspec.structs.replace(
        access, region=bucket.region or access.region, account=bucket.account or access.account
    )
    try:
        return dict(kind.rclone(access))
    except ValueError as error:
        raise SourceError(str(error)) from None


def _is_object(bucket: Bucket, variables: dict[str, str]) -> bool:
    """Whether its path is that of one object. SourceError where the bucket, or what is to be read,
    is not there, or may not be read."""
    what = options.remote(bucket, bucket.path)
    words = [str(program.find()), "lsjson", "--stat", "--no-modtime", "--no-mimetype"]
    try:
        done = run_program(
            [*words, "--retries", "1", "--low-level-retries", "3", what],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment.of_process(variables),
            timeout=_PATIENCE,
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        raise SourceError("the store does not answer") from None
    if done.returncode == 0:
        return not json.loads(done.stdout)["IsDir"]
    said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    why = said.partition("Failed to lsjson: ")[2] or said
    if "directory not found" in why:
        raise SourceError(f"there is no bucket {bucket.bucket}; create it, or correct the name")
    raise SourceError(f"bucket {bucket.bucket} cannot be used: {why}")
