"""The fingerprint of a host key that ssh does not know, so that a user can compare it."""

from __future__ import annotations

import asyncio
import re

from moorage.backends.ssh.interface import HostConfig, HostProblem

_PATIENCE = 8.0
_UNKNOWN = re.compile(r"No (?P<kind>\S+) host key is known for (?P<host>\S+) and")


async def with_fingerprint(config: HostConfig, problem: HostProblem, said: str) -> HostProblem:
    """The same problem with the fingerprint where it is about an unknown key. That is asked for
    with ssh-keyscan, which knows no jump hosts: behind one there is none to be shown."""
    found = _UNKNOWN.search(said)
    if found is None:
        return problem
    bracketed = re.fullmatch(r"\[(.+)\]:(\d+)", found["host"])
    host, port = (bracketed[1], bracketed[2]) if bracketed else (found["host"], "22")
    if config.jumps and host == config.hostname:
        return problem
    shown = await _scan(host, port, found["kind"].lower())
    if not shown:
        return problem
    return HostProblem(f"{problem.cause} (fingerprint {shown})", problem.fix)


async def _scan(host: str, port: str, kind: str) -> str:
    keys = await _run("ssh-keyscan", "-T", "5", "-t", kind, "-p", port, "--", host)
    words = (await _run("ssh-keygen", "-l", "-f", "-", stdin=keys)).split() if keys else []
    return words[1].decode() if len(words) > 1 else ""


async def _run(*argv: str, stdin: bytes = b"") -> bytes:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return b""
    try:
        async with asyncio.timeout(_PATIENCE):
            out, _ = await process.communicate(stdin)
    except TimeoutError:
        return b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out
