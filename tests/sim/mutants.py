"""Servers, agents and decisions that are broken on purpose: the simulation must find each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

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
    Report,
    Retract,
    Stop,
    ToAgent,
)
from sim import server as simulated
from sim.leased import LEASE
from sim.node import Node
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


LEASES: Mapping[str, Callable[[Patch], None]] = MappingProxyType(
    {
        "nobody ends what is fenced": nobody_ends_what_is_fenced,
        "leases end early on the server": leases_end_early_on_the_server,
        "room of ghosts is given away": room_of_ghosts_is_given_away,
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
