"""The images of a node: pulled and unpacked once, shared by all jobs, the longest unused first to
go. Everything here blocks and may be called from several threads.

    images/roots/<digest>/rootfs/       what jobs see below their own writable layer
    images/roots/<digest>/image.json    how the image wants to be run
    images/layers/<digest>              layers on their way; gone when unpacked
    images/names/<digest of a name>     what a name meant when its registry last answered
"""

from __future__ import annotations

import contextvars
import ctypes
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from moorage.agent.images import archive
from moorage.agent.images.recipe import Layer, Recipe, Settings
from moorage.agent.keeper import launching
from moorage.agent.keeper.job import boot_id
from moorage.data import scratch
from moorage.data.base import NotHere, SourceError
from moorage.data.stopping import breaking, run_program
from moorage.decoding import from_json
from moorage.protocol.container import Container
from moorage.specs.container import parse_reference
from moorage.units import format_size

if TYPE_CHECKING:
    from moorage.agent.images.registry import Registry

_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from moorage.agent.images.unpack import main; sys.exit(main())"
)
_SHARE = 4
"""Of the disk, one part in so many is for images that no job uses."""
_TOGETHER = 3
"""Layers that are fetched side by side."""
_TOLD = 1.0
"""Seconds between two words about the progress."""
USED = "of"
"""Link, in the directory of an attempt's container, to the image that it uses."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a container begins with: a directory, or the squashfs image in a file at `offset`."""

    settings: Settings
    root: Path | None = None
    file: Path | None = None
    offset: int = 0
    detail: str = ""
    """For the timeline."""


class _Kept(Struct, frozen=True):
    """`image.json`. Bytes."""

    settings: Settings
    size: int
    boot: str


class Images:
    """All in one directory; `attempts` is the one of attempts, whose links say what is in use."""

    def __init__(self, directory: Path, attempts: Path, limit: int | None = None) -> None:
        """`limit`: bytes of unpacked images; None: a part of the disk."""
        self._directory, self._attempts, self._limit = directory, attempts, limit
        self.roots = directory / "roots"
        """`<digest>/rootfs` of each."""
        self._busy: set[str] = set()
        self._needed: Counter[str] = Counter()
        self._change = threading.Condition()
        self._known: dict[tuple[str, int, int, int], str] = {}

    def tidy(self) -> None:
        """Remove what an agent that died was about to make; once, before anything else."""
        if not self._directory.exists():
            return
        for path in self.roots.glob(".*"):
            with suppress(SourceError):
                scratch.remove(path)
        for path in self.roots.glob("*/image.json"):
            kept = _read(path)
            # After a crash of the machine nobody knows which of its files were on disk.
            if kept is None or (kept.boot != boot_id() and not (path.parent / "synced").exists()):
                with suppress(SourceError):
                    scratch.remove(path.parent)

    def problem(self, container: Container) -> str:
        """What would go wrong, as far as it can be told without fetching anything."""
        kind, _, rest = container.image.partition(":")
        path = Path(rest if kind in ("docker-archive", "oci-archive") else container.image)
        if not path.is_absolute():
            return ""
        if not path.exists():
            return f"image: {path} does not exist on this node"
        return _why_not_mounted(path) if kind == container.image else ""

    def prepare(self, container: Container, attempt: Path, tell: Callable[[str], None]) -> Image:
        """The image, for as long as the attempt's directory has its `image/of`. `tell` is given
        words about the progress. SourceError, OSError."""
        name = container.image
        kind, _, rest = name.partition(":")
        try:
            if name.startswith("/"):
                return _as_it_is(Path(name))
            if kind == "docker-archive":
                return self._archive(Path(rest), archive.docker_archive, attempt, tell)
            if kind == "oci-archive":
                return self._archive(Path(rest), archive.oci_archive, attempt, tell)
        except SourceError as error:  # the file is this node's
            raise NotHere(str(error)) from error
        return self._pulled(container, attempt, tell)

    def _archive(
        self,
        path: Path,
        read: Callable[[Path], Recipe],
        attempt: Path,
        tell: Callable[[str], None],
    ) -> Image:
        try:
            status = path.stat()
        except FileNotFoundError:
            raise SourceError(f"image: {path} does not exist on this node") from None
        same = (str(path), status.st_size, status.st_mtime_ns, status.st_ino)
        known = self._known.get(same)
        if known is not None and (image := self._use(known, attempt)) is not None:
            return image
        try:
            recipe = read(path)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SourceError(f"image: {path} is damaged: {error}") from None
        self._known[same] = recipe.digest
        with self._alone(recipe.digest):
            return self._use(recipe.digest, attempt) or self._unpack(recipe, attempt, tell, {})

    def _pulled(self, container: Container, attempt: Path, tell: Callable[[str], None]) -> Image:
        from moorage.agent.images.registry import Registry, Unreachable  # 10 ms that most save

        reference = parse_reference(container.image)
        registry = Registry(reference, container.auth)
        name = hashlib.sha256(str(reference).encode()).hexdigest()
        note = self._directory / "names" / name
        try:
            digest = registry.digest()
        except Unreachable:
            with suppress(OSError):
                if (image := self._use(note.read_text(), attempt)) is not None:
                    return image
            raise
        with self._alone(digest):
            image = self._use(digest, attempt)
            if image is None:
                recipe = registry.recipe(digest)
                recipe = Recipe(digest, recipe.settings, recipe.layers)
                with self._needing(recipe.layers):
                    files = self._fetch(registry, recipe.layers, tell)
                    image = self._unpack(recipe, attempt, tell, files)
        note.parent.mkdir(mode=0o700, exist_ok=True)
        note.write_text(digest)
        return image

    @contextmanager
    def _needing(self, layers: list[Layer]) -> Iterator[None]:
        """Keep these as they come in; whoever needed one last removes it. What came of an image
        that could not be had stays, so that the next try goes on there."""
        digests = {layer.digest for layer in layers}
        with self._change:
            self._needed.update(digests)
        done = False
        try:
            yield
            done = True
        finally:
            with self._change:
                self._needed.subtract(digests)
                for digest in digests:
                    if done and self._needed[digest] <= 0:
                        self._layer(digest).unlink(missing_ok=True)

    def _layer(self, digest: str) -> Path:
        return self._directory / "layers" / digest.removeprefix("sha256:")

    def _fetch(
        self, registry: Registry, layers: list[Layer], tell: Callable[[str], None]
    ) -> dict[str, Path]:
        """Where each layer lies once it is here. SourceError."""
        (self._directory / "layers").mkdir(mode=0o700, parents=True, exist_ok=True)
        wanted = {layer.digest: layer for layer in layers}
        progress = _Progress(sum(layer.size for layer in wanted.values()), tell)

        def fetch(layer: Layer) -> Path:
            target = self._layer(layer.digest)
            with self._alone(layer.digest):
                registry.fetch(layer, target, progress.arrived)
            return target

        with ThreadPoolExecutor(_TOGETHER) as pool:
            futures = {
                digest: pool.submit(contextvars.copy_context().run, fetch, layer)
                for digest, layer in wanted.items()
            }
            return {digest: future.result() for digest, future in futures.items()}

    def _unpack(
        self, recipe: Recipe, attempt: Path, tell: Callable[[str], None], files: dict[str, Path]
    ) -> Image:
        tell(f"unpacking {len(recipe.layers)} layers")
        self.roots.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Others may not look into it; the container's own users must.
        self._directory.chmod(0o700)
        made = Path(tempfile.mkdtemp(prefix=".", dir=self.roots))
        try:
            (made / "rootfs").mkdir(mode=0o755)
            made.chmod(0o755)
            began = time.monotonic()
            size = _run_unpacker(made / "rootfs", recipe, files)
            (made / "image.json").write_bytes(
                msgspec.json.encode(_Kept(recipe.settings, size, boot_id()))
            )
            made.rename(self.roots / _plain(recipe.digest))
        except BaseException:
            with suppress(SourceError):
                scratch.remove(made)
            raise
        done = self.roots / _plain(recipe.digest)
        threading.Thread(target=_sync, args=(done,), daemon=True).start()
        image = self._use(recipe.digest, attempt)
        assert image is not None
        self._evict()
        taken = f"{format_size(size)} unpacked in {time.monotonic() - began:.1f} s"
        return Image(image.settings, image.root, detail=taken)

    def _use(self, digest: str, attempt: Path) -> Image | None:
        """The unpacked image, held for the attempt; None where there is none."""
        with self._change:
            root = self.roots / _plain(digest)
            kept = _read(root / "image.json")
            if kept is None:
                return None
            link = attempt / "image" / USED
            link.parent.mkdir(mode=0o700, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(root)
            with suppress(OSError):  # on a full disk the order of use suffers, not the job
                os.utime(root / "image.json")
            return Image(kept.settings, root / "rootfs")

    def _evict(self) -> None:
        """Remove the longest unused beyond the limit."""
        limit = self._limit
        if limit is None:
            limit = shutil.disk_usage(self._directory).total // _SHARE
        with self._change:
            used = {os.path.realpath(link) for link in self._attempts.glob(f"*/image/{USED}")}
            found = [(path.stat().st_mtime, path) for path in self.roots.glob("*/image.json")]
            total = 0
            gone = []
            for _, path in sorted(found, reverse=True):
                kept = _read(path)
                total += kept.size if kept is not None else 0
                if total > limit and os.path.realpath(path.parent) not in used:
                    gone.append(path.parent.rename(path.parent.with_name(f".{path.parent.name}")))
        for path in gone:
            with suppress(SourceError):
                scratch.remove(path)

    @contextmanager
    def _alone(self, digest: str) -> Iterator[None]:
        """One at a time for each digest; the others wait. SourceError: stopped meanwhile."""
        stopped = threading.Event()

        def end() -> None:
            stopped.set()
            with self._change:
                self._change.notify_all()

        with breaking(end), self._change:
            while digest in self._busy and not stopped.is_set():
                self._change.wait()
            if stopped.is_set():
                raise SourceError("stopped")
            self._busy.add(digest)
        try:
            yield
        finally:
            with self._change:
                self._busy.discard(digest)
                self._change.notify_all()


class _Progress:
    """Says now and then how much has come."""

    def __init__(self, total: int, tell: Callable[[str], None]) -> None:
        self._total, self._tell = total, tell
        self._done, self._told = 0, 0.0
        self._lock = threading.Lock()

    def arrived(self, size: int) -> None:
        with self._lock:
            self._done += size
            now = time.monotonic()
            if now - self._told < _TOLD:
                return
            self._told = now
        self._tell(f"pulling {format_size(self._done)} of {format_size(self._total)}")


def _as_it_is(path: Path) -> Image:
    """A directory or an image file of the node, used where it lies."""
    if path.is_dir():
        return Image(Settings(), root=path)
    if not path.exists():
        raise SourceError(f"image: {path} does not exist on this node")
    if why := _why_not_mounted(path):
        raise SourceError(why)
    runs = ["/bin/sh", "/.singularity.d/runscript"] if path.suffix == ".sif" else []
    offset = archive.squashfs_offset(path)
    return Image(Settings(entrypoint=runs), file=path, offset=offset)


def _why_not_mounted(path: Path) -> str:
    """Empty for a directory, and where image files can be used."""
    if path.is_dir() or launching.may_mount():
        return ""
    return f"image: only root can mount {path}; use an archive or a directory on this node"


def _run_unpacker(root: Path, recipe: Recipe, files: dict[str, Path]) -> int:
    """The size of what it made. SourceError."""
    order = {
        "root": str(root),
        "mapped": not launching.may_mount(),
        "layers": [
            {
                "path": str(layer.path or files[layer.digest]),
                "offset": layer.offset,
                "size": layer.size,
                "digest": layer.digest,
                "content": layer.content,
            }
            for layer in recipe.layers
        ],
    }
    arguments = [sys.executable, "-X", "utf8", "-c", _BOOT, json.dumps(sys.path)]
    done = run_program(arguments, input=json.dumps(order).encode(), stdout=-1, stderr=-1, cwd="/")
    said = done.stdout.decode(errors="replace").strip()
    if done.returncode or not said.startswith("ok "):
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        from moorage.agent.images.unpack import OF_THE_NODE  # the agent needs no more of it

        kind = NotHere if done.returncode == OF_THE_NODE else SourceError
        raise kind(f"image: {said or last or 'unpacking was broken off'}")
    return int(said.split()[1])


def _read(path: Path) -> _Kept | None:
    try:
        return from_json(path.read_bytes(), _Kept)
    except (OSError, msgspec.MsgspecError):
        return None


def _sync(root: Path) -> None:
    """Note that all of it is on disk, which may take its time."""
    with suppress(OSError):
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None).syncfs(directory) == 0:
                (root / "synced").touch()
        finally:
            os.close(directory)


def _plain(digest: str) -> str:
    return digest.replace(":", "-")
