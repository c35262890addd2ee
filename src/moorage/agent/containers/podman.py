"""Containers by podman, from the directory into which moorage has unpacked the image: its own
storage below the agent's home holds nothing but what a container writes."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from moorage.agent.containers import engines
from moorage.agent.containers.engines import Plan
from moorage.agent.images.store import Image
from moorage.agent.keeper.main import group_name
from moorage.protocol.agent import Launch

_PROBE = "podman-probe"
_ID = "podman.id"
"""In the attempt's directory: podman's name for its container."""
_SHARED = "/tmp"  # noqa: S108 (what is in it is this account's alone, which is made sure of)
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers")


class Podman:
    """For the agent in `home` (`$MOORAGE_HOME/agent`)."""

    name = "podman"
    joins = False

    def __init__(self, home: Path) -> None:
        self._group = group_name(str(home))
        self._root = os.geteuid() == 0
        # `podman` may be an older agent's, which only works with the directory that it had then.
        self._place = home / ("podman" if self._root else "podman-own")
        self.transient = Path("/run" if self._root else _SHARED) / f"moorage-{self._group}"
        """What must not outlive a boot; podman allows 50 characters, and refuses its storage with
        any other one. So it is not below `XDG_RUNTIME_DIR`: that is gone when the account has no
        session, and depends on how the agent was started."""
        self._hold = -1
        self._runtime = ""

    def why_not(self) -> str:
        """One container of the node's own programs; with runc where podman's choice fails."""
        if engines.installed(self.name) is None:
            return "podman is not installed"
        if not self._root:
            if why := _why_not_ours(self.transient):
                return why
            if self._hold < 0:
                self._hold = _held(self.transient)
        for runtime in ("", *(name for name in ("runc", "crun") if engines.installed(name))):
            self._runtime = runtime
            if not (said := self._try()):
                break
        engines.remove_group(self._group, _PROBE)
        return said

    def _try(self) -> str:
        with tempfile.TemporaryDirectory(prefix="podman-", dir=self._place.parent) as place:
            empty = Path(place) / "empty"
            empty.mkdir()
            words = [*self._podman(), "run", "--rm", "--cidfile", f"{place}/{_ID}"]
            words += self._common(self._parent(_PROBE))
            for path in filter(os.path.isdir, engines.PROGRAMS):
                bind = engines.field("type=bind", f"src={path}", f"dst={path}", "ro=true")
                words += ["--mount", bind]
            code, said = engines.ask([*words, "--rootfs", f"{empty}:O", "/usr/bin/env", "true"])
            self._remove_layer(Path(place))
        return f"podman cannot start containers here: {said}" if code else ""

    def problem(self, launch: Launch) -> str:
        image = launch.container.image if launch.container is not None else ""
        if image.startswith("/") and not Path(image).is_dir():
            return f"image: podman cannot run the image file {image}"
        return ""

    def take(self, image: Image, tell: Callable[[str], None]) -> None:
        """It runs the directory as it is."""

    def command(self, plan: Plan) -> list[str]:
        account = plan.account
        words = [*self._podman(), "run", "--rm", "--name", self._container(plan.directory)]
        words += ["--cidfile", str(plan.directory / _ID)]
        words += self._common(self._parent(plan.key))
        words += ["--user", f"{account.uid}:{account.gid}", "--workdir", plan.cwd]
        if not self._root and (account.uid or account.gid):
            # Inside the job is whom it wants to be, outside it is the agent's account.
            words += ["--userns", f"keep-id:uid={account.uid},gid={account.gid}"]
        words += engines.options(plan)
        return [*words, "--rootfs", f"{plan.image.root}:O", *plan.argv]

    def remove(self, directory: Path) -> str:
        name = self._container(directory)
        code, said = engines.ask(
            [*self._podman(), "rm", "--force", "--ignore", "--time", "0", name]
        )
        engines.remove_group(self._group, directory.name)
        return f"podman keeps container {name}: {said}" if code else self._remove_layer(directory)

    def _remove_layer(self, directory: Path) -> str:
        """Without root, podman itself leaves all that a container wrote."""
        with suppress(FileNotFoundError):
            number = (directory / _ID).read_text().strip()
            layer = self.transient / "overlay-containers" / number
            if number and not self._root and layer.exists():
                words = [*self._podman(), "unshare", "rm", "-rf", "--", str(layer)]
                code, said = engines.ask(words)
                return f"podman leaves {layer}: {said}" if code else ""
        return ""

    def tidy(self, roots: Path) -> None:
        """It has no images."""

    def _podman(self) -> list[str]:
        words = [] if self._root else ["env", f"XDG_RUNTIME_DIR={self.transient}"]
        words += [self.name, "--root", str(self._place), "--runroot", str(self.transient)]
        words += ["--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        return [*words, *(["--runtime", self._runtime] if self._runtime else [])]

    def _common(self, group: str) -> list[str]:
        """What holds for every container: it sees the node's network and processes, as those that
        moorage starts itself; output goes where ours does."""
        words = ["--network", "host", "--pid", "host", "--uts", "host"]
        words += ["--cgroup-parent", group] if self._root else []
        words += ["--log-driver", "passthrough", "--image-volume", "ignore"]
        # Without root, podman says on version 1 control groups that it cannot, into the output.
        words += ["--pids-limit", "-1"] if self._root or _UNIFIED.exists() else []
        return [*words, "--security-opt", "label=disable", *engines.ceilings()]

    def _parent(self, key: str) -> str:
        return f"/moorage/{self._group}/{key}"

    def _container(self, directory: Path) -> str:
        return f"moorage-{self._group}-{directory.name}"


def _why_not_ours(place: Path) -> str:
    """Make it, for this account alone."""
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        status = place.lstat()
    except OSError as error:
        return f"podman has no place at {place}: {error.strerror}"
    own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not own or status.st_mode & 0o077:
        return f"podman has no place: {place} is not this account's alone"
    return ""


def _held(place: Path) -> int:
    """Keep what cleans up the shared directory away as long as this process lives, and remove what
    an earlier boot left; a descriptor."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    boot, noted = _BOOT.read_text(), place / "boot"
    if not noted.exists() or noted.read_text() != boot:
        for path in place.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        noted.write_text(boot)
    return descriptor
