"""What must hold after each event. Checked for what the event touched, and now and then for all.

The rows that a decision writes must rebuild, through `boot.restore`, what it left in memory; so
a change that is not written, or written and not made, is found at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

from moorage.core.cluster import Cluster
from moorage.core.effects import Effect, Emit, Send, Write
from moorage.core.inquiries import FRESH, stored
from moorage.core.job import TRANSITIONS, Live, Prefilled, Queued, ranks_of
from moorage.core.node import Node
from moorage.core.reactor.ranks import unfinished
from moorage.core.shape import shapes_of
from moorage.ids import AttemptKey
from moorage.protocol.agent import Forget, Launch, Start, Stop, ToAgent
from moorage.protocol.api import FINAL_STATES
from moorage.specs.task import Task
from sim.ledger import Broken

if TYPE_CHECKING:
    from sim.world import World

decode = lru_cache(4096)(msgspec.json.Decoder(Task).decode)
FOLLOWS = frozenset((before, after) for (before, _), after in TRANSITIONS.items())
FAILURES = frozenset({"exited", "signaled", "out-of-memory", "timeout", "phase-failed"})
ORDER = ("prefilled", "assigned", "staging", "running", "finishing", "done")


def require(holds: bool, promise: str, detail: object = "") -> None:
    if not holds:
        raise Broken(promise, detail)


class Promises:
    """Of one world; `restarted` when another server decides."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.feed: dict[int, str] = {}
        """The state of each job, as the committed feed tells it."""
        self.deletable: set[int] = set()
        self.said: dict[tuple[int, int], float] = {}
        """When a node said that it would refuse a run's jobs."""
        self._states: dict[int, str] = {}
        """Live runs by state, as the rows tell it."""
        self._counts: Counter[str] = Counter()
        self._reached: dict[tuple[int, int, int], int] = {}
        self._caused: set[tuple[int, int]] = set()
        """Attempts that a rank is known to have ended."""

    def restarted(self) -> None:
        """The leader begins anew from what is durable."""
        rows = self.world.ahead.rows("live_runs")
        self._states = {row["id"]: row["state"] for row in rows}
        self._counts = Counter(self._states.values())
        self._reached.clear()
        jobs = self.world.ahead.rows("live_jobs")
        self._caused = {(job["id"], job["attempt"]) for job in jobs if job["cause"] is not None}

    # after a decision of the leader

    def decided(self, effects: Sequence[Effect]) -> None:
        """The rows are in `ahead`, not yet durable."""
        runs: dict[int, None] = {}
        nodes: dict[int, None] = {}
        for effect in effects:
            if isinstance(effect, Write):
                self._written(effect.query, effect.params, runs)
            elif isinstance(effect, Emit):
                if effect.run is not None:
                    runs[effect.run] = None
                if effect.node is not None:
                    nodes[effect.node] = None
                if effect.kind == "job.ended":
                    self._ended(effect)
            elif isinstance(effect, Send):
                nodes[effect.node] = None
        self._stops_the_others(effects)
        self._rebuilds(runs)
        for node in nodes:
            books(self.world.leader.cluster, self.world.leader.cluster.nodes[node])
        counts = self.world.leader.cluster.counts
        require(counts == self._counts, "run counts equal a recount", (counts, self._counts))

    def _stops_the_others(self, effects: Sequence[Effect]) -> None:
        """In the decision in which a rank is found to have ended its job."""
        sends = [effect.message for effect in effects if isinstance(effect, Send)]
        stopped = {message.key for message in sends if isinstance(message, Stop)}
        for effect in effects:
            if not isinstance(effect, Write) or effect.query != "update_job":
                continue
            number, cause = effect.params["id"], effect.params["cause"]
            key, job = (
                (number, effect.params["attempt"]),
                self.world.leader.cluster.jobs.get(number),
            )
            if cause is None or key in self._caused or job is None or job.stopping:
                continue
            self._caused.add(key)
            state = job.state
            if isinstance(state, Live) and state.attempt == key[1]:
                left = {job.rank_key(n) for n, r in enumerate(ranks_of(state)) if unfinished(r)}
                require(left <= stopped, "one failed rank ends the others", (key, left - stopped))

    def _written(self, query: str, params: Any, runs: dict[int, None]) -> None:
        cluster = self.world.leader.cluster
        if query in ("insert_run", "update_run"):
            runs[params["id"]] = None
            self._count(params["id"], params["state"])
        elif query == "delete_run":
            require(params["id"] in self.deletable, "only users delete runs", params["id"])
            self._count(params["id"], "succeeded")
        elif "job_id" in params or query == "update_job":
            job = cluster.jobs.get(params.get("job_id", params.get("id")))
            if job is not None:
                runs[job.run] = None
        if query == "insert_attempt" and params["attempt"] > 1:
            there = params["node_id"] in self._refusals(params["job_id"], params["attempt"])
            require(not there, "whoever refused a job does not get it again", params)
        if query == "insert_attempt" and not params["rank"]:
            self._next_attempt(params["job_id"], params["attempt"])
        elif query == "update_attempt":
            key = (params["job_id"], params["attempt"], params["rank"])
            reached = ORDER.index(params["state"])
            require(reached >= self._reached.get(key, 0), "attempts never go back", key)
            self._reached[key] = reached
            if '"lost"' in (params["outcome"] or ""):
                self._lost(*key)
            elif '"unstarted"' in (params["outcome"] or ""):
                ran = self.world.ledger.starts[str(AttemptKey(*key))]
                require(not ran, "what counts as never started did not run", key)

    def _count(self, run: int, state: str) -> None:
        before = self._states.pop(run, None)
        if before is not None:
            self._counts[before] -= 1
            if not self._counts[before]:
                del self._counts[before]
        if state not in FINAL_STATES:
            self._states[run] = state
            self._counts[state] += 1

    def _next_attempt(self, job: int, attempt: int) -> None:
        text = "SELECT 1 FROM attempts WHERE job_id = ? AND attempt < ? AND state <> 'done'"
        earlier = self.world.ahead.one(text, job, attempt)
        require(earlier is None, "a next attempt follows the end of the last", (job, attempt))
        stopping = self.world.ahead.one("SELECT stopping FROM jobs WHERE id = ?", job)
        require(stopping["stopping"] == 0, "what is stopped is not tried again", (job, attempt))

    def _lost(self, job: int, attempt: int, rank: int) -> None:
        """Only what met a crash, or was given to a node that was rebooted."""
        text = (
            "SELECT n.name FROM nodes n JOIN attempts a ON a.node_id = n.id"
            " WHERE a.job_id = ? AND a.attempt = ? AND a.rank = ?"
        )
        node = self.world.nodes[self.world.ahead.one(text, job, attempt, rank)["name"]]
        shaken = f"{job}.{attempt}.{rank}" in self.world.ledger.shaken or node.boot > 1
        require(shaken, "nothing is lost without a fault", (job, attempt, node.name))

    def _ended(self, effect: Emit) -> None:
        """What users are told is what happened; and the job has let go of everything."""
        if effect.data["state"] == "succeeded":
            key, ledger = (effect.job, effect.data["attempt"]), self.world.ledger
            must = self._must_succeed(*key)
            good = {rank for rank in must if f"{key[0]}.{key[1]}.{rank}" in ledger.succeeded}
            require(good == must, "what succeeded ended with code 0", (key, must - good))
        text = "SELECT stopping FROM jobs WHERE id = ?"
        stopped = self.world.ahead.one(text, effect.job)["stopping"]
        if effect.data["reason"] == "phase-failed" and not stopped:
            self._refused_by_all(effect)
        for node in self.world.leader.cluster.nodes.values():
            require(effect.job not in node.claims, "finished jobs release all", effect.job)

    def _refusals(self, job: Any, before: int) -> set[int]:
        """Nodes that could not run it, since it last failed by itself."""
        text = (
            "SELECT attempt, node_id, outcome FROM attempts WHERE job_id = ? AND attempt < ?"
            " AND outcome IS NOT NULL ORDER BY attempt DESC, rank"
        )
        found: set[int] = set()
        rows = self.world.ahead.connection.execute(text, (job, before)).fetchall()
        for _, ranks in groupby(rows, lambda row: row["attempt"]):
            met = [(row["node_id"], msgspec.json.decode(row["outcome"])) for row in ranks]
            here = {node for node, outcome in met if outcome.get("here")}
            found |= here
            if not here and any(outcome["kind"] in FAILURES for _, outcome in met):
                break
        return found

    def _refused_by_all(self, effect: Emit) -> None:
        """What only some nodes cannot do is no failure of a job. Who was asked a moment ago need
        not be tried."""
        shapes = shapes_of(self._task(effect.job))
        refused = self._refusals(effect.job, effect.data["attempt"] + 1)
        lately = self.world.leader.now - FRESH
        refused |= {n for (run, n), at in self.said.items() if run == effect.run and at >= lately}
        nodes = self.world.leader.cluster.nodes.values()
        left = [n.id for n in nodes if n.id not in refused and n.fits_empty(shapes[0])]
        require(len(left) < len(shapes), "a refused job tries all nodes", (effect, left))

    def _must_succeed(self, job: Any, attempt: Any) -> set[int]:
        """The ranks of which a user wants it."""
        if self._task(job).stop_criteria == "master-done":
            return {0}
        text = "SELECT max(rank) AS last FROM attempts WHERE job_id = ? AND attempt = ?"
        return set(range(self.world.ahead.one(text, job, attempt)["last"] + 1))

    def _task(self, job: int) -> Task:
        text = "SELECT r.spec FROM runs r JOIN jobs j ON j.run_id = r.id WHERE j.id = ?"
        row = self.world.ahead.one(text, job)
        return decode(row["spec"])

    def _rebuilds(self, runs: Iterable[int]) -> None:
        """The rows of these runs rebuild them."""
        cluster, rebuilt = self.world.leader.cluster, self.world.ahead.excerpt(runs)
        live = {run: found for run in runs if (found := cluster.runs.get(run))}
        jobs = {job: cluster.jobs.get(job) for found in live.values() for job in found.live}
        promise = "the rows rebuild the same cluster"
        require(rebuilt.runs == live, promise, (rebuilt.runs, live))
        told = {number: job and stored(cluster, job) for number, job in jobs.items()}
        require(rebuilt.jobs == told, promise, (rebuilt.jobs, told))
        for number, job in jobs.items():
            places = sum(number in node.claims for node in cluster.nodes.values())
            wanted = (len(job.gang) or 1) if isinstance(job.state, Live) else 0
            require(places == wanted, "all ranks hold resources, or none", (number, places))
            for rank in ranks_of(job.state) if isinstance(job.state, Live) else ():
                claim = cluster.nodes[rank.node].claims.get(number)
                same = rebuilt.nodes[rank.node].claims[number] == claim
                require(same, promise, ("claim", number, rank.node))

    # at a commit, and when something leaves

    def committed(self, effects: Iterable[Effect]) -> None:
        """The feed tells states in an order that the table of transitions allows."""
        for effect in effects:
            if (
                isinstance(effect, Emit)
                and effect.job is not None
                and effect.kind not in ("job.retracted", "job.refused", "rank.ended")
            ):
                state = effect.kind.removeprefix("job.")
                if state == "ended":
                    state = effect.data["state"]
                before = self.feed.get(effect.job)
                if state == "retracted":  # out of a line: to users it is queued as before
                    require(before == "queued", "the feed tells states in order", effect)
                    continue
                told = state == "queued" if before is None else (before, state) in FOLLOWS
                require(told, "the feed tells states in order", (effect.job, before, state))
                self.feed[effect.job] = state

    def sent(self, message: ToAgent) -> None:
        """Nothing leaves before it is durable."""
        if isinstance(message, Start):
            launch = message.launch
            row = self._attempt(f"{launch.job}.{launch.attempt}.{launch.rank}")
            require(row is not None, "nothing leaves before it is durable", message)
            self._in_turn(launch)
        elif isinstance(message, Forget):
            for key in message.keys:
                row = self._attempt(key)
                durable = row is None or row["state"] == "done"
                require(durable, "nothing leaves before it is durable", message)

    def _in_turn(self, launch: Launch) -> None:
        """Ranks start in the order that a user wants."""
        task, first = self._task(launch.job), set[int]()
        if task.startup_order == "master-first" and launch.rank:
            first = {0}
        elif task.startup_order == "workers-first" and not launch.rank:
            first = set(range(1, launch.nodes))
        for rank in first:
            key = f"{launch.job}.{launch.attempt}.{rank}"
            require(self.world.ledger.starts[key] > 0, "ranks start in their order", key)

    def _attempt(self, key: str) -> Any:
        text = "SELECT state FROM attempts WHERE job_id = ? AND attempt = ? AND rank = ?"
        return self.world.disk.one(text, *AttemptKey.parse(key))

    # now and then

    def everything(self) -> None:
        world, cluster = self.world, self.world.leader.cluster
        rebuilt, own = essence(world.ahead.cluster()), essence(cluster)
        if any(job.lacking for job in cluster.jobs.values()):
            del own["lines"]  # of which they have none
        for part, value in own.items():
            require(rebuilt[part] == value, "the rows rebuild the same cluster", part)
        for node in cluster.nodes.values():
            books(cluster, node)
        queued = {job.id for job in cluster.jobs.values() if isinstance(job.state, Queued)}
        require(own["queue"] == queued, "the queue holds what is queued", queued)
        require(len(cluster.queue) == len(queued), "the queue holds what is queued", queued)
        in_line = {job.id for job in cluster.jobs.values() if isinstance(job.state, Prefilled)}
        lined = {job for n in cluster.nodes.values() for line in n.lines.values() for job in line}
        require(lined == in_line, "lines hold what is sent ahead", (lined, in_line))
        kept = {row[0] for row in world.disk.connection.execute("SELECT id FROM requests")}
        require(world.answers <= kept, "an acknowledged run never disappears", kept)
        there = {row[0] for row in world.disk.connection.execute("SELECT id FROM runs")}
        gone = world.acknowledged - world.deleted - there
        require(not gone, "an acknowledged run never disappears", gone)
        told = world.disk.connection.execute("SELECT id, state FROM jobs").fetchall()
        for number, state in map(tuple, told):
            require(self.feed[number] == state, "the feed agrees with the rows", (number, state))


def books(cluster: Cluster, node: Node) -> None:
    """What is reserved is the sum of what is live there, and no more than there is."""
    claims = node.claims.values()
    used = (sum(c.millicpus for c in claims), sum(c.memory for c in claims))
    require(used == (node.used_millicpus, node.used_memory), "the books add up", node)
    gpus = [gpu for claim in claims for gpu in claim.gpus]
    require(sorted(gpus) == sorted(node.used_gpus), "the books add up", node)
    free = min(node.free_millicpus, node.free_memory, node.free_disk)
    require(free >= 0, "no node is given away twice", node)
    for number in node.claims:
        state = cluster.jobs[number].state if number in cluster.jobs else None
        here = isinstance(state, Live) and node.id in {rank.node for rank in ranks_of(state)}
        require(here, "finished jobs release all", (node.name, number, state))


def essence(cluster: Cluster) -> dict[str, object]:
    """What must be equal after a restart: all but whose agents are connected and which delays
    before a retry are over, since timers and Hello tell those again."""
    return {
        "next": (cluster.next_run, cluster.next_job, cluster.next_node),
        "runs": cluster.runs,
        "jobs": {number: stored(cluster, job) for number, job in cluster.jobs.items()},
        "nodes": {n: replace(node, up=False) for n, node in cluster.nodes.items()},
        "names": (cluster.names, cluster.node_names),
        "queue": {job for job in cluster.jobs if job in cluster.queue},
        "counts": cluster.counts,
        "lines": (cluster.lines, cluster.hosts),
    }
