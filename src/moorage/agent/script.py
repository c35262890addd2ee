"""The shell script of an attempt.

Commands run one after the other in one shell, so `cd` and `export` last; the first that fails ends
the script with its code, as if they were joined by `&&`. Each goes through `eval` as one quoted
word: comments, here-documents, trailing backslashes and syntax errors of one command cannot reach
the next, and each command's number is written down before it starts.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from moorage.agent.keeper.launching import JOIN

CANNOT_JOIN = 125
"""The script's exit code when it cannot enter the job's control group; nothing ran then."""


def compose(
    commands: Sequence[str], command_file: str | Path, process_memory: int | None = None
) -> str:
    """The text of the script. `command_file` gets the number of the running command, from 1;
    `process_memory`: bytes that each process may allocate, where no control group limits the job.
    """
    number = shlex.quote(str(command_file))
    lines = [
        f'if [ -n "${{{JOIN}-}}" ]; then',
        f'echo 0 > "${JOIN}" || exit {CANNOT_JOIN}',
        f"unset {JOIN}",
        "fi",
    ]
    if process_memory is not None:
        # RLIMIT_DATA: private memory that is written to. RLIMIT_AS would count what is only
        # mapped, and end whatever reserves much and uses little (CUDA, Java, Go).
        lines.append(f"ulimit -d {process_memory // 1024}")
    for position, command in enumerate(commands, start=1):
        if position > 1:
            # Not `eval ... || exit`: that would switch off a `set -e` inside the command.
            lines.append("case $? in 0) ;; *) exit ;; esac")
        # A full disk must not fail a command that would have run.
        lines.append(f"{{ echo {position} > {number}; }} 2>/dev/null")
        # A backslash at the very end continues on a line that is not there: dash would print it,
        # bash 5.2 would lose its place in the script.
        backslashes = len(command) - len(command.rstrip("\\"))
        lines.append(f"eval {shlex.quote(command[:-1] if backslashes % 2 else command)}")
    return "\n".join(lines) + "\n"
