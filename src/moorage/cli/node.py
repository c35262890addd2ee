"""`moorage node`: the machines that run jobs."""

from __future__ import annotations

import sys
import time

import click

from moorage.cli.client import Client
from moorage.cli.groups import Commands
from moorage.cli.render import Style, age, printable, say, style_of, table
from moorage.cli.session import connect, json_option, print_json, print_lines
from moorage.errors import Conflict, NotFound, those_known
from moorage.protocol.api import NodePage, NodeView
from moorage.units import format_size

HEADERS = ("NAME", "FLEET", "HOST", "STATE", "CPUS", "MEMORY", "GPUS", "JOBS", "ISOLATION", "SEEN")
DROP = ("ISOLATION", "HOST", "FLEET", "MEMORY", "SEEN", "JOBS", "GPUS", "CPUS")
"""What a narrow terminal does without, in this order."""


@click.group(cls=Commands)
def node() -> None:
    """The machines that run jobs.

    \b
    Examples:
      moorage node ls
      moorage node show gpu1
      moorage node drain gpu1 --wait
    """


@node.command("ls")
@json_option
def list_nodes(as_json: bool) -> None:
    """List nodes with what is in use.

    \b
    Examples:
      moorage node ls
      moorage node ls --json
    """
    with connect(node=True) as client:
        nodes = client.nodes()
    if as_json:
        print_json(NodePage(nodes))
        return
    if not nodes:
        say("no node has ever been connected; see moorage server logs")
        return
    print_lines(listing(nodes, style_of(sys.stdout), time.time()))


def listing(nodes: list[NodeView], style: Style, now: float) -> list[str]:
    """The table of nodes."""
    rows = [_row(view, now) for view in nodes]
    return table(HEADERS, rows, style, state=HEADERS.index("STATE"), drop=DROP)


@node.command("show")
@click.argument("name")
@json_option
def show_node(name: str, as_json: bool) -> None:
    """Show one node: resources, Pythons, what keeps its jobs apart.

    \b
    Example:
      moorage node show gpu1
    """
    with connect(node=True) as client:
        nodes = client.nodes()
    found = [view for view in nodes if name in (view.name, str(view.id))]
    if not found:
        known = sorted(view.name for view in nodes)
        raise NotFound(f"there is no node {name}; {those_known(name, known, 'node ls')}")
    if as_json:
        print_json(found[0])
        return
    print_lines(describe(found[0], time.time()))


@node.command("drain")
@click.argument("name")
@click.option("-w", "--wait", is_flag=True, help="Return when nothing runs there any more.")
def drain_node(name: str, wait: bool) -> None:
    """Keep new jobs away from a node; what runs there finishes.

    \b
    Example:
      moorage node drain gpu1 --wait
    """
    with connect(node=True) as client:
        if not wait:
            view = client.drain(name)
            say(f"node {name} takes no new jobs; {view.jobs} still there")
            return
        _drain(client, name)
    say(f"node {name} is drained")


def _drain(client: Client, name: str) -> None:
    """Drain it, and wait for the event that tells its end; none is missed, over breaks of the
    connection too."""

    def begin() -> None:
        if client.drain(name).jobs == 0:
            raise _Drained

    try:
        for event in client.events(follow=True, on_open=begin):
            if event.node == name and event.kind == "node.resumed":
                raise Conflict(f"node {name} was resumed meanwhile")
            if event.node == name and event.kind == "node.drained":
                return
    except _Drained:
        return


class _Drained(Exception):
    """Nothing runs there: there is nothing to wait for."""


@node.command("resume")
@click.argument("name")
def resume_node(name: str) -> None:
    """Let a drained node take new jobs again.

    \b
    Example:
      moorage node resume gpu1
    """
    with connect(node=True) as client:
        client.resume(name)
    say(f"node {name} takes new jobs")


@node.command("reboot-check")
@click.argument("name")
@json_option
def reboot_check(name: str, as_json: bool) -> int:
    """Say whether a machine can be rebooted without harm to a job.

    Exit code 0 if it drains and nothing runs there any more, else 1 with the reasons.

    \b
    Example:
      moorage node drain gpu1 --wait && moorage node reboot-check gpu1 && ssh gpu1 reboot
    """
    with connect(node=True) as client:
        check = client.reboot_check(name)
    if as_json:
        print_json(check)
    elif check.safe:
        print_lines([f"node {check.node} can be rebooted; moorage node resume {name} after it"])
    else:
        print_lines([f"node {check.node}: {printable(reason)}" for reason in check.reasons])
    return 0 if check.safe else 1


def _row(view: NodeView, now: float) -> tuple[str, ...]:
    has = view.resources
    return (
        view.name,
        view.fleet,
        view.hostname or "-",
        _state(view),
        f"{view.used_cpus:g}/{has.cpus}",
        f"{format_size(view.used_memory)}/{format_size(has.memory)}",
        f"{view.used_gpus}/{len(has.gpus)}",
        str(view.jobs),
        "full" if not _gaps(view) else "partial",
        "now" if view.state == "up" else age(view.last_seen, now),
    )


def _state(view: NodeView) -> str:
    """`up`, `down`, or why an agent that is connected gets no new jobs."""
    if view.state == "up" and view.draining:
        return "draining" if view.jobs else "drained"
    if view.state == "up" and view.health:
        return "unhealthy"
    if view.state == "up" and view.flapping:
        return "flapping"
    return "warning" if view.state == "up" and view.warning else view.state


def _gaps(view: NodeView) -> list[str]:
    """What is not in force to keep jobs apart, and why."""
    named = (("limits (cgroup)", view.isolation.cgroup), ("private mounts", view.isolation.mounts))
    found = [f"{name}: {why}" for name, why in named if why is not None]
    if view.resources.gpus and view.isolation.devices is not None:
        found.append(f"GPUs apart (devices): {view.isolation.devices}")
    return found


def _health_line(view: NodeView) -> list[str]:
    if view.health:
        return [f"health    failure: {printable(view.health)}"]
    return [f"health    warning: {printable(view.warning)}"] if view.warning else []


def _gpu_lines(view: NodeView) -> list[str]:
    unwell = {one.index: f"; {one.state}: {one.reason}" for one in view.gpu_health}
    lines = []
    for gpu in view.resources.gpus:
        known = (format_size(gpu.memory), gpu.pci, gpu.uuid, gpu.driver and f"driver {gpu.driver}")
        named = f"{gpu.index}: {gpu.vendor} {gpu.name}, {', '.join(filter(None, known))}"
        lines.append(f"          {printable(named + unwell.get(gpu.index, ''))}")
    return lines + [f"          {printable(note)}" for note in view.resources.notes]


def describe(view: NodeView, now: float) -> list[str]:
    """The page about a node."""
    has = view.resources
    away = view.state != "up" and view.last_seen is not None
    seen = f", last seen {age(view.last_seen, now)}" if away else ""
    lines = [
        f"node      {printable(view.name)} ({view.id})",
        f"state     {_state(view)}{seen}; agent {view.version}",
        *_health_line(view),
        f"fleet     {view.fleet}{f', host {printable(view.hostname)}' if view.hostname else ''}",
        f"cpus      {view.used_cpus:g} of {has.cpus} in use ({has.arch})",
        f"memory    {format_size(view.used_memory)} of {format_size(has.memory)} in use",
        f"disk      {format_size(has.disk)} where scratch lies",
        f"gpus      {view.used_gpus} of {len(has.gpus)} in use",
    ]
    lines += _gpu_lines(view)
    if view.blocks:
        lines.append(f"blocks    {view.blocks - view.free_blocks} of {view.blocks} in use")
    lines.append(f"pythons   {' '.join(view.pythons) or 'none'}")
    lines.append(f"jobs      {view.jobs}, as {printable(view.isolation.user) or 'the agent'}")
    why = view.isolation.containers
    by = f" by {view.isolation.engine}" if view.isolation.engine not in ("", "moorage") else ""
    lines.append(f"images    {f'run in containers{by}' if why is None else printable(why)}")
    if view.isolation.docker is None:
        lines.append("docker    jobs may have a daemon of their own")
    gaps = _gaps(view)
    if not gaps:
        return [*lines, "isolation limits and private mounts are in force"]
    if view.isolation.mounts is None:
        lines.append("isolation private mounts are in force")
    if view.isolation.cgroup is None:
        lines.append("isolation limits are in force")
    return lines + [f"isolation without {printable(gap)}" for gap in gaps]
