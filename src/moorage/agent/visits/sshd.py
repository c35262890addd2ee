"""SSH to a job: the node's own OpenSSH server for one connection, on a stream instead of a port.
What it starts for the client becomes part of the job first. Standard library only (keeper).
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys

from moorage.agent.visits import ending, entering
from moorage.agent.visits.entering import Job, NotEntered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

PLACES = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/bin"
_NO_SERVER = (
    "this node has no OpenSSH server program (sshd); install the package openssh-server there "
    "(it need not run), or use `moorage exec`"
)
_PRIVATE = "/run/sshd"
"""Where a server that root started locks up the part of it that talks to strangers."""
_SFTP = "internal-sftp"
_SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/lib/sftp-server",
)
_NO_SFTP = (
    "there is no sftp-server in this job's image: install openssh-sftp-server in it, or copy with "
    "`scp -O`, rsync or tar"
)
_KEPT = ("TERM", "COLORTERM", "LANG", "SSH_TTY", "SSH_CONNECTION", "SSH_CLIENT", "SSH_AUTH_SOCK")
"""Variables of the connection, which the job's own do not replace."""
_SHELLS = ("bash", "sh")
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from moorage.agent.visits.sshd import session; session(sys.argv[2])"
)
_CONFIG = """\
HostKey {home}/host_key
AuthorizedKeysFile {home}/{name}.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
PermitRootLogin prohibit-password
PermitUserRC no
AllowAgentForwarding yes
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
X11Forwarding no
PrintMotd no
PrintLastLog no
UseDNS no
PidFile none
LogLevel ERROR
LoginGraceTime 30
AcceptEnv LANG LC_* COLORTERM
Subsystem sftp {sftp}
ForceCommand {command}
"""


def find_server() -> str | None:
    """The program, where there is one."""
    return shutil.which("sshd", path=PLACES)


def serve(job: Job, wanted: dict[str, Any], agent: socket.socket, ended: int) -> None:
    """Serve one connection; `ended` is readable when the job's process has ended. OSError,
    NotEntered."""
    server = find_server()
    if server is None:
        raise NotEntered(_NO_SERVER)
    home = os.path.join(job.directory, "ssh")
    os.makedirs(home, 0o700, exist_ok=True)
    key = _host_key(home)
    name = f"visit-{os.getpid()}"
    files = configure(job, home, name, wanted["public_key"])
    log = os.open(f"{home}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    ending.answer(agent, host_key=key)
    try:
        _serve([server, "-i", "-e", "-f", f"{home}/{name}.conf"], agent, log, ended)
    finally:
        for path in files:
            os.unlink(path)
        os.close(log)


def _serve(argv: list[str], agent: socket.socket, log: int, ended: int) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            for source, target in ((agent.fileno(), 0), (agent.fileno(), 1), (log, 2)):
                os.dup2(source, target)
            os.execve(argv[0], argv, {"PATH": PLACES})
        finally:
            os._exit(entering.NOT_STARTED)
    agent.close()  # its end is the server's to see
    poll = select.poll()
    for descriptor in (os.pidfd_open(pid), ended):
        poll.register(descriptor, select.POLLIN)
    if ended in dict(poll.poll()):
        ending.end_all(0.0)


def _host_key(home: str) -> str:
    """The public key that this attempt is known by, made with its private one when first needed.
    OSError, NotEntered."""
    path = f"{home}/host_key"
    if not os.path.exists(f"{path}.pub"):
        own = f"{path}.{os.getpid()}"
        done = subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "moorage", "-f", own],
            env={"PATH": PLACES},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done.returncode:
            raise NotEntered(f"ssh-keygen: {done.stderr.decode(errors='replace').strip()}")
        _adopt(own, path)
    with open(f"{path}.pub") as file:
        return " ".join(file.read().split()[:2])


def _adopt(own: str, path: str) -> None:
    """Several visits may begin at once: the first key is everybody's."""
    try:
        os.link(own, path)
        os.rename(f"{own}.pub", f"{path}.pub")
    except FileExistsError:
        os.unlink(f"{own}.pub")
    finally:
        os.unlink(own)


def configure(job: Job, home: str, name: str, public_key: str) -> list[str]:
    """Write what one server reads; the files. OSError."""
    if os.geteuid() == 0:
        os.makedirs(_PRIVATE, 0o755, exist_ok=True)
    told = {slot: getattr(job, slot) for slot in Job.__slots__}
    source = sys.path[0]
    command = [
        sys.executable,
        "-I",
        "-S",
        "-X",
        "utf8",
        "-c",
        _BOOT,
        source,
        f"{home}/{name}.json",
    ]
    texts = {
        f"{home}/{name}.json": json.dumps(told),
        f"{home}/{name}.pub": public_key.strip() + "\n",
        f"{home}/{name}.conf": _CONFIG.format(
            home=home, name=name, sftp=_SFTP, command=shlex.join(command)
        ),
    }
    for path, text in texts.items():
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "w") as file:
            file.write(text)
    return list(texts)


def session(path: str) -> NoReturn:
    """What the server starts in place of what the client asked for: that, in the job."""
    try:
        with open(path) as file:
            job = Job(json.load(file))
        asked = os.environ.get("SSH_ORIGINAL_COMMAND")
        env = job.environment()
        env |= {name: os.environ[name] for name in _KEPT if name in os.environ}
        env |= {name: text for name, text in os.environ.items() if name.startswith("LC_")}
        entering.enter(job)
        entering.execute(_program(asked, env), env)
    except (NotEntered, OSError) as error:
        entering.complain(str(error))
    os._exit(entering.NOT_ENTERED)


def _program(asked: str | None, env: dict[str, str]) -> list[str]:
    """The words to execute. NotEntered."""
    if asked == _SFTP:
        for path in _SFTP_SERVERS:
            if os.access(path, os.X_OK):
                return [path]
        raise NotEntered(_NO_SFTP)
    shell = _shell(env)
    return [shell] if asked is None else [shell, "-c", asked]


def _shell(env: dict[str, str]) -> str:
    own = env.get("SHELL", "")
    if own and os.access(own, os.X_OK):
        return own
    for name in _SHELLS:
        for place in env["PATH"].split(":"):
            if os.access(f"{place}/{name}", os.X_OK):
                return f"{place}/{name}"
    raise NotEntered("there is no shell in this job")
