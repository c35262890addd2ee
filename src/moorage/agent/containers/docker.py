"""Containers by a Docker daemon of the node, from a copy of the image that moorage has unpacked:
it starts nothing from a directory, so each image is imported once, under a name of ours."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from moorage.agent.containers import engines
from moorage.agent.containers.engines import Plan
from moorage.agent.images.store import Image
from moorage.agent.keeper.main import group_name
from moorage.data.base import SourceError
from moorage.data.stopping import run_program
from moorage.protocol.agent import Launch

_PROBE = "docker-probe"
_EMPTY = bytes(10240)
"""A tar archive of nothing."""
_LABEL = "moorage.agent"
USED = "docker"
"""File below the agent's home: who removes the agent has to look there too."""
_DRIVER = "cgroupfs"
_DRIVER_FIX = (
    "docker leaves control groups to systemd, so moorage cannot limit its containers; write "
    '{"exec-opts": ["native.cgroupdriver=cgroupfs"]} into /etc/docker/daemon.json and restart it'
)
_ONE_STREAM = 'exec "$@" 2>&1'
"""A daemon hands on two streams, and between them the order is lost."""


class Docker:
    """For the agent in `home` (`$MOORAGE_HOME/agent`)."""

    name = "docker"
    joins = False

    def __init__(self, home: Path) -> None:
        self._group = group_name(str(home))
        self._home = home
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def why_not(self) -> str:
        """A daemon that answers, on this machine, and makes the control groups it is told to."""
        if os.geteuid() != 0:
            return "moorage runs without root, and uses docker as root only"
        if engines.installed(self.name) is None:
            return "docker is not installed"
        code, said = engines.ask([self.name, "info", "--format", "{{.CgroupDriver}}"])
        if code:
            return f"docker does not answer: {said}"
        if said != _DRIVER:
            return _DRIVER_FIX
        tag = f"{self._repository}:{_PROBE}"
        try:
            return self._try(tag)
        finally:
            engines.ask([self.name, "image", "rm", tag])
            engines.remove_group(self._group, _PROBE)

    def _try(self, tag: str) -> str:
        """One container of the node's own programs."""
        code, said = engines.ask([self.name, "import", *self._labels(), "-", tag], _EMPTY)
        if not code:
            with tempfile.NamedTemporaryFile(prefix="docker-", dir=self._home) as file:
                words = [self.name, "run", "--rm", *self._common(_PROBE)]
                words += ["--mount", engines.field("type=bind", f"src={file.name}", "dst=/here")]
                for path in filter(os.path.isdir, engines.PROGRAMS):
                    bind = engines.field("type=bind", f"src={path}", f"dst={path}", "ro=true")
                    words += ["--mount", bind]
                code, said = engines.ask([*words, tag, "/usr/bin/env", "test", "-f", "/here"])
        return f"docker cannot start containers here: {said}" if code else ""

    def problem(self, launch: Launch) -> str:
        image = launch.container.image if launch.container is not None else ""
        if image.startswith("/"):
            return (
                f"image: docker cannot run {image} where it lies; write a registry's image or "
                "docker-archive:, or let the fleet's engines name moorage too"
            )
        return ""

    def take(self, image: Image, tell: Callable[[str], None]) -> None:
        """Import the image unless the daemon has it; others that want it wait. SourceError."""
        assert image.root is not None
        tag = self._tag(image.root)
        with self._locks[tag]:
            if engines.ask([self.name, "image", "inspect", "--format", "-", tag])[0]:
                tell("importing into docker")
                self._import(image.root, tag)

    def _import(self, root: Path, tag: str) -> None:
        (self._home / USED).touch()
        words = ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=security.capability"]
        words += ["-C", str(root), "-c", "."]
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=engines.surroundings()
        ) as tar:
            try:
                done = run_program(
                    [self.name, "import", *self._labels(), "-"],
                    stdin=tar.stdout, stdout=-1, stderr=-1, env=engines.surroundings(), cwd="/",
                )  # fmt: skip
            finally:
                tar.kill()
        # Half an archive may look whole to the daemon, so it gets its name only now.
        said = (done.stderr if done.returncode else done.stdout).decode(errors="replace").strip()
        code = done.returncode
        if code == 0 and tar.returncode == 0:
            code, said = engines.ask([self.name, "tag", said, tag])
        if code or tar.returncode:
            raise SourceError(f"image: docker could not import it: {said.rpartition(chr(10))[2]}")

    def command(self, plan: Plan) -> list[str]:
        account, root = plan.account, plan.image.root
        assert root is not None
        self.take(plan.image, lambda _text: None)
        # Not `--rm`: the daemon would be at it at the same time as `remove`, which must know.
        words = [self.name, "run", "--pull", "never", *self._labels("--label")]
        words += ["--name", self._container(plan.directory.name), *self._common(plan.key)]
        words += ["--user", f"{account.uid}:{account.gid}", "--workdir", plan.cwd]
        words += engines.options(plan)
        argv = list(plan.argv)
        shell = root / "bin" / "sh"
        if shell.is_symlink() or shell.exists():
            argv = ["/bin/sh", "-c", _ONE_STREAM, "sh", *argv]
        return [*words, self._tag(root), *argv]

    def remove(self, directory: Path) -> str:
        name = self._container(directory.name)
        code, said = engines.ask([self.name, "rm", "--force", "--volumes", name])
        engines.remove_group(self._group, directory.name)
        gone = not code or "No such container" in said
        return "" if gone else f"docker keeps container {name}: {said}"

    def tidy(self, roots: Path) -> None:
        """Remove what the daemon has of images that are not in `roots` any more, and of attempts
        that are gone."""
        kind = ["--filter", f"label={_LABEL}={self._group}"]
        listed = [self.name, "ps", "--all", "--format", "{{.Names}}", *kind]
        prefix = self._container("")
        for name in engines.ask(listed, whole=True)[1].splitlines():
            if not (self._home / "attempts" / name.removeprefix(prefix)).exists():
                engines.ask([self.name, "rm", "--force", "--volumes", name])
        listed = [self.name, "images", "--format", "{{.ID}} {{.Tag}}", *kind]
        for line in engines.ask(listed, whole=True)[1].splitlines():
            number, _, name = line.partition(" ")
            tag = f"{self._repository}:{name}"
            with self._locks[tag]:
                kept = {self._tag(path) for path in roots.glob("[!.]*/rootfs")}
                if tag not in kept:
                    engines.ask([self.name, "image", "rm", number if name == "<none>" else tag])

    def _common(self, key: str) -> list[str]:
        """What holds for every container: it sees the node's network and processes, as those that
        moorage starts itself."""
        words = ["--cgroup-parent", f"/moorage/{self._group}/{key}", "--network", "host"]
        words += ["--pid", "host", "--uts", "host", "--userns", "host", "--log-driver", "none"]
        return [*words, "--pids-limit", "-1", "--security-opt", "label=disable", "--init=false"]

    @property
    def _repository(self) -> str:
        return f"moorage-{self._group}"

    def _labels(self, option: str = "") -> list[str]:
        label = f"{_LABEL}={self._group}"
        return [option, label] if option else ["--change", f"LABEL {label}"]

    def _tag(self, root: Path) -> str:
        return f"{self._repository}:{hashlib.sha256(bytes(root)).hexdigest()[:32]}"

    def _container(self, key: str) -> str:
        return f"{self._repository}-{key}"
