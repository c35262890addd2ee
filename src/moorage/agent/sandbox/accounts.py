"""Who a container's process is: names are those of the image. Standard library only (keeper)."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PR_CAPBSET_DROP, _PR_CAPBSET_READ = 24, 23
_KEPT = frozenset((0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 29, 31))
"""Capabilities of an ordinary container, as container engines give them, but for making devices:
chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw,
sys_chroot, audit_write, setfcap."""


class NoSuchUser(Exception):
    """One line for the user."""


class Account:
    """`groups`: the supplementary ones."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid, self.gid, self.groups, self.home = uid, gid, groups, home


def find(wanted: str, root: str = "") -> Account:
    """The account `uid_or_name[:gid_or_name]`, root's where nothing is wanted. `root`: where the
    image lies, as seen from here. NoSuchUser."""
    user, _, group = (wanted or "0").partition(":")
    name, uid, gid, home = user, -1, 0, ""
    for fields in _lines(f"{root}/etc/passwd", 6):
        if fields[0] == user or (fields[2] == user and uid < 0):
            name, uid, gid, home = fields[0], int(fields[2]), int(fields[3]), fields[5]
            if fields[0] == user:
                break
    if uid < 0:
        if not user.isdigit():
            raise NoSuchUser(f"user: the image has no account '{user}'")
        uid, home = int(user), "/root" if int(user) == 0 else "/"
    groups = []
    chosen = int(group) if group.isdigit() else -1
    for fields in _lines(f"{root}/etc/group", 4):
        if fields[0] == group:
            chosen = int(fields[2])
        if name in fields[3].split(","):
            groups.append(int(fields[2]))
    if group and chosen < 0:
        raise NoSuchUser(f"user: the image has no group '{group}'")
    return Account(uid, chosen if group else gid, groups, home or "/")


def _lines(path: str, fields: int) -> Iterator[list[str]]:
    """Lines of an account file that make sense; none where there is no file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 20)
    except OSError:
        return
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) >= fields and parts[2].isdigit() and (fields < 6 or parts[3].isdigit()):
            yield parts


def give(account: Account, directories: list[int]) -> None:
    """Let the account own these trees, given by descriptors, links not followed. OSError."""
    for top in directories:
        os.chown(".", account.uid, account.gid, dir_fd=top)
        for _, below, files, place in os.fwalk(".", dir_fd=top):
            for name in (*below, *files):
                os.chown(name, account.uid, account.gid, dir_fd=place, follow_symlinks=False)


def limit_capabilities() -> None:
    """What this process executes has those of an ordinary container at most."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(64):
        if libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) < 0:
            return
        if number not in _KEPT:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def become(account: Account) -> None:
    """For good. OSError."""
    os.setgroups(account.groups)
    os.setgid(account.gid)
    os.setuid(account.uid)
