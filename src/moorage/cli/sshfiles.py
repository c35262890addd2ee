"""What the user's own `ssh` reads to reach runs by name: a key, a file of settings, and the key of
each run as its node shows it. All in `ssh/` of MOORAGE_HOME, for this user alone."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from moorage.cli.client import Client
from moorage.errors import InvalidInput, NotFound, Problem, Unavailable
from moorage.protocol.api import RunView
from moorage.specs.gang import ranks

CONFIG, KEY, KNOWN = "config", "id_ed25519", "known"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_MORE = "+"
"""In the node of a run that is on several: `lab-0+2`."""
_REACHABLE = ("running", "starting", "queued", "finishing")
_HEAD = "# Written by moorage, again whenever runs are looked for; what you change here is lost.\n"
_HOST = """
Host {name}
    HostName {name}
{user}    ProxyCommand {proxy}
    IdentityFile {key}
    IdentitiesOnly yes
    UserKnownHostsFile {known}
    GlobalKnownHostsFile /dev/null
    HostKeyAlias {name}
    HostKeyAlgorithms ssh-ed25519
    StrictHostKeyChecking yes
    UpdateHostKeys no
    CanonicalizeHostname no
    ControlPath none
    ServerAliveInterval 15
    ServerAliveCountMax 4
"""


class Entry(NamedTuple):
    """A name for `ssh`, the run and rank behind it, and the account there ("": not yet known)."""

    name: str
    run: str
    rank: int
    user: str


def directory(home: Path) -> Path:
    """Where the files are; made for this user alone."""
    place = home / "ssh"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def public_key(home: Path) -> str:
    """The line that a node is to let in; the key is made when it is first needed. Unavailable."""
    path = directory(home) / KEY
    if not path.with_suffix(".pub").exists():
        _make_key(path)
    return path.with_suffix(".pub").read_text().strip()


def _make_key(path: Path) -> None:
    own = path.with_name(f"{path.name}.{os.getpid()}")
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "moorage", "-f", str(own)]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        raise Unavailable("ssh-keygen is not installed here: install OpenSSH's client") from None
    if done.returncode:
        raise Unavailable(f"ssh-keygen: {done.stderr.strip()}")
    public = own.with_suffix(own.suffix + ".pub")
    try:
        os.link(own, path)  # another command may have been faster
        public.replace(path.with_suffix(".pub"))
    except FileExistsError:
        public.unlink()
    finally:
        own.unlink()


def remember(home: Path, name: str, host_key: str) -> None:
    """The key that a run is known by from now on; the server has it from the run's node."""
    _write(known_file(home, name), f"{name} {host_key}\n")


def known_file(home: Path, name: str) -> Path:
    """Where the key of that name's run is."""
    place = directory(home) / KNOWN
    place.mkdir(mode=0o700, exist_ok=True)
    return place / name


def entry_name(run: str, rank: int) -> str:
    """What `ssh` calls a rank."""
    return run if rank == 0 else f"{run}.{rank}"


def write_config(client: Client, *more: Entry) -> list[Entry]:
    """Name all runs that can be reached, or soon, and `more`."""
    users = {node.name: node.isolation.user for node in client.nodes()}
    found = {entry.name: entry for entry in _entries(client, users)}
    found |= {entry.name: entry for entry in more}
    text = "".join(_section(client.home, entry) for entry in found.values())
    _write(directory(client.home) / CONFIG, _HEAD + text)
    return list(found.values())


def entry_of(client: Client, view: RunView, rank: int) -> Entry:
    """One rank's; the account is that of the node where it runs."""
    users = {node.name: node.isolation.user for node in client.nodes()}
    return _of_rank(view, rank, users)


def _of_rank(view: RunView, rank: int, users: dict[str, str]) -> Entry:
    run = view.summary.name
    found = [one.node for job in view.jobs for one in job.attempts if one.rank == rank]
    return Entry(entry_name(run, rank), run, rank, _user(found[-1] if found else "", users))


def _entries(client: Client, users: dict[str, str]) -> Iterator[Entry]:
    for run in client.runs(active=True):
        if run.state not in _REACHABLE or not _PLAIN.fullmatch(run.name):
            continue
        if _MORE not in run.node:
            yield Entry(run.name, run.name, 0, _user(run.node, users))
            continue
        with suppress(NotFound):  # deleted meanwhile
            view = client.run(str(run.id))
            yield from (_of_rank(view, rank, users) for rank in range(ranks(view.spec)))


def _user(node: str, users: dict[str, str]) -> str:
    """Where it will run is not known while it waits; often all nodes have the same account."""
    everywhere = set(users.values())
    user = users.get(node) or (everywhere.pop() if len(everywhere) == 1 else "")
    return user if _USER.fullmatch(user) else ""


def _section(home: Path, entry: Entry) -> str:
    return _HOST.format(
        name=entry.name,
        user=f"    User {entry.user}\n" if entry.user else "",
        proxy=_percent(proxy_command(home, entry)),
        key=quoted(directory(home) / KEY),
        known=quoted(known_file(home, entry.name)),
    )


def proxy_command(home: Path, entry: Entry) -> str:
    """What `ssh` runs in place of a connection: it must also work where nothing of this shell's
    environment is left, as in an editor."""
    variables = {"MOORAGE_HOME": str(home)}
    if url := os.environ.get("MOORAGE_URL"):
        variables["MOORAGE_URL"] = url  # the token stays where it is: arguments can be seen
    given = [f"{name}={value}" for name, value in variables.items()]
    program = [sys.executable, "-P", "-m", "moorage"]  # not the modules of where ssh is called
    rank = ["--rank", str(entry.rank)] if entry.rank else []
    return shlex.join(["env", *given, *program, "proxy", *rank, entry.run])


def own_config() -> Path:
    """The user's own settings: ssh looks for them in the home of the account, whatever HOME
    says."""
    try:
        account = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # as in some containers, where ssh does not run either
        account = str(Path.home())
    return Path(account) / ".ssh" / "config"


def install(home: Path, path: Path) -> bool:
    """Let the user's own settings, at `path`, include ours; False where they do. InvalidInput."""
    place = path.parent
    line = f"Include {quoted(directory(home) / CONFIG)}\n"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        if line in text.splitlines(keepends=True):
            return False
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        # First: behind a `Host` line it would hold for that host only.
        _write(path.resolve(), line + text, mode)
    except OSError as error:
        problem = Problem(f"cannot be changed: {error.strerror}", f"add the line: {line.strip()}")
        raise InvalidInput(problem._replace(file=str(path))) from None
    return True


def quoted(path: Path) -> str:
    """As a word of an ssh configuration."""
    return f'"{_percent(str(path))}"'


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _write(path: Path, text: str, mode: int = 0o600) -> None:
    """All at once: somebody may be reading."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "w") as file:
        file.write(text)
    new.replace(path)
