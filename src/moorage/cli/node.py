"""`moorage node`: the machines that run jobs."""

from __future__ import annotations

import sys
import time

import click

from moorage.cli.render import age, printable, say, style_of, table
from moorage.cli.session import connect, json_option, print_json, print_lines
from moorage.errors import NotFound
from moorage.protocol.api import NodePage, NodeView
from moorage.units import format_size

HEADERS = ("NAME", "STATE", "CPUS", "MEMORY", "GPUS", "JOBS", "ISOLATION", "SEEN")


@click.group()
def node() -> None:
    """The machines that run jobs.

    \b
    Examples:
      moorage node ls
      moorage node show gpu1
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
    now = time.time()
    rows = [_row(view, now) for view in nodes]
    print_lines(table(HEADERS, rows, style_of(sys.stdout), state=HEADERS.index("STATE")))


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
        known = ", ".join(view.name for view in nodes) or "none"
        raise NotFound(f"no node {name}; known: {known}")
    if as_json:
        print_json(found[0])
        return
    print_lines(describe(found[0], time.time()))


def _row(view: NodeView, now: float) -> tuple[str, ...]:
    has = view.resources
    return (
        view.name,
        view.state,
        f"{view.used_cpus:g}/{has.cpus}",
        f"{format_size(view.used_memory)}/{format_size(has.memory)}",
        f"{view.used_gpus}/{len(has.gpus)}",
        str(view.jobs),
        "full" if not _gaps(view) else "partial",
        "now" if view.state == "up" else age(view.last_seen, now),
    )


def _gaps(view: NodeView) -> list[str]:
    """What is not in force to keep jobs apart, and why."""
    named = (("limits (cgroup)", view.isolation.cgroup), ("private mounts", view.isolation.mounts))
    return [f"{name}: {why}" for name, why in named if why is not None]


def describe(view: NodeView, now: float) -> list[str]:
    """The page about a node."""
    has = view.resources
    seen = "" if view.state == "up" else f", last seen {age(view.last_seen, now)}"
    lines = [
        f"node      {printable(view.name)} ({view.id})",
        f"state     {view.state}{seen}; agent {view.version}",
        f"cpus      {view.used_cpus:g} of {has.cpus} in use ({has.arch})",
        f"memory    {format_size(view.used_memory)} of {format_size(has.memory)} in use",
        f"disk      {format_size(has.disk)} where scratch lies",
        f"gpus      {view.used_gpus} of {len(has.gpus)} in use",
    ]
    lines += [
        f"          {gpu.index}: {gpu.vendor} {gpu.name}, {format_size(gpu.memory)}"
        for gpu in has.gpus
    ]
    lines.append(f"pythons   {' '.join(view.pythons) or 'none'}")
    lines.append(f"jobs      {view.jobs}, as {printable(view.isolation.user) or 'the agent'}")
    gaps = _gaps(view)
    if not gaps:
        return [*lines, "isolation limits and private mounts are in force"]
    if view.isolation.mounts is None:
        lines.append("isolation private mounts are in force")
    if view.isolation.cgroup is None:
        lines.append("isolation limits are in force")
    return lines + [f"isolation without {printable(gap)}" for gap in gaps]
