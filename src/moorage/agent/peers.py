"""SSH between the ranks of a job: keys, configurations and a wrapper round `ssh`, in the attempt's
directory. All ranks are told the same, so none has to ask another.

`peers/` is the job's, `gate/` the server's (`visits/gate.py`). Both go with the job.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from moorage.agent.visits import sshd
from moorage.protocol.agent import Launch
from moorage.protocol.peers import Peer, Peers

NAME, GATE = "peers", "gate"
OWNED = (NAME, GATE)
"""Of an attempt's directory."""
NO_SERVER = (
    "this node has no OpenSSH server program (sshd), so other ranks of a job cannot reach it by "
    "ssh; install the package openssh-server there (it need not run)"
)
_PROGRAMS = ("ssh", "scp", "sftp")
_SETTINGS = {
    # Else the others would look for ssh where the first found it, and its files are not there.
    "OMPI_MCA_plm_rsh_no_tree_spawn": "1",
    "PRTE_MCA_plm_ssh_no_tree_spawn": "1",
    # Open MPI refuses to run as root, which is what jobs are on many nodes.
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
_WRAPPER = """\
#!/bin/sh
# Knows the other ranks of this job; reaches everything else as ever.
IFS=:
for place in $PATH; do
    if [ "$place" != {own} ] && [ -x "$place/{program}" ]; then
        exec "$place/{program}" -F {config} "$@"
    fi
done
echo 'moorage: there is no {program} here: install openssh-client (in the image, if any)' >&2
exit 127
"""
_PEER = """\
Host {names}
HostName {address}
Port {port}
User {user}
HostKeyAlias {alias}
IdentityFile "{place}/key"
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile "{place}/known_hosts"
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
CheckHostIP no
UpdateHostKeys no
PreferredAuthentications publickey
BatchMode yes
ConnectionAttempts 60
ConnectTimeout 10
ServerAliveInterval 15
LogLevel ERROR
"""
_OTHERS = """\
Host * {others}
Include ~/.ssh/config
Include /etc/ssh/ssh_config
"""
_SERVER = """\
ListenAddress {address}
Port {port}
MaxStartups 1000
"""


def why_not() -> str | None:
    """Why other ranks cannot reach one here; None where they can."""
    return None if sshd.find_server() else NO_SERVER


def write(launch: Launch, directory: str, seen: str) -> bool:
    """All files of this rank; `seen` is where the job sees `peers/`. False where the job has one
    rank. Idempotent. OSError."""
    peers = launch.peers
    if peers is None:
        return False
    own = peers.ranks[launch.rank]
    for name in (NAME, f"{NAME}/bin", GATE):
        Path(f"{directory}/{name}").mkdir(0o700, exist_ok=True)
    known = (f"rank{number} {peer.host_key}\n" for number, peer in enumerate(peers.ranks))
    files = {
        f"{NAME}/key": peers.key,
        f"{NAME}/known_hosts": "".join(known),
        f"{NAME}/config": config(peers, seen),
        f"{GATE}/host_key": peers.host_key,
        f"{GATE}/client.pub": f"{peers.public_key}\n",
        f"{GATE}/listen.conf": _SERVER.format(address=own.address, port=own.port),
    }
    for name, text in files.items():
        _write(f"{directory}/{name}", text, 0o600)
    words = {"own": shlex.quote(f"{seen}/bin"), "config": shlex.quote(f"{seen}/config")}
    for program in _PROGRAMS:
        text = _WRAPPER.format(program=program, **words)
        _write(f"{directory}/{NAME}/bin/{program}", text, 0o700)
    return True


def tell(launch: Launch, seen: str, env: dict[str, str]) -> None:
    """Make programs use the wrapper, by variables; what the job itself says of them stays."""
    if launch.peers is None:
        return
    env["PATH"] = f"{seen}/bin:{env['PATH']}"
    for name, value in _SETTINGS.items():
        env.setdefault(name, value)


def config(peers: Peers, seen: str) -> str:
    """For `ssh -F`. Nothing of the account's own configuration holds for the ranks."""
    parts: list[str] = []
    taken: set[str] = set()
    for number, peer in enumerate(peers.ranks):
        names = [f"rank{number}", peer.name, peer.address]
        names = [name for name in dict.fromkeys(names) if name not in taken]
        taken.update(names)
        parts.append(_block(number, peer, names, seen))
    others = " ".join(f"!{name}" for name in sorted(taken))
    return "".join((*parts, _OTHERS.format(others=others)))


def _block(number: int, peer: Peer, names: list[str], seen: str) -> str:
    text = _PEER.format(
        names=" ".join(names),
        address=peer.address,
        port=peer.port,
        user=peer.user,
        alias=f"rank{number}",
        place=seen.replace("%", "%%"),
    )
    if not peer.problem:
        return text
    told = shlex.quote(f"moorage: rank {number} on node {peer.name}: {peer.problem}")
    # A shell of its own, which holds standard output: when that is closed, ssh ends the command.
    command = f"sh -c {shlex.quote(f'echo {told} >&2')}"
    return f"{text}ProxyCommand {command.replace('%', '%%')}\n"


def _write(path: str, text: str, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with open(os.open(path, flags, mode), "w") as file:
        file.write(text)
