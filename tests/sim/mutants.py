"""Servers, agents and decisions that are broken on purpose: the simulation must find each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import pytest

from moorage.core import place, reactor
from moorage.core.effects import Arm, Effect, Send, Wake, Write
from moorage.core.job import Rank
from moorage.core.node import Node as Books
from moorage.core.reactor import nodes, ranks
from moorage.protocol.agent import (
    DropLogs,
    Forget,
    Held,
    Hello,
    Launch,
    Report,
    Retract,
    Stop,
    ToAgent,
)
from sim import node as simulated_node
from sim import server as simulated
from sim.leased import LEASE
from sim.node import NO_ROOM, Node
from sim.schedule import Schedule
from sim.server import Server
from sim.world import World

Patch = pytest.MonkeyPatch
Decision = Callable[..., list[Effect]]


def _without(name: str, leave: Callable[[Effect], bool]) -> Callable[[Patch], None]:
    """A decision that forgets some of its effects."""

    def mutate(patch: Patch) -> None:
        original: Decision = getattr(reactor, name)

        def forgetful(*given: Any) -> list[Effect]:
            return [effect for effect in original(*given) if not leave(effect)]

        patch.setattr(reactor, name, forgetful)

    return mutate


def _sends(kind: type) -> Callable[[Effect], bool]:
    return lambda effect: isinstance(effect, Send) and isinstance(effect.message, kind)


def next_attempt_before_the_end(patch: Patch) -> None:
    original = reactor.on_report

    def hasty(cluster: Any, node: Any, report: Report, now: float) -> list[Effect]:
        held = [
            msgspec.structs.replace(h, state="done") if h.state == "finishing" else h
            for h in report.held
        ]
        return original(cluster, node, Report(report.seq, held), now)

    patch.setattr(reactor, "on_report", hasty)


def nothing_is_released(patch: Patch) -> None:
    patch.setattr(Books, "release", lambda *_: None)


def every_node_fits(patch: Patch) -> None:
    patch.setattr(Books, "fits", lambda *_: True)


def reboots_are_overlooked(patch: Patch) -> None:
    original = reactor.on_hello

    def careless(cluster: Any, hello: Hello, now: float) -> list[Effect]:
        return original(cluster, msgspec.structs.replace(hello, boot_id="same"), now)

    patch.setattr(reactor, "on_hello", careless)


def claims_die_with_the_agent(patch: Patch) -> None:
    original = Node.crash

    def crash(self: Node) -> None:
        original(self)
        self.claims.clear()

    patch.setattr(Node, "crash", crash)


def sends_leave_before_the_commit(patch: Patch) -> None:
    patch.setattr(World, "new_server", lambda world, epoch: _Hasty(world, epoch))
    patch.setattr(
        World, "sent", lambda world, _server, link, _m: world.notice("deliver", link.node.name)
    )


class _Hasty(Server):
    def decide(self, effects: Sequence[Effect], first: Callable[[], None] | None = None) -> None:
        super().decide(effects, first)
        for effect in effects:
            link = self.links.get(effect.node) if isinstance(effect, Send) else None
            if link is not None and link.open:
                link.to_agent.append(effect.message)
                self.world.sent(self, link, effect.message)


def answers_leave_before_the_commit(patch: Patch) -> None:
    def answered(world: World, label: str) -> None:
        world.answers.add(label)

    def decide(self: Server, effects: Sequence[Effect], first: Any = None) -> None:
        original(self, effects, first)
        if any(isinstance(e, Write) and e.query == "insert_request" for e in effects):
            answered(self.world, next(iter(self.submitting)))

    original = Server.decide
    patch.setattr(Server, "decide", decide)


def late_greetings_are_taken(patch: Patch) -> None:
    patch.setattr(Server, "takes", lambda *_: True)


def two_leaders_write(patch: Patch) -> None:
    def write(self: Server, batches: int) -> bool:
        self.world.disk.epoch, epoch = self.epoch, self.world.disk.epoch
        try:
            return original(self, batches)
        finally:
            self.world.disk.epoch = epoch

    original = Server.write
    patch.setattr(Server, "write", write)


def lines_do_not_wait(patch: Patch) -> None:
    original = Node.start
    patch.setattr(Node, "start", lambda self, launch, _wait: original(self, launch, False))


def what_has_begun_is_given_back(patch: Patch) -> None:
    original = Node.receive

    def receive(self: Node, message: ToAgent) -> None:
        if isinstance(message, Retract):
            for key in message.keys:
                self.leave(key)
                self.tell(key, Held(key, "retracted"))
        else:
            original(self, message)

    patch.setattr(Node, "receive", receive)


def refusals_are_forgotten(patch: Patch) -> None:
    original = Node.tell

    def tell(self: Node, key: str, held: Held | None = None) -> None:
        original(self, key, held)
        self.refused.clear()

    patch.setattr(Node, "tell", tell)
    # As agents were then, which did not say whose fault it was.
    patch.setattr(simulated_node, "NO_ROOM", msgspec.structs.replace(NO_ROOM, here=False))


def delays_are_forgotten_at_the_start(patch: Patch) -> None:
    patch.setattr(simulated, "timers", lambda _: [Wake()])


def ranks_end_one_by_one(patch: Patch) -> None:
    """The job is over with the first of its ranks."""
    original = ranks._is

    def over(rank: Rank, *states: str) -> bool:
        return rank.report is None or original(rank, *states) or states == ("done",)

    patch.setattr(ranks, "_is", over)


def ranks_give_their_places_back_one_by_one(patch: Patch) -> None:
    original = ranks.advance

    def advance(cluster: Any, job: Any, node: Any, held: Held, now: float) -> list[Effect]:
        effects = original(cluster, job, node, held, now)
        if held.state == "done" and job.id in cluster.nodes[node].claims:
            cluster.nodes[node].release(job.id)
        return effects

    patch.setattr(ranks, "advance", advance)


def ranks_start_in_any_order(patch: Patch) -> None:
    patch.setattr(ranks, "due", lambda _, found: list(range(len(list(found)))))


def lost_ranks_are_overlooked(patch: Patch) -> None:
    original = nodes.lose

    def lose(cluster: Any, job: Any, *about: Any) -> list[Effect]:
        return [] if job.gang else original(cluster, job, *about)

    patch.setattr(nodes, "lose", lose)


def half_a_gang_is_placed(patch: Patch) -> None:
    """Where there is no room for all of it, two ranks share a node."""
    original = place.choose

    def choose(found: Any, gang: Any) -> Any:
        able = list(found)
        whole = original(able, gang)
        some = whole or original(able, gang[:1])
        return whole or (some and some * len(gang))

    patch.setattr(place, "choose", choose)


def nobody_ends_what_is_fenced(patch: Patch) -> None:
    patch.setattr(Node, "fall", lambda *_: None)


def leases_end_early_on_the_server(patch: Patch) -> None:
    patch.setattr(Server, "allowed", LEASE * 0.6)


def room_of_ghosts_is_given_away(patch: Patch) -> None:
    patch.setattr(
        Books, "open", property(lambda self: self.up and not self.draining and not self.health)
    )


def lines_outlive_the_lease(patch: Patch) -> None:
    """Who stands in line stays there, and takes the next place."""

    def expire(self: Node) -> None:
        lines, self.lines = self.lines, {}
        ended(self)
        self.lines = lines

    def hand_over(self: Node, launch: Launch) -> None:
        self.until, until = self.until or 1.0, self.until
        handed(self, launch)
        self.until = until

    ended, handed = Node.expire, Node._hand_over
    patch.setattr(Node, "expire", expire)
    patch.setattr(Node, "_hand_over", hand_over)


def what_leaves_a_line_is_not_fenced(patch: Patch) -> None:
    original = Node._claim

    def claim(self: Node, key: str, launch: Launch, fenced: bool = False) -> bool:
        return original(self, key, launch)

    patch.setattr(Node, "_claim", claim)


def old_messages_are_obeyed(patch: Patch) -> None:
    """Also those that lay in the socket of a machine that stood still for too long."""
    original = Node.receive

    def receive(self: Node, message: ToAgent) -> None:
        self.until, until = self.until or 1.0, self.until
        original(self, message)
        self.until = until if self.until == 1.0 else self.until

    patch.setattr(Node, "receive", receive)


def whoever_was_replaced_keeps_nodes_alive(patch: Patch) -> None:
    patch.setattr(Server, "proves", False)


def _away(schedule: Schedule) -> None:
    """Nodes are cut off or stand still for long, and little else happens."""
    schedule.faults = {"cut": 4.0, "freeze": 2.0, "break": 1.0}
    schedule.losses, schedule.ranks = ("restart", None), (1,)
    schedule.busy, schedule.pace, schedule.alone = 3, 6.0, 0.0


def _away_with_lines(schedule: Schedule) -> None:
    """As `_away`, with jobs of one kind, more than there is room for: most stand in line."""
    _away(schedule)
    schedule.faults = {"cut": 4.0, "break": 0.0}
    schedule.losses, schedule.cpus, schedule.memories = (None,), (1,), (0,)
    schedule.busy, schedule.pace, schedule.away = 12, 20.0, 60.0


def _away_with_long_jobs_in_line(schedule: Schedule) -> None:
    """What took a place just before the end of the lease runs on for long."""
    _away_with_lines(schedule)
    schedule.lasts, schedule.busy = 10.0, 8


def _away_with_long_jobs(schedule: Schedule) -> None:
    """What runs on a node that goes away would run for longer than its lease."""
    _away(schedule)
    schedule.losses, schedule.lasts, schedule.away = ("restart",), 40.0, 60.0
    schedule.pace = 15.0


def _replaced(schedule: Schedule) -> None:
    """A server that was replaced is not told for longer than a lease, and nodes stay with it."""
    _away(schedule)
    schedule.faults = {"takeover": 1.0, "break": 0.0}
    schedule.losses, schedule.pace = ("restart",), 60.0
    schedule.reign, schedule.lasts = 50.0, 40.0


class Doubt(NamedTuple):
    """A mutant, and the circumstances in which it shows."""

    mutate: Callable[[Patch], None]
    where: Callable[[Schedule], None] = _away


LEASES: Mapping[str, Doubt] = MappingProxyType(
    {
        "nobody ends what is fenced": Doubt(nobody_ends_what_is_fenced),
        "leases end early on the server": Doubt(
            leases_end_early_on_the_server, _away_with_long_jobs
        ),
        "room of ghosts is given away": Doubt(room_of_ghosts_is_given_away),
        "lines outlive the lease": Doubt(lines_outlive_the_lease, _away_with_lines),
        "what leaves a line is not fenced": Doubt(
            what_leaves_a_line_is_not_fenced, _away_with_long_jobs_in_line
        ),
        "old messages are obeyed": Doubt(old_messages_are_obeyed),
        "whoever was replaced keeps nodes alive": Doubt(
            whoever_was_replaced_keeps_nodes_alive, _replaced
        ),
    }
)
"""Those that take as long as leases do."""

MUTANTS: Mapping[str, Callable[[Patch], None]] = MappingProxyType(
    {
        "next attempt before the end": next_attempt_before_the_end,
        "nothing is released": nothing_is_released,
        "every node fits": every_node_fits,
        "reboots are overlooked": reboots_are_overlooked,
        "claims die with the agent": claims_die_with_the_agent,
        "sends leave before the commit": sends_leave_before_the_commit,
        "answers leave before the commit": answers_leave_before_the_commit,
        "late greetings are taken": late_greetings_are_taken,
        "two leaders write": two_leaders_write,
        "lines do not wait": lines_do_not_wait,
        "what has begun is given back": what_has_begun_is_given_back,
        "delays are forgotten at the start": delays_are_forgotten_at_the_start,
        "ranks end one by one": ranks_end_one_by_one,
        "ranks give their places back one by one": ranks_give_their_places_back_one_by_one,
        "ranks start in any order": ranks_start_in_any_order,
        "lost ranks are overlooked": lost_ranks_are_overlooked,
        "half a gang is placed": half_a_gang_is_placed,
        "one that failed does not end the others": _without("on_report", _sends(Stop)),
        "ends wake nobody": _without("on_report", lambda e: isinstance(e, Wake)),
        "retries are not armed": _without("on_report", lambda e: isinstance(e, Arm)),
        "ends are never forgotten": _without("on_report", _sends(Forget)),
        "output is dropped once": _without("on_hello", _sends(DropLogs)),
        "stops are sent once": _without("on_hello", _sends(Stop)),
        "ends of jobs are not written": _without(
            "on_report", lambda e: isinstance(e, Write) and e.query == "update_job"
        ),
        "assignments are not written": _without(
            "schedule", lambda e: isinstance(e, Write) and e.query == "insert_attempt"
        ),
    }
)


KEPT: Mapping[str, Callable[[Patch], None]] = MappingProxyType(
    {
        "late-hello": late_greetings_are_taken,
        "refused-claim": refusals_are_forgotten,
        "dropped-output": MUTANTS["output is dropped once"],
    }
)
"""Defects that the simulation found, by the name of the replay; they were as here."""
