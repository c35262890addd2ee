"""The client library: `moorage.Client`, which the command itself uses."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from moorage.cli.home import Address, checked, elsewhere, from_home, home_directory
from moorage.cli.lasting import OnProgress, long_call
from moorage.cli.streams import Output, follow_events
from moorage.cli.transport import Transport, segment
from moorage.errors import InvalidInput, Unreachable
from moorage.protocol.api import (
    FINAL_STATES,
    CheckReply,
    CollectReply,
    Event,
    EventPage,
    Info,
    NodePage,
    NodeView,
    RetryRequest,
    RunPage,
    RunRef,
    RunRequest,
    RunSummary,
    RunView,
    StopRequest,
    SubmitReply,
    SubmitRequest,
)
from moorage.protocol.fleets import (
    FleetPage,
    FleetPlan,
    FleetRequest,
    FleetView,
    RebootCheck,
)
from moorage.protocol.plans import PlanReply, PlanRequest, RunPlan
from moorage.specs.fleet import Fleet
from moorage.specs.mounts import Bucket
from moorage.specs.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from moorage.cli.prepare import Prepared
    from moorage.data.upload import Progress

Ref = int | str
"""A run: its number, or its name (the newest run of that name)."""
PAGE = 1000
"""Rows asked for at once: the most that the server gives."""
LONG_POLL = 50.0
"""Seconds that one request of `wait` may last."""
SHORT_POLL = 10.0
"""The same where there are several servers: one that is frozen is left after some silence."""


class Client:
    """Talks to one moorage server.

        with moorage.Client() as client:
            [run] = client.submit(moorage_task)
            print(client.wait(run.id).summary.state)

    The server is `url` (or several, with commas between) with `token`, else `$MOORAGE_URL` with
    `$MOORAGE_TOKEN`, else the server of this machine that the command started (`server.json` in
    `home` or `$MOORAGE_HOME`). Where there are several, a request goes to the next one when one
    does not answer, as far as it may be repeated. Methods block, and raise the errors of
    `moorage.errors`: NotFound for an unknown run, Unreachable where
    no server answers, Forbidden for a wrong token, InvalidInput with every problem of a spec.
    Times are Unix seconds. One client may be used by several threads.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        home: str | os.PathLike[str] | None = None,
        address: Address | None = None,
    ) -> None:
        """`address`: a server that was found already, instead of all the others."""
        self.home = home_directory(home)
        local = url is None and address is None and elsewhere(self.home) is None
        relocate = partial(from_home, self.home) if local else None
        self.transport = Transport(address or _locate(url, token, self.home), relocate)
        """For what has no method here."""

    @property
    def address(self) -> Address:
        """The server that this client talks to."""
        return self.transport.address

    @property
    def cache(self) -> Path:
        """Where digests of local files are kept, so that an unchanged tree is not read again."""
        return self.home / "cache"

    def connect(self) -> None:
        """Open a connection now, rather than with the first request."""
        self.transport.connect()

    def close(self) -> None:
        """Close idle connections."""
        self.transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, *runs: Task | RunRequest, request_id: str | None = None) -> list[RunRef]:
        """Submit all of the runs, or none. They are durable on return.

        Repeating a call with the same `request_id` returns the first reply and submits nothing,
        so a caller that lost the reply may repeat it. Local files must be uploaded before.
        """
        body = SubmitRequest(request_id or os.urandom(16).hex(), _requests(runs))
        return self.transport.call("POST", "/v1/runs", SubmitReply, body=body, again=True).runs

    def plan(self, *runs: Task | RunRequest) -> list[RunPlan]:
        """What a submit of these runs would do, and what stands against it; changes nothing."""
        body = PlanRequest(_requests(runs))
        return self.transport.call("POST", "/v1/plan", PlanReply, body=body, again=True).runs

    def runs(
        self, *, active: bool = False, state: str | None = None, name: str | None = None
    ) -> Iterator[RunSummary]:
        """All runs, newest first, over as many pages as there are. `active`: only those that have
        not ended."""
        cursor: str | None = None
        while True:
            page = self.page(active=active, state=state, name=name, cursor=cursor)
            yield from page.runs
            if (cursor := page.cursor) is None:
                return

    def page(
        self,
        *,
        active: bool = False,
        state: str | None = None,
        name: str | None = None,
        limit: int = PAGE,
        cursor: str | None = None,
    ) -> RunPage:
        """One page of `runs`, with the number of all that match."""
        query = {
            "active": active, "state": state, "name": name, "limit": limit, "cursor": cursor
        }  # fmt: skip
        return self.transport.call("GET", "/v1/runs", RunPage, query=query)

    def run(self, ref: Ref) -> RunView:
        """All about one run: spec, jobs, attempts with their phases."""
        return self.transport.call("GET", f"/v1/runs/{segment(ref)}", RunView)

    def stop(self, ref: Ref, *, abort: bool = False) -> RunSummary:
        """Ask a run to end: SIGTERM and, after its `stop_duration`, SIGKILL; `abort` kills at
        once. Returns before it has ended; stopping an ended run changes nothing."""
        path = f"/v1/runs/{segment(ref)}/stop"
        body = StopRequest(abort)
        return self.transport.call("POST", path, RunSummary, body=body, again=True)

    def retry(self, ref: Ref, *, name: str | None = None) -> RunRef:
        """Submit a run that has ended once more, with the files that were uploaded for it; `name`
        instead of the one that was written. Conflict while it has not ended."""
        number = self.run(ref).summary.id  # a name would mean the new run, if this is repeated
        body = RetryRequest(os.urandom(16).hex(), name)
        path = f"/v1/runs/{number}/retry"
        return self.transport.call("POST", path, RunRef, body=body, again=True)

    def delete(self, ref: Ref) -> RunSummary:
        """Delete a run that has ended, with its output. Conflict while it has not."""
        return self.transport.call("DELETE", f"/v1/runs/{segment(ref)}", RunSummary)

    def wait(self, ref: Ref, timeout: float | None = None) -> RunView:
        """Wait until a run has ended; after `timeout` seconds the run as it is then."""
        deadline = None if timeout is None else time.monotonic() + timeout
        path = f"/v1/runs/{segment(ref)}/wait"
        while True:
            poll = SHORT_POLL if self.transport.several else LONG_POLL
            left = poll if deadline is None else max(0.0, deadline - time.monotonic())
            query = {"timeout": min(poll, left)}
            view = self.transport.call("GET", path, RunView, query=query)
            if view.summary.state in FINAL_STATES or (deadline and left <= poll):
                return view

    def logs(
        self,
        ref: Ref,
        *,
        job: int | None = None,
        attempt: int | None = None,
        rank: int = 0,
        follow: bool = False,
        since: float | None = None,
        on_gap: Callable[[int], None] | None = None,
    ) -> Output:
        """The output of a job, to be iterated: chunks of bytes, both streams in written order.

        `job` is a position in the run (the last one when None), `attempt` one try of it (all of
        them, one after the other, when None), `since` a time. `follow` goes on
        until the run has ended, and over breaks of the connection at the byte where it was; so
        does iterating once more, after an exception. `on_gap` is told how many
        bytes at the beginning are gone (the cap on logs).
        """
        query = {"job": job, "attempt": attempt, "rank": rank, "follow": follow, "since": since}
        path = f"/v1/runs/{segment(ref)}/logs"

        def is_over(patience: float) -> bool:
            return self.wait(ref, patience).summary.state in FINAL_STATES

        resumable = follow and attempt is None
        return Output(self.transport, path, query, is_over if resumable else None, on_gap)

    def events(
        self,
        *,
        since: int | None = None,
        run: Ref | None = None,
        follow: bool = False,
        on_open: Callable[[], None] | None = None,
    ) -> Iterator[Event]:
        """What happened, oldest first, after the event with the number `since`. `follow` goes on
        for ever, over breaks of the connection, and begins with what comes next where `since` is
        None; `on_open` is called whenever nothing can be missed from then on."""
        if follow:
            yield from follow_events(self.transport, since, run, on_open)
            return
        while True:
            query = {"since": since or 0, "run": run, "limit": PAGE}
            page = self.transport.call("GET", "/v1/events", EventPage, query=query)
            yield from page.events
            if len(page.events) < PAGE:
                return
            since = page.events[-1].seq

    def newest_events(self, number: int, run: Ref | None = None) -> list[Event]:
        """The last events of one run or of all, at most 1,000, oldest first."""
        query = {"last": number, "run": run}
        return self.transport.call("GET", "/v1/events", EventPage, query=query).events

    def nodes(self) -> list[NodeView]:
        """The machines that run jobs."""
        return self.transport.call("GET", "/v1/nodes", NodePage).nodes

    def drain(self, node: str) -> NodeView:
        """Keep new jobs away from a node; running ones finish."""
        return self._node(node, "drain")

    def resume(self, node: str) -> NodeView:
        """Let a node take new jobs again."""
        return self._node(node, "resume")

    def _node(self, name: str, verb: str) -> NodeView:
        path = f"/v1/nodes/{segment(name)}/{verb}"
        return self.transport.call("POST", path, NodeView, again=True)

    def reboot_check(self, node: str) -> RebootCheck:
        """Whether a machine can be rebooted without harm to a job."""
        return self.transport.call("GET", f"/v1/nodes/{segment(node)}/reboot-check", RebootCheck)

    def plan_fleet(self, spec: Fleet) -> FleetPlan:
        """What applying a fleet would do, and what stands against it; changes nothing."""
        body = FleetRequest(spec)
        return self.transport.call("POST", "/v1/fleets/plan", FleetPlan, body=body, again=True)

    def apply_fleet(self, spec: Fleet) -> FleetView:
        """Make a fleet be as described. Durable on return; the hosts are worked on from then on,
        and the events `host.*` tell how far they are."""
        body = FleetRequest(spec)
        return self.transport.call("POST", "/v1/fleets", FleetView, body=body, again=True)

    def fleets(self) -> list[FleetView]:
        """All fleets, with their hosts."""
        return self.transport.call("GET", "/v1/fleets", FleetPage).fleets

    def fleet(self, name: str) -> FleetView:
        """One fleet, with its hosts."""
        return self.transport.call("GET", f"/v1/fleets/{segment(name)}", FleetView)

    def delete_fleet(self, name: str, *, force: bool = False) -> FleetView:
        """Let a fleet's hosts drain, and remove the agents from them; `force` kills their jobs,
        and forgets hosts that cannot be reached. Returns before that is done."""
        path = f"/v1/fleets/{segment(name)}"
        return self.transport.call("DELETE", path, FleetView, query={"force": force}, again=True)

    def info(self) -> Info:
        """What the server is."""
        return self.transport.call("GET", "/v1/info", Info)

    def upload(
        self,
        task: Task,
        base: str | os.PathLike[str] = ".",
        progress: Callable[[Progress], None] | None = None,
    ) -> Task:
        """Upload the local files and checkouts that a task names, as far as the server lacks
        them; returns the task to submit. Relative sources are relative to `base`. InvalidInput
        with all that cannot be uploaded."""
        # Scanning and compressing take 40 ms to import, and few commands upload anything.
        from moorage.cli.prepare import Prepared
        from moorage.cli.uploads import gather, send

        prepared = Prepared(task, Path(base).absolute())
        gathered = gather(self.transport, prepared, self.cache)
        if gathered.problems:
            raise InvalidInput(*gathered.problems)
        send(self.transport, gathered.contents, progress)
        self._upload_into_buckets(prepared)
        return gathered.spec

    def _upload_into_buckets(self, prepared: Prepared) -> None:
        if not any(isinstance(one, Bucket) and one.sources for one in prepared.spec.mounts):
            return
        from moorage.cli.bucketuploads import gather_buckets, send_buckets

        contents, problems = gather_buckets(self, prepared)
        if problems:
            raise InvalidInput(*problems)
        send_buckets(self, contents)

    def check(self, *, deep: bool = False, on_progress: OnProgress | None = None) -> CheckReply:
        """Prove the server's store; `deep` reads all content. May take as long as it needs;
        `on_progress` is told meanwhile. Leaving (Ctrl-C) ends it."""
        query = {"deep": deep}
        return long_call(self.transport, "/v1/check", CheckReply, query, on_progress)

    def collect(
        self, *, dry_run: bool = False, on_progress: OnProgress | None = None
    ) -> CollectReply:
        """Remove what was kept for long enough (`dry_run`: only say what), and say what. As long
        as it needs, as `check`."""
        query = {"dry_run": dry_run}
        return long_call(self.transport, "/v1/collect", CollectReply, query, on_progress)


def _requests(runs: Iterable[Task | RunRequest]) -> list[RunRequest]:
    return [run if isinstance(run, RunRequest) else RunRequest(run) for run in runs]


def _locate(url: str | None, token: str | None, home: os.PathLike[str]) -> Address:
    if url is not None:
        return checked(url, token or os.environ.get("MOORAGE_TOKEN", ""))
    address = elsewhere(home_directory(home)) or from_home(home_directory(home))
    if address is None:
        raise Unreachable("no server is configured; start one: moorage server start")
    return replace(address, token=token) if token is not None else address
