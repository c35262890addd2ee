"""The real command as processes, plain or under a pseudo-terminal, over a server of its own."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from system.keeper_harness import gone, keeper_pid

COMMAND = [sys.executable, "-m", "moorage"]
PATIENCE = 120.0


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass
class Command:
    """`moorage` with one MOORAGE_HOME; its server is started by the first call that needs it."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
        return {**kept, "MOORAGE_HOME": str(self.home), "TERM": "xterm", **self.variables}

    def __call__(self, *arguments: str, stdin: str = "", cwd: Path | None = None) -> Result:
        done = subprocess.run(
            [*COMMAND, *arguments],
            input=stdin,
            env=self.environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def on_terminal(self, *arguments: str, columns: int = 80) -> Terminal:
        environment = {**self.environment, "COLUMNS": str(columns), "LINES": "24"}
        return Terminal([*COMMAND, *arguments], environment)

    def end(self) -> None:
        """Stop the server; its agent and, because no job runs any more, the keeper end with it."""
        agent = self.home / "agent"
        keeper = keeper_pid(agent) if (agent / "keeper.sock").exists() else 0
        self("server", "stop")
        assert not keeper or gone(keeper)  # the agent waits less than a second for it
        assert not (agent / "keeper.sock").exists()


class Terminal:
    """A process whose three streams are one pseudo-terminal."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._screen, inside = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=environment,
            start_new_session=True,
        )
        os.close(inside)
        self.text = ""

    def expect(self, wanted: str) -> str:
        """Read until `wanted` is on the screen; all that was read."""
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.text:
            left = deadline - time.monotonic()
            readable, _, _ = select.select([self._screen], [], [], max(0, left))
            assert readable, f"{wanted!r} did not come; got {self.text!r}"
            assert self._read(), f"ended without {wanted!r}; got {self.text!r}"
        return self.text

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def end(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        try:
            data = os.read(self._screen, 65_536)
        except OSError:  # EIO: nobody has the other side open any more
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._screen)
