"""From a prepared run to a submitted one: consider it, ask, upload, submit, stay with it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import click
import msgspec

from moorage.cli.client import Client
from moorage.cli.follow import follow
from moorage.cli.ports import forwarding
from moorage.cli.prepare import Placed, Prepared
from moorage.cli.preview import Considered, describe
from moorage.cli.progress import Bar
from moorage.cli.render import printable, say, style_of
from moorage.cli.session import asks, confirm
from moorage.errors import InvalidInput
from moorage.protocol.api import RunRequest
from moorage.specs.gang import ranks
from moorage.specs.mounts import Bucket


def consider(client: Client, prepared: Prepared) -> Considered:
    """Everything that can be known of a run without changing anything."""
    into_buckets = any(isinstance(one, Bucket) and one.sources for one in prepared.spec.mounts)
    if not into_buckets and not any(prepared.local(mount) for mount in prepared.spec.mounts):
        request = RunRequest(prepared.spec, prepared.source, prepared.dialect)
        [plan] = client.plan(request)
        return Considered(prepared, request, plan, [], [*map(prepared.located, plan.problems)])
    # Scanning and compressing take 40 ms to import, and a run without files does without.
    from moorage.cli.uploads import compare, gather

    gathered = gather(client.transport, prepared, client.cache)
    request = RunRequest(gathered.spec, prepared.source, prepared.dialect)
    # Mounts with a problem of their own are left out of the question: the server would only add
    # that they were not uploaded.
    sound = [n for n in range(len(gathered.spec.mounts)) if n not in gathered.broken]
    mounts = [gathered.spec.mounts[number] for number in sound]
    asked = msgspec.structs.replace(gathered.spec, mounts=mounts)
    [plan] = client.plan(msgspec.structs.replace(request, spec=asked))
    said = map(replace(prepared, places=_of(prepared.places, sound)).located, plan.problems)
    problems = [*gathered.problems, *said]
    contents = compare(client.transport, gathered.contents, plan.missing_blobs)
    if not into_buckets or problems:
        return Considered(prepared, request, plan, contents, problems)
    from moorage.cli.bucketuploads import gather_buckets

    sent, problems = gather_buckets(client, prepared, plan.data)
    return Considered(prepared, request, plan, contents, problems, sent)


def _of(places: Sequence[Placed], numbers: Sequence[int]) -> list[Placed]:
    """Those of some mounts; a run without a file has none."""
    return [places[number] for number in numbers] if places else []


def _upload(client: Client, considered: Considered) -> None:
    """Send what the plan said is missing, and what the buckets lack."""
    if considered.plan.missing_blobs:
        from moorage.cli.uploads import send

        with Bar("uploading") as bar:
            send(client.transport, considered.contents, lambda p: bar.show(p.bytes, p.bytes_total))
    if considered.into_buckets:
        from moorage.cli.bucketuploads import send_buckets
        from moorage.cli.ending import ended_by_signals
        from moorage.cli.places import shown_progress

        buckets = [content.bucket for content in considered.into_buckets]
        with ended_by_signals(), shown_progress("uploading", buckets) as tell:
            send_buckets(client, considered.into_buckets, tell)


def launch(
    client: Client, prepared: Prepared, *, detach: bool, yes: bool, brief: bool = False
) -> int:
    """Submit a run, and stay with it unless `detach`; returns the exit code.

    `brief`: nothing is shown before, and nobody asked, unless there is something to say.
    """
    considered = consider(client, prepared)
    if considered.problems:
        raise InvalidInput(*considered.problems)
    if not brief:
        sys.stderr.writelines(f"{line}\n" for line in describe(considered, style_of(sys.stderr)))
        if not yes and asks() and not confirm("Submit it?", default=True):
            say("nothing was submitted")
            return 1
    else:
        for warning in considered.warnings:
            say(f"warning: {printable(warning)}")
    _upload(client, considered)
    [run] = client.submit(considered.request)
    if detach:
        # A program gets the number alone, for `moorage wait "$(moorage run -d ...)"`.
        click.echo(f"{run.name} ({run.id})" if sys.stdout.isatty() else run.id)
        return 0
    waits = f", waits for {considered.plan.waits_for}" if considered.plan.waits_for else ""
    if waits or not brief:
        say(f"run {run.name} ({run.id}) submitted{printable(waits)}")
    with forwarding(client, run, considered.request.spec.ports):
        choice = len(considered.plan.nodes) + len(considered.plan.not_asked) > 1
        return follow(client, run, ranks(considered.request.spec), choice=choice)
