"""Jobs of every kind that crash tests submit, and how each must end."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec

from moorage.specs.mounts import Files, HostPath, Repo
from moorage.specs.task import Task
from system.crash.audit import Expected
from system.crash.world import World

SMALL = {"cpu": {"count": {"min": 0.1}}}
RETRY = {"on_events": ["interruption", "error"]}


class Data:
    """Files, a repository with a local change, and a volume that is kept."""

    def __init__(self, world: World) -> None:
        base = world.home.parent
        (base / "files").mkdir()
        for number in range(20):
            (base / "files" / f"{number}.txt").write_text(f"content {number}\n" * 100)
        repo = base / "repo"
        repo.mkdir()
        (repo / "code.txt").write_text("committed\n")
        git = ["git", "-C", str(repo), "-c", "user.name=t", "-c", "user.email=t@example.org"]
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
            subprocess.run([*git, *words], check=True)
        (repo / "code.txt").write_text("changed\n")
        self.volume = base / "volume"
        self.volume.mkdir()
        self.point = Path("/mnt") / f"{base.name}-point"
        task = Task(
            commands=["true"],
            mounts=[
                Files("files", "in"),
                Repo(target="code", source="repo"),
                HostPath(str(self.volume), str(self.point)),
            ],
        )
        filled = world.upload(task)
        self.mounts = msgspec.to_builtins(filled)["mounts"]

    def check(self) -> str:
        """Shell that fails unless all of it is there and whole."""
        return (
            "test $(cat in/*.txt | wc -l) = 2000 && grep -q changed code/code.txt && "
            f"echo $MOORAGE_JOB_ID >> {self.point}/written || exit 99"
        )


def mixed(world: World, data: Data, *, fragile: bool = False) -> dict[int, Expected]:
    """A job of each quick kind, submitted together."""
    line = world.ledger.command
    kinds: list[tuple[dict[str, Any], Expected]] = [
        ({"commands": [line()]}, Expected(fragile=fragile)),
        ({"commands": [line("exit 7")]}, Expected(7, fragile=fragile)),
        (
            {"commands": [line(data.check())], "mounts": data.mounts, "retry": RETRY},
            Expected(retried=True),
        ),
        ({"commands": [line(data.check())], "mounts": data.mounts}, Expected(fragile=fragile)),
        ({"commands": [line()], "retry": RETRY}, Expected(retried=True)),
    ]
    small = {"resources": SMALL}
    runs = world.submit_all([spec | small for spec, _ in kinds])
    return {run: expected for run, (_, expected) in zip(runs, kinds, strict=True)}
