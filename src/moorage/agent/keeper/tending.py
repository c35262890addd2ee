"""What the keeper does with jobs: start, stop, reap, sweep up, record. Standard library only.

    spawning ──> running ──> sweeping ──> ended
        └──> (forgotten, with the error)

`sweeping`: the main process is dead; what is left of the job is killed, and killed again, until
nothing is. Only then is `exit.json` written, and only then is anybody told.
"""

from __future__ import annotations

import os
import select
import signal
import time

from moorage.agent.keeper import burial, family, launching, stuck, visits
from moorage.agent.keeper.cgroup import Cgroups
from moorage.agent.keeper.clerks import Clerk, Handover
from moorage.agent.keeper.family import send
from moorage.agent.keeper.fence import Fence
from moorage.agent.keeper.job import Job
from moorage.agent.keeper.launching import LaunchError, Started
from moorage.agent.keeper.loop import Loop, Timer
from moorage.agent.keeper.starters import Starters
from moorage.agent.sandbox.roots import Roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Reply = Callable[[dict[str, Any]], None]

SWEEP_PATIENCE = 30.0
"""Seconds: a process that SIGKILL does not end in that time hangs in the kernel (a dead network
file system), and the job is recorded without waiting for it any longer."""
_REMOVE_PATIENCE = 2.0
_EARLY = 10_000
"""Deaths that are remembered while something is being started."""
_TIDY_AFTER = 5.0
"""Seconds without a job after which the parent groups go: a keeper that is killed leaves none."""


class Tender:
    """All jobs of one keeper."""

    def __init__(
        self, loop: Loop, cgroups: Cgroups | None, on_exit: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self.jobs: dict[str, Job] = {}
        self._loop, self.cgroups, self._on_exit = loop, cgroups, on_exit
        self._mains: dict[int, Job] = {}
        self._sweeping: dict[str, Job] = {}
        self._early: dict[int, tuple[float, int, Any]] = {}
        self._clerks: dict[int, Clerk] = {}
        self._threads = 0
        self._may_mount = launching.may_mount()
        self._roots = Roots() if self._may_mount else None
        self._starters = Starters(loop, self._roots)
        if self._roots is not None:
            loop.watch(self._roots.mounts, self._roots.notice, select.EPOLLPRI)
        self.fence = Fence(loop, self._fence)
        self._tidier: Timer | None = None
        self.tidy()

    def busy(self) -> bool:
        """Whether something runs, is being tidied up, or ended and nobody but us knows how."""
        return not all(job.saved for job in self.jobs.values())

    def live(self) -> int:
        """How many jobs are being started or run."""
        return self._threads + len(self._mains)

    def save(self) -> None:
        """Write the records again that a full disk refused."""
        for job in self.jobs.values():
            if job.state == "ended":
                job.save()

    def spawn(self, request: dict[str, Any], reply: Reply) -> None:
        """Start it, once for each key; `reply` gets `pid`, or `error` and `step`."""
        known = self.jobs.get(request["key"])
        if known is not None:
            known.waiting.append(reply)
            if known.state != "spawning":
                self._answer(known)
            return
        job = Job(request)
        if job.fenced and not self.fence.check():
            reply({"error": "the node has no contact to the server", "step": "fence"})
            return
        try:
            job.claim()
            job.make_group(self.cgroups)
        except LaunchError as error:
            if error.step == "cgroup":
                job.disclaim()
            reply({"error": str(error), "step": error.step})
            return
        job.waiting.append(reply)
        self.jobs[job.key] = job
        self._launch(job, request)

    def _launch(self, job: Job, request: dict[str, Any]) -> None:
        contained = request.get("container") is not None
        if not contained and (request["mounts"] is None or self._may_mount):
            self._threads += 1
            self._starters.submit(request, job.group, lambda got: self._threaded(job, got))
            return
        try:
            pid, reader, handed = launching.by_fork(request, job.group)
        except LaunchError as error:
            self._failed(job, error)
            return
        job.pid = pid
        self._mains[pid] = job
        self._loop.watch(reader, lambda _events: self._forked(job, reader, handed))

    def _threaded(self, job: Job, got: Started) -> None:
        self._threads -= 1
        job.root, job.listener = got.root, got.listener
        if got.error is not None:
            self._failed(job, got.error)
            return
        job.pid, job.direct, job.began = got.pid, got.direct, got.began
        died, status, usage = self._early.pop(job.pid, (0.0, 0, None))
        dead = died > got.called  # else it was another process, which had the same number
        if job.request["mounts"] is not None and not dead:
            job.hold_namespace()
        self._mains[job.pid] = job
        if not self._threads:
            self._early.clear()
        self._started(job)
        if dead:
            self._main_ended(job, status, usage)

    def _forked(self, job: Job, reader: int, handed: Handover | None) -> None:
        text = os.read(reader, 4096).decode()
        self._loop.unwatch(reader)
        os.close(reader)
        job.listener = handed.received() if handed is not None else -1
        if text:
            step, _, message = text.partition("\t")
            self._mains.pop(job.pid, None)
            burial.collect(job.pid)  # its control group could not go before
            self._failed(job, LaunchError(message, step))
            return
        job.began = time.time()
        job.hold_namespace()
        self._started(job)
        if job.status is not None:
            self._sweep(job)

    def _failed(self, job: Job, error: LaunchError) -> None:
        del self.jobs[job.key]
        if job.listener >= 0:
            os.close(job.listener)
        if job.group is not None:
            job.group.remove()
        self._return_root(job)
        job.disclaim()
        for reply in job.waiting:
            reply({"error": str(error), "step": error.step})

    def _started(self, job: Job) -> None:
        job.state = "running"
        job.note_pid()
        limit, grace = job.request["max_duration"], job.request["grace"]
        if limit is not None:
            job.limit = self._loop.later(limit, lambda: self._stop(job, grace, "timeout"))
        if job.listener >= 0:
            job.clerk = Clerk(self._loop, job.listener, job.request["fsyncs"], self._clerks)
        if job.request.get("gate"):
            job.gate = visits.open_gate(job, job.request["output"])
        job.request = {}  # it holds the environment, which may hold secrets
        self._answer(job)
        if job.fenced and not self.fence.check():
            job.pending_stop = (0, "fenced")
        if job.pending_stop is not None:
            self._stop(job, *job.pending_stop)

    def _answer(self, job: Job) -> None:
        waiting, job.waiting = job.waiting, []
        for reply in waiting:
            reply({"pid": job.pid})

    def stop(self, key: str, grace: float | None, cause: str) -> bool:
        """SIGTERM now, SIGKILL after `grace` seconds; False when it does not run."""
        job = self.jobs.get(key)
        if job is not None and job.state == "sweeping" and job.mercy > time.monotonic():
            self._shorten(job, grace, cause)
            return True
        if job is None or job.state not in ("spawning", "running"):
            return False
        if job.state == "spawning":
            job.pending_stop = (grace, cause)
        else:
            self._stop(job, grace, cause)
        return True

    def _fence(self) -> None:
        """The server may begin the next attempt soon, and cannot say so."""
        for job in list(self.jobs.values()):
            if job.fenced:
                self.stop(job.key, 0, "fenced")

    def unfence(self, keys: list[str]) -> None:
        """The server knows that these have begun, and waits for them."""
        for key in keys:
            job = self.jobs.get(key)
            if job is not None:
                job.fenced = False

    def _shorten(self, job: Job, grace: float | None, cause: str) -> None:
        """Its main process has obeyed; whatever is left may have less time from now on."""
        if cause == "aborted":
            job.cause = cause
        if grace is not None:
            job.mercy = min(job.mercy, time.monotonic() + grace)
            job.deadline = job.mercy + SWEEP_PATIENCE
        self._sweep(job)

    def _stop(self, job: Job, grace: float | None, cause: str) -> None:
        if job.state != "running":
            return
        asked = job.cause is not None
        if not asked or cause in ("aborted", "fenced"):
            job.cause = cause
        if grace is not None and grace <= 0:
            self._kill(job)
            return
        if not asked:  # who is told twice begins to save twice, or takes it for an abort
            self._ask(job)
        if grace is not None:
            due = time.monotonic() + grace
            if job.killer is None or job.killer.when > due:
                job.forget_killer()
                job.killer = self._loop.later(grace, lambda: self._kill(job))

    def _ask(self, job: Job) -> None:
        for number in (signal.SIGTERM, signal.SIGCONT):
            told = self._members(job) if job.engine is None else self._contained(job)
            # The shell first: it would go on to its next command, of which nobody knows here.
            for pid in sorted(told, key=lambda pid: pid != job.pid):
                send(pid, number)

    def _kill(self, job: Job) -> None:
        if job.state == "running":
            if job.group is not None:
                job.group.kill()
            for pid in self._members(job):
                send(pid, signal.SIGKILL)
            stuck.expect_end(self._loop, job)

    def _members(self, job: Job) -> list[int]:
        if job.group is not None:
            return list({job.pid, *job.group.processes()})  # a shell would obey SIGTERM twice
        if job.engine is not None:  # its container is nobody's child, and has the mark
            return family.remnants(job.pid, family.start_time(job.pid), job.mark)
        return family.members(job.pid, job.mark, os.getpid(), self._mains, job.namespace)

    def _contained(self, job: Job) -> list[int]:
        """What is in the container that an engine has made; before that, the engine. One that is
        told would pass it on, and everything in there would be told twice."""
        return family.elsewhere(self._members(job)) or [job.pid]

    def reap(self) -> None:
        """Collect every child that died; called for SIGCHLD."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            job = self._mains.get(pid)
            if job is not None:
                self._main_ended(job, status, usage)
            else:
                self._orphan_ended(pid, status, usage)
        for job in list(self._sweeping.values()):
            self._sweep(job)

    def _orphan_ended(self, pid: int, status: int, usage: Any) -> None:
        if pid in self._clerks:
            self._clerks[pid].died()
            return
        if self._threads:  # perhaps a main process whose thread has not yet said so
            self._early[pid] = (time.monotonic(), status, usage)
            if len(self._early) > _EARLY:  # a start that hangs may do so for days
                del self._early[next(iter(self._early))]
        for job in self._sweeping.values():
            if pid in job.doomed:
                job.cpu += usage.ru_utime + usage.ru_stime
                return

    def _main_ended(self, job: Job, status: int, usage: Any) -> None:
        self._mains.pop(job.pid, None)
        job.ended(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
        if job.state == "running":  # else the fork has yet to say whether it ever ran
            self._sweep(job)

    def _sweep(self, job: Job) -> None:
        if job.state == "removing":
            return
        if job.state != "sweeping":
            job.state = "sweeping"
            self._sweeping[job.key] = job
            job.deadline = max(time.monotonic(), job.mercy) + SWEEP_PATIENCE
        now = time.monotonic()
        left = [] if now > job.deadline else self._left(job)
        if not left:
            self._settle(job)
            return
        if now < job.mercy:
            self._sweep_later(job, min(1.0, job.mercy - now))
            return
        job.doom(left)
        if job.group is not None:
            job.group.kill()
        for pid in left:
            send(pid, signal.SIGKILL)
        stuck.expect_end(self._loop, job)
        self._sweep_later(job, 1.0)

    def _sweep_later(self, job: Job, seconds: float) -> None:
        """Each death wakes us by SIGCHLD; this is for those that are not the keeper's children and
        for a time that passes without any."""
        if job.sweeper is None:
            job.sweeper = self._loop.later(seconds, lambda: self._sweep_again(job))

    def _sweep_again(self, job: Job) -> None:
        job.sweeper = None
        if job.state == "sweeping":
            self._sweep(job)

    def _left(self, job: Job) -> list[int]:
        group = job.group
        if group is not None and not self._dissolved(job) and group.populated():
            return group.processes()
        if job.engine is not None and not job.grouped:  # nor are an engine's last steps the job's
            return family.remnants(0, 0, job.mark)
        # Also with a group: root may leave it, and a container engine does.
        # The main process is reaped, so its number may be somebody else's by now.
        strays = family.orphans(os.getpid(), {*self._mains, *self._clerks})
        others = self._mains or self._threads or len(self._sweeping) > 1
        if job.grouped or others:  # perhaps somebody else's
            strays = [pid for pid in strays if family.belongs(pid, job.mark, job.namespace)]
        return family.descendants(strays) if strays else []

    def _dissolved(self, job: Job) -> bool:
        """Remove the group, once its counters were read. A group that the kernel removes holds no
        process, and asking for them first would cost as much again."""
        if job.group is not None:
            job.count()
            if job.group.remove():
                job.group = None
        return job.group is None

    def _settle(self, job: Job) -> None:
        if job.state != "removing":
            job.state = "removing"
            job.deadline = time.monotonic() + _REMOVE_PATIENCE
        if not self._dissolved(job) and time.monotonic() < job.deadline:
            # The kernel lets go of a group a moment after its last process.
            self._loop.later(0.01, lambda: self._settle(job))
            return
        record = job.close()
        self._sweeping.pop(job.key, None)
        self._return_root(job)
        self._on_exit(job.key, record)

    def _return_root(self, job: Job) -> None:
        if self._tidier is None:
            self._tidier = self._loop.later(_TIDY_AFTER, self.tidy)
        root, job.root = job.root, None
        if root is not None and self._roots is not None:
            self._roots.give_back(root)

    def tidy(self) -> None:
        """Remove the control groups that are empty; those of jobs are not."""
        self._tidier = None
        if self._roots is not None:
            self._roots.drop()
        if self.cgroups is not None:
            self.cgroups.remove_idle()

    def forget(self, key: str) -> None:
        """Drop what is remembered of an ended job."""
        job = self.jobs.get(key)
        if job is not None and job.state == "ended":
            del self.jobs[key]

    def bury(self, key: str, directory: str, reply: Reply) -> None:
        """Kill what is left of a job of a keeper that died, and record what is known of it."""
        if key in self.jobs:
            reply({"error": "this keeper runs it", "step": "exec"})
            return
        burial.Burial(self._loop, self.cgroups, key, directory).begin(lambda: reply({"ok": True}))
