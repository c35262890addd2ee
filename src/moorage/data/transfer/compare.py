"""What has to be moved so that one place has what another has. Moves nothing."""

from __future__ import annotations

import os
from collections.abc import Callable

from msgspec import Struct

from moorage.data import ignore
from moorage.data.transfer.etags import bare, same_content, tells_content
from moorage.data.transfer.listing import Listing, listing
from moorage.data.transfer.names import directories, reason_against_key
from moorage.data.transfer.places import Entry, Local, Place, Remote
from moorage.errors import InvalidInput, Problem

_SAME_SECOND = 2.0
"""Seconds around an upload in which the times of stores and files do not say which came later."""
_CHEAP = 64 * 1024 * 1024
"""Bytes of a file whose content is rather compared than sent again."""


class Options(Struct, frozen=True):
    """How places are compared and files moved."""

    checksum: bool = False
    """Compare content by the stores' etags, not sizes and times."""
    delete: bool = False
    """Delete at the target what is not at the source."""
    ignoring: bool = True
    """Leave out of uploads what the ignore files say."""
    everything: bool = False
    """Move also what has not changed."""
    threads: int = 0
    """0: as many as suit the kind of transfer."""


class Plan(Struct):
    """What a transfer will do. Names are the same at both places."""

    source: Place
    target: Place
    options: Options
    moves: list[Entry] = []
    """Entries of the source."""
    deletions: list[str] = []
    """Names at the target."""
    replaced: set[str] = set()
    """Those of `moves` that are there already, with another content."""
    unchanged: int = 0
    links: int = 0
    others: int = 0
    problems: list[Problem] = []
    """What cannot be moved; the rest can."""

    @property
    def size(self) -> int:
        """Bytes to be moved."""
        return sum(entry.size for entry in self.moves)


def compare(source: Place, target: Place, options: Options | None = None) -> Plan:
    """What has to be moved. NotFound, InvalidInput and StoreProblem where a place is no place."""
    options = options or Options()
    here = listing(source, ignoring=options.ignoring and isinstance(target, Remote))
    if options.delete and (here.single or not here.entries):
        reason = "is one file" if here.single else "is empty, and everything would be deleted"
        raise InvalidInput(Problem(f"{source.shown} {reason}", "leave out --delete"))
    there = listing(target, missing_ok=True) if not here.single else _one(target)
    if there.single and not here.single:
        raise InvalidInput(Problem("it is a file, and the source a directory", file=target.shown))
    plan = Plan(source, target, options, links=here.links, others=here.others)
    plan.problems += here.problems
    for entry in _possible(plan, here):
        old = there.entries.get(entry.name)
        if old is not None and not options.everything and _same(plan, entry, old):
            plan.unchanged += 1
            continue
        plan.moves.append(entry)
        if old is not None:
            plan.replaced.add(entry.name)
    if options.delete:
        plan.deletions = _extra(plan, here, there)
    return plan


def _one(target: Place) -> Listing:
    """The target of a single file: only it is looked at, whatever lies beside it."""
    if isinstance(target, Local):
        return listing(target, missing_ok=True)
    if not target.path:
        raise InvalidInput(Problem("the name of the object is missing", file=target.shown))
    target.bucket.check()  # some stores make a bucket when they are sent an object for it
    found = listing(target, missing_ok=True)
    return found if found.single else Listing()


def _possible(plan: Plan, here: Listing) -> list[Entry]:
    """The entries that can be at the target; the others become problems."""
    if isinstance(plan.target, Remote):
        return [entry for entry in here.entries.values() if _may_be_key(plan, entry)]
    both = directories(here.entries)
    found: list[Entry] = []
    for name, entry in here.entries.items():
        if name not in both:
            found.append(entry)
        elif entry.size:
            reason = "others lie below its key, and no file can be a directory too"
            fix = "copy it alone, to another name"
            plan.problems.append(Problem(reason, fix, file=_shown(plan.source, name)))
    return found


def _may_be_key(plan: Plan, entry: Entry) -> bool:
    reason = reason_against_key(plan.target.at(entry.name))
    if reason:
        plan.problems.append(Problem(reason, file=_shown(plan.source, entry.name)))
    return not reason


def _same(plan: Plan, new: Entry, old: Entry) -> bool:
    if new.size != old.size:
        return False
    if isinstance(plan.source, Remote) and isinstance(plan.target, Remote):
        return _same_objects(new, old, plan.options.checksum)
    if isinstance(plan.target, Local):
        path, obj, file = plan.target.at(old.name), new, old
        timely = file.identity is not None and _at_once(file.identity[1], obj.modified)
        doubtful = False
    else:
        path, obj, file = plan.source.at(new.name), old, new
        timely = int(obj.modified) > file.modified
        doubtful = not timely and obj.modified + _SAME_SECOND > file.modified
    if plan.options.checksum:
        return _same_file(path, obj)
    if doubtful and file.size <= _CHEAP:
        return _same_file(path, obj)
    return timely


def _at_once(nanoseconds: int, seconds: float) -> bool:
    """Has the file the time that a download gave it?"""
    return abs(nanoseconds - seconds * 1e9) < 1e6


def _same_file(path: str, obj: Entry) -> bool:
    if not tells_content(obj.etag):
        return False
    try:
        return same_content(path, obj.size, obj.etag) is True
    except OSError:
        return False  # moving it says what is wrong with it


def _same_objects(new: Entry, old: Entry, checksum: bool) -> bool:
    if tells_content(new.etag) and bare(new.etag) == bare(old.etag):
        return True
    return not checksum and old.modified >= new.modified


def _extra(plan: Plan, here: Listing, there: Listing) -> list[str]:
    """What only the target has. Not what the ignore files name: that is not the source's to
    decide about; nor what could not be moved."""
    extra = [name for name in there.entries if name not in here.entries]
    if plan.options.ignoring and isinstance(plan.source, Local):
        ignored = _ignored(os.path.realpath(plan.source.path))
        extra = [name for name in extra if not ignored(name)]
    return extra


def _ignored(root: str) -> Callable[[str], bool]:
    """Do the ignore files of the directory leave out a file of that name?"""
    levels = {"": ignore.start(root)}

    def level_of(directory: str) -> ignore.Level:
        if directory not in levels:
            parent, _, name = directory.rpartition("/")
            path = os.fsencode(f"{root}/{directory}")
            there = [one for one in _listed(path) if ignore.is_ignore_file(one)]
            levels[directory] = level_of(parent).enter(os.fsencode(name), ignore.read(path, there))
        return levels[directory]

    def ignored(name: str) -> bool:
        parts = name.split("/")
        for depth in range(len(parts)):
            level = level_of("/".join(parts[:depth]))
            if level.ignores(os.fsencode(parts[depth]), depth < len(parts) - 1):
                return True
        return False

    return ignored


def _listed(path: bytes) -> list[bytes]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _shown(place: Place, name: str) -> str:
    return place.bucket.at(place.at(name)) if isinstance(place, Remote) else place.at(name)
