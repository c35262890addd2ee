"""What `apply`, `plan` and `fleet` share: a fleet's file sent, its hosts followed and shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from moorage.cli.client import Client
from moorage.cli.render import Style, printable, say, style_of, table
from moorage.cli.session import asks, confirm, print_json, print_lines
from moorage.errors import InvalidInput, NotFound
from moorage.protocol.api import Event
from moorage.protocol.fleets import TROUBLED, FleetPlan, FleetView, HostView
from moorage.specs.fleetfile import LoadedFleet, document
from moorage.specs.places import locate
from moorage.units import format_size

HEADERS = ("NODE", "HOST", "STATE", "CPUS", "MEMORY", "GPU", "ROOT", "CONTAINERS", "CANNOT")
DROP = ("MEMORY", "ROOT", "CPUS", "CONTAINERS", "CANNOT", "GPU", "HOST")
"""What a narrow terminal does without, in this order; `fleet show` says in words what is not."""
VERBS = {"add": "connect", "change": "connect again", "keep": "keep", "remove": "drain, remove"}
SETTLED = frozenset({"host.ready", "host.removed", *(f"host.{state}" for state in TROUBLED)})
"""Events after which there is nothing more to wait for."""


def apply_fleet(client: Client, loaded: LoadedFleet, *, detach: bool, yes: bool) -> int:
    """Apply it and, unless `detach`, stay until each host is settled. The exit code."""
    for warning in loaded.warnings:
        say(f"warning: {printable(str(warning))}")
    plan = client.plan_fleet(loaded.spec)
    if plan.problems:
        raise InvalidInput(*(locate(text, loaded.fields, loaded.file) for text in plan.problems))
    sys.stderr.writelines(f"{line}\n" for line in describe_plan(plan, style_of(sys.stderr)))
    if not yes and asks() and not confirm("Apply it?", default=True):
        say("nothing was changed")
        return 1
    if detach:
        client.apply_fleet(loaded.spec)
        say(f"fleet {plan.name} is being connected; see moorage fleet show {plan.name}")
        return 0
    fleet = follow(client, plan.name, lambda: client.apply_fleet(loaded.spec), _settled)
    if fleet is None:
        raise NotFound(f"the fleet {plan.name} was deleted meanwhile")
    sys.stdout.writelines(f"{line}\n" for line in hosts_table(fleet, style_of(sys.stdout)))
    return complain(fleet)


def describe_plan(plan: FleetPlan, style: Style) -> list[str]:
    """What applying it does, a line each host."""
    lines = [f"fleet     {printable(plan.name)}{' (new)' if plan.is_new else ''}"]
    colours = {"add": "green", "change": "yellow", "remove": "red"}
    for number, item in enumerate(plan.changes):
        label = "hosts" if number == 0 else ""
        verb = style.paint(VERBS[item.change], colours.get(item.change))
        jobs = f" after {jobs_of(item.jobs)}" if item.change == "remove" and item.jobs else ""
        lines.append(f"{label:<10}{printable(item.host)} as {item.node}: {verb}{jobs}")
    return lines


def jobs_of(number: int) -> str:
    """`1 job`, `2 jobs`."""
    return "1 job" if number == 1 else f"{number} jobs"


class _Over(Exception):
    """There is nothing more to wait for."""


def follow(
    client: Client,
    name: str,
    begin: Callable[[], FleetView],
    is_over: Callable[[FleetView], bool],
) -> FleetView | None:
    """Begin, and print how far each host of the fleet is until it is over; None where the fleet is
    gone by then. No event is missed, over breaks of the connection too."""
    progress = Progress(style_of(sys.stderr))
    seen: list[FleetView] = []

    def look() -> None:
        seen.append(client.fleet(name) if seen else begin())
        progress.show(seen[-1].hosts)
        if is_over(seen[-1]):
            raise _Over

    try:
        for event in client.events(follow=True, on_open=look):
            if _is_of(event, name):
                progress.tell(event.data, event.kind.removeprefix("host."))
            if event.kind == "fleet.deleted" and event.data.get("fleet") == name:
                return None
            if _is_of(event, name) and (event.kind in SETTLED or event.data.get("stuck")):
                look()
    except _Over:
        return seen[-1]
    except NotFound:
        if not seen:
            raise
    return None


def _is_of(event: Event, fleet: str) -> bool:
    return event.kind.startswith("host.") and event.data.get("fleet") == fleet


def _settled(fleet: FleetView) -> bool:
    """Is nothing more to be heard soon? A host that leaves may wait for its jobs for days."""
    states = ("ready", "leaving", *TROUBLED)
    return all(
        host.state in states and (host.state != "leaving" or host.jobs or host.stuck)
        for host in fleet.hosts
    )


class Progress:
    """One line a host: drawn over on a terminal, else a line for each step."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._lines: dict[int, str] = {}
        self._drawn = 0

    def show(self, hosts: list[HostView]) -> None:
        """How far all of them are."""
        for host in hosts:
            self._set(host.num, host.node, host.host, host.state, host.message)
        self._draw()

    def tell(self, data: dict[str, Any], state: str) -> None:
        """One of them came on."""
        num, name = int(data["num"]), f"{data['fleet']}-{data['num']}"
        self._set(num, name, str(data["host"]), state, str(data.get("message", "")))
        self._draw()

    def _set(self, num: int, node: str, host: str, state: str, message: str) -> None:
        said = f": {message}" if message else ""
        line = printable(f"{node} {host} {state}{said}")
        if self._lines.get(num) == line:
            return
        self._lines[num] = line
        if self._style.width is None:
            sys.stderr.write(line + "\n")

    def _draw(self) -> None:
        if self._style.width is None:
            return
        width = self._style.width - 1
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        lines = [f"\x1b[K{self._lines[num][:width]}\n" for num in sorted(self._lines)]
        sys.stderr.write(up + "".join(lines))
        self._drawn = len(lines)


def hosts_table(fleet: FleetView, style: Style) -> list[str]:
    """What each host can and cannot do."""
    rows = [_row(host) for host in fleet.hosts]
    return table(HEADERS, rows, style, state=HEADERS.index("STATE"), drop=DROP)


def _row(host: HostView) -> tuple[str, ...]:
    facts = host.facts
    state = "draining" if host.draining and host.state == "ready" else host.state
    if not facts:
        return (host.node, host.host, state, "-", "-", "-", "-", "-", "-")
    engines = [f"{name} {version}".strip() for name, version in facts["engines"].items()]
    cannot = ", ".join(lack["what"] for lack in facts["cannot"])
    return (
        host.node,
        host.host,
        state,
        str(facts["cpus"]),
        format_size(facts["memory"]),
        ", ".join(facts["gpu_tools"]) or "none",
        facts["privilege"] or "no",
        ", ".join(engines) or "none",
        cannot or "-",
    )


def lacks(fleet: FleetView) -> list[str]:
    """What hosts cannot do, why, and what to do about it; hosts with the same lack together."""
    found: dict[str, list[str]] = {}
    for host in fleet.hosts:
        for lack in host.facts.get("cannot", ()):
            fix = f"; {lack['fix']}" if lack.get("fix") else ""
            found.setdefault(f"{lack['what']}: {lack['why']}{fix}", []).append(host.node)
    return [f"{', '.join(nodes)} without {text}" for text, nodes in found.items()]


def complain(fleet: FleetView) -> int:
    """Say what is wrong with its hosts; the exit code."""
    for text in lacks(fleet):
        say(f"note: {printable(text)}")
    for host in fleet.hosts:
        if host.stuck:
            at = f"{host.node} ({host.host})"
            say(
                f"note: {printable(at)} is not removed yet: {printable(host.message)}; tried again"
            )
    failed = [host for host in fleet.hosts if host.state in TROUBLED]
    for host in failed:
        fix = f"; {host.fix}" if host.fix else ""
        say(f"error: {printable(f'{host.node} ({host.host}): {host.message}{fix}')}")
    return 1 if failed else 0


def show_plan(client: Client, loaded: LoadedFleet, *, show_spec: bool, as_json: bool) -> None:
    """`moorage plan` of a fleet. InvalidInput with what stands against it."""
    if show_spec:
        import yaml

        sys.stdout.write(yaml.safe_dump(document(loaded.spec), sort_keys=False))
        return
    plan = client.plan_fleet(loaded.spec)
    if as_json:
        print_json(plan)
    else:
        print_lines(describe_plan(plan, style_of(sys.stdout)))
    if plan.problems:
        raise InvalidInput(*(locate(text, loaded.fields, loaded.file) for text in plan.problems))
