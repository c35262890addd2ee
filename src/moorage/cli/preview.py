"""What a run would do, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moorage.cli.prepare import Prepared, without_mount
from moorage.cli.render import Style, printable
from moorage.errors import Problem
from moorage.protocol.api import RunRequest
from moorage.protocol.plans import PlanNode, RunPlan
from moorage.protocol.stores import DataPlan
from moorage.specs.buckets import MODE_WORDS
from moorage.specs.gang import ranks
from moorage.specs.mounts import Repo
from moorage.units import format_size

if TYPE_CHECKING:
    from moorage.cli.bucketuploads import BucketContent
    from moorage.cli.uploads import Content

LABEL = 10
SHOWN_NODES = 5
"""Nodes that are named one by one; a cluster's plan is no list of its nodes."""
_NO_PART = ("", "( # setup", ")")
"""Lines that say nothing of a command, two of them around SkyPilot's `setup`."""


@dataclass(frozen=True, slots=True)
class Considered:
    """A run with everything known about it before it is submitted."""

    prepared: Prepared
    request: RunRequest
    plan: RunPlan
    contents: list[Content]
    problems: list[Problem] = field(default_factory=list)
    into_buckets: list[BucketContent] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """What is worth saying, from the file, the scan, the server and the nodes."""
        notes = [note for content in self.contents for note in content.scan.notes]
        notes += [note for content in self.into_buckets for note in content.sending.notes]
        of_nodes = [
            f"on {node.node}: {note}"
            for node in self.plan.nodes
            if node.fits
            for note in node.notes
        ]
        told = [*map(str, self.prepared.warnings), *notes, *self.plan.warnings, *of_nodes]
        return list(dict.fromkeys(told))


def describe(considered: Considered, style: Style) -> list[str]:
    """The plan as lines."""
    plan = considered.plan
    spec = considered.request.spec
    lines = [_field("run", printable(spec.name or "the server picks a name"))]
    if spec.schedule is not None:
        lines.append(_field("schedule", ", ".join(spec.schedule.cron) + " (UTC)"))
    if spec.image is not None:
        lines.append(_field("image", printable(spec.image)))
    commands = considered.prepared.shown.commands
    parts = [part for command in commands for part in command.split("\n") if part not in _NO_PART]
    dots = f" ... ({len(parts) - 1} more)" if len(parts) > 1 else ""
    lines.append(_field("command", printable(parts[0] if parts else "the image's own") + dots))
    lines += _labelled("runs on", _nodes(plan.nodes, ranks(spec), style))
    if plan.not_asked:
        lines.append(_field("not asked", printable(_some(plan.not_asked))))
    if plan.waits_for:
        lines.append(_field("waits for", printable(plan.waits_for)))
    lines += _labelled("data", map(_data, plan.data))
    uploads = [_content(content) for content in considered.contents]
    uploads += [_into_bucket(content) for content in considered.into_buckets]
    lines += _labelled("uploads", uploads)
    clones = [_clone(m) for m in spec.mounts if isinstance(m, Repo) and m.url and not m.source]
    lines += _labelled("clones", clones)
    lines += _labelled(
        "warning", [style.paint(printable(w), "yellow") for w in considered.warnings]
    )
    return lines


def _field(label: str, value: str) -> str:
    return f"{label:<{LABEL}}{value}".rstrip()


def _labelled(label: str, values: Iterable[str]) -> list[str]:
    return [_field(label if number == 0 else "", value) for number, value in enumerate(values)]


def _some(texts: list[str]) -> str:
    """A few of them, the others counted."""
    more = len(texts) - SHOWN_NODES
    return "; ".join(texts[:SHOWN_NODES]) + (f" and {more} more" if more > 0 else "")


def _takes(able: int, ranks: int) -> str:
    """How many of the nodes below a run on several takes."""
    if able > ranks:
        return f"takes {ranks} of these {able} nodes, of one fleet:"
    if able == ranks:
        return f"takes all {ranks} of these nodes:"
    return f"takes {ranks} nodes of one fleet, and only {able} of these can run a part:"


def _nodes(nodes: list[PlanNode], ranks: int, style: Style) -> list[str]:
    lines = []
    for node in sorted(nodes, key=lambda node: (not node.free_now, not node.fits)):
        if node.fits and node.free_now:
            state = style.paint("free now", "green")
        elif node.fits and node.closed:
            state = style.paint(printable(f"takes no new jobs now: {node.closed}"), "yellow")
        elif node.fits:
            state = style.paint("when it is free", "yellow")
        else:
            reason = "; ".join(map(without_mount, node.problems)) or "too small"
            state = style.paint(printable(f"cannot: {reason}"), "red")
        lines.append(f"{printable(node.node)}: {state}")
    if len(lines) > SHOWN_NODES:
        lines[SHOWN_NODES:] = [f"... and {len(lines) - SHOWN_NODES} nodes more"]
    able = sum(node.fits for node in nodes)
    if ranks == 1 or not nodes:
        return lines
    return [_takes(able, ranks), *(f"  {line}" for line in lines)]


def _content(content: Content) -> str:
    noun = "file" if content.files == 1 else "files"
    new = f"{format_size(content.new_bytes)} to send" if content.new_bytes else "nothing to send"
    text = f"{content.source} -> {content.target}: {content.files} {noun}"
    return printable(f"{text}, {format_size(content.size)}; {new}")


def _into_bucket(content: BucketContent) -> str:
    noun = "file" if content.files == 1 else "files"
    size = content.sending.size
    new = f"{format_size(size)} to send" if content.sending.files else "nothing to send"
    return printable(f"{content.source} -> {content.shown}: {content.files} {noun}; {new}")


def _data(data: DataPlan) -> str:
    """Where the data of a bucket mount is, and how much, as far as one look told."""
    text = f"{data.uri} -> {data.target}, {MODE_WORDS.get(data.mode, data.mode)}"
    if data.will_make:
        return printable(f"{text}: a new bucket in {data.store}")
    if data.objects is None:
        return printable(text)
    least = "at least " if data.more else ""
    noun = "object" if data.objects == 1 else "objects"
    return printable(f"{text}: {least}{data.objects} {noun}, {format_size(data.bytes or 0)}")


def _clone(repo: Repo) -> str:
    from moorage.data.git import without_credentials  # 5 ms that most plans do without

    wanted = repo.hash or repo.branch
    version = f" at {wanted}" if wanted else ""
    return printable(f"{without_credentials(repo.url or '')}{version} -> {repo.target}")


def as_document(considered: Considered) -> dict[str, Any]:
    """The plan for programs (`plan --json`)."""
    return {
        "run": considered.plan,
        "uploads": [
            {
                "source": content.source,
                "target": content.target,
                "files": content.files,
                "bytes": content.size,
                "new_bytes": content.new_bytes,
            }
            for content in considered.contents
        ]
        + [
            {
                "source": content.source,
                "target": content.shown,
                "files": content.files,
                "new_files": content.sending.files,
                "new_bytes": content.sending.size,
            }
            for content in considered.into_buckets
        ],
        "problems": [str(problem) for problem in considered.problems],
        "warnings": considered.warnings,
    }
