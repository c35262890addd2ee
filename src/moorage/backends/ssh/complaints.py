"""What ssh's own words mean, and what to do about it.

ssh ends with 255 whatever went wrong, so its last words on stderr are all there is. They have been
stable for many years; what is not known is passed on as it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from moorage.backends.ssh.interface import HostConfig, HostProblem
from moorage.backends.ssh.onhost.frame import NO_PYTHON, SHELL

NOT_SSH = 255
"""ssh's exit status for its own failures; any other is the remote command's."""
_Make = Callable[[HostConfig, re.Match[str]], HostProblem]


def explain(config: HostConfig, said: str) -> HostProblem:
    """The problem behind what ssh wrote to stderr before it ended with 255."""
    text = said.replace("\r", "")
    for pattern, make in _KNOWN:
        found = pattern.search(text)
        if found is not None:
            return make(config, found)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = lines[-1] if lines else "ssh ended without a word"
    return HostProblem(f"ssh to {where(config)} failed: {words}", _try(config), passing=True)


def explain_silence(config: HostConfig, status: int, out: str, said: str) -> HostProblem:
    """Why a login that worked did not run what it was told; `status` is the command's own."""
    place = where(config)
    if NO_PYTHON in out:
        return HostProblem(
            f"{place} has no Python that could run anything of ours",
            f"install python{sys.version_info.major}.{sys.version_info.minor} there (the same as "
            "the server's)",
        )
    if "sudo:" in said:
        return HostProblem(
            f"sudo on {place} wants more than it did: {_line(said, 'sudo:')}",
            "let this user use sudo without a password, or log in as root",
        )
    if SHELL in out:
        reason = _last(said) or f"it ended with status {status}"
        return HostProblem(f"the program for the check did not run on {place}: {reason}")
    heard = _last(said) or _last(out) or "nothing"
    return HostProblem(
        f"the login on {place} does not run what it is told (it says: {heard})",
        "it has a forced command, a restricted shell or none: give the user /bin/sh and its key "
        "no command=",
    )


def where(config: HostConfig) -> str:
    """`user@host:port` as far as it is set."""
    name = f"{config.user}@{config.hostname}" if config.user else config.hostname
    return f"{name}:{config.port}" if config.port else name


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _line(text: str, word: str) -> str:
    return next(line.partition(word)[2].strip() for line in text.splitlines() if word in line)


def _try(config: HostConfig, command: str = "ssh") -> str:
    port = f" -p {config.port}" if config.port else ""
    name = f"{config.user}@{config.hostname}" if config.user else config.hostname
    return f"try `{command}{port} {name}` as the server's user"


def _role(config: HostConfig, host: str) -> str:
    """The host by its part: the one to be reached, or one on the way."""
    bare = host.strip("[]")
    for place, jump in enumerate(config.jumps):
        if bare in (jump.hostname, f"moorage-jump-{place}"):
            if bare == config.hostname:
                return f"{bare} (the host or a jump of the same name)"
            return f"the jump host {jump.hostname}"
    return config.hostname if bare == config.hostname else bare


def _denied(config: HostConfig, found: re.Match[str]) -> HostProblem:
    host = _role(config, found["host"])
    methods = found["methods"]
    key = _key_of(config, found["host"])
    if "publickey" not in methods:
        cause = f"{host} takes no keys for {found['user']} (it offers: {methods})"
        return HostProblem(cause, "allow PubkeyAuthentication there; passwords are never asked")
    if config.identity_file or key:
        cause = f"{host} refuses the key {key or config.identity_file} for {found['user']}"
    else:
        cause = f"{host} refuses every key of the server's user for {found['user']}"
    return HostProblem(
        cause,
        "put the public key into that user's authorized_keys, or correct user and identity_file",
    )


def _key_of(config: HostConfig, host: str) -> str:
    for place, jump in enumerate(config.jumps):
        if host.strip("[]") in (jump.hostname, f"moorage-jump-{place}"):
            return jump.identity_file
    return config.identity_file if host == config.hostname else ""


def _unknown_key(config: HostConfig, found: re.Match[str]) -> HostProblem:
    host, port = _split(found["host"])
    flag = f" -p {port}" if port else ""
    return HostProblem(
        f"the {found['kind']} key of {_role(config, host)} is not known here",
        f"check it and run: ssh-keyscan{flag} {host} >> ~/.ssh/known_hosts "
        "(or set host_key: accept-new)",
    )


def _changed_key(config: HostConfig, found: re.Match[str]) -> HostProblem:
    host, port = _split(found["host"])
    name = f"'[{host}]:{port}'" if port else host
    file = f" -f {found['file']}" if found["file"] else ""
    return HostProblem(
        f"the {found['kind']} key of {_role(config, host)} is not the one that was known "
        f"(now {found['fingerprint']}): it was installed anew, or somebody listens in",
        f"if it was installed anew: ssh-keygen -R {name}{file}, then apply again",
    )


def _split(host: str) -> tuple[str, str]:
    """`[host]:port` or `host`."""
    found = re.fullmatch(r"\[(.+)\]:(\d+)", host)
    return (found[1], found[2]) if found else (host, "")


def _connect(config: HostConfig, found: re.Match[str]) -> HostProblem:
    host, port, reason = _role(config, found["host"]), found["port"], found["reason"].lower()
    if "refused" in reason:
        return HostProblem(
            f"{host} refuses connections on port {port}",
            "is sshd running there, on this port?",
            passing=True,
        )
    if "timed out" in reason:
        return HostProblem(
            f"{host} does not answer on port {port}",
            "is it up, and does a firewall or a jump host lie between?",
            passing=True,
        )
    return HostProblem(
        f"{host} cannot be reached on port {port}: {reason}",
        "check the network between the server and it",
        passing=True,
    )


def _no_name(config: HostConfig, found: re.Match[str]) -> HostProblem:
    return HostProblem(
        f"the name of {_role(config, found['host'])} is not known to the server's machine",
        "correct hostname, or write the address",
        passing="temporary" in found[0].lower(),
    )


def _beyond(config: HostConfig, found: re.Match[str]) -> HostProblem:
    # Each ssh on this side of the one that failed hears that its connection is closed.
    left = max(1, found.string.count("_exchange_identification: "))
    way = [jump.hostname for jump in config.jumps] or ["of ~/.ssh/config"]
    failing = max(0, len(way) - left)
    beyond = [*way[1:], where(config)][failing]
    return HostProblem(
        f"the jump host {way[failing]} cannot connect to {beyond}: {found['reason'].lower()}",
        "is it up and sshd running, and may the jump host forward (AllowTcpForwarding)?",
        passing="prohibited" not in found["reason"],
    )


def _closed(config: HostConfig, found: re.Match[str]) -> HostProblem:
    way = f" through {config.jumps[-1].hostname}" if config.jumps else ""
    return HostProblem(
        f"{where(config)} closes the connection{way} before the greeting",
        "is it an sshd, does it let this machine in (MaxStartups, hosts.deny, fail2ban)?",
        passing=True,
    )


def _silent(config: HostConfig, found: re.Match[str]) -> HostProblem:
    # Each ssh to a host behind the silent one hears that its connection is closed.
    behind = found.string.count("_exchange_identification: ")
    way = [f"the jump host {jump.hostname}" for jump in config.jumps] + [where(config)]
    silent = max(0, len(way) - 1 - behind)
    if silent:
        return HostProblem(
            f"{way[silent]} does not answer through {way[silent - 1]}",
            "is it up, its sshd running, and does no firewall lie between the two?",
            passing=True,
        )
    return HostProblem(
        f"{way[0]} takes connections and then does not answer",
        "is it overloaded, frozen or no sshd?",
        passing=True,
    )


def _algorithms(config: HostConfig, found: re.Match[str]) -> HostProblem:
    return HostProblem(
        f"ssh and {where(config)} have no {found['what']} in common (it has {found['theirs']})",
        f"update sshd there, or allow it in ~/.ssh/config for Host {config.hostname}",
    )


def _many(config: HostConfig, _found: re.Match[str]) -> HostProblem:
    return HostProblem(
        f"{where(config)} ended the login after too many keys",
        "name the right one as identity_file",
    )


def _broken(config: HostConfig, _found: re.Match[str]) -> HostProblem:
    return HostProblem(
        f"the connection to {where(config)} broke",
        "it went down, or the network in between did",
        passing=True,
    )


def _setting(config: HostConfig, found: re.Match[str]) -> HostProblem:
    return HostProblem(
        f"ssh does not accept its configuration: {found[0].strip()}",
        "correct ~/.ssh/config of the server's user",
    )


_KNOWN: tuple[tuple[re.Pattern[str], _Make], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), make)
    for pattern, make in (
        (
            r"The fingerprint for the (?P<kind>\S+) key sent by the remote host is\s+"
            r"(?P<fingerprint>\S+?)\.?\n(?:.*\n)*?"
            r"(?:Offending \S+ key in (?P<file>.+):\d+\n(?:.*\n)*?)?"
            r"Host key for (?P<host>\S+) has changed",
            _changed_key,
        ),
        (r"No (?P<kind>\S+) host key is known for (?P<host>\S+) and", _unknown_key),
        (
            r"(?P<user>\S+)@(?P<host>\S+): Permission denied \((?P<methods>[^)]*)\)",
            _denied,
        ),
        (r"Too many authentication failures", _many),
        (
            r"connect to host (?P<host>\S+) port (?P<port>\d+): (?P<reason>.+)$",
            _connect,
        ),
        (r"Could not resolve hostname (?P<host>\S+): .*$", _no_name),
        (r"open failed: (?:connect failed: )?(?P<reason>.+?)(?:: open failed)?$", _beyond),
        (
            r"no matching (?P<what>.+?) found\. Their offer: (?P<theirs>.+)$",
            _algorithms,
        ),
        (
            r"Connection timed out during banner exchange|Connection to \S+ port \d+ timed out",
            _silent,
        ),
        (r"kex_exchange_identification|Connection closed by|Connection reset by", _closed),
        (r"(?i)broken pipe|timeout, server .* not responding|Connection to \S+ closed", _broken),
        (r"^.* line \d+: .+$|^.*Bad owner or permissions.*$", _setting),
    )
)
