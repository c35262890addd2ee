"""Running out of memory below a version 1 control group. Standard library only (keeper)."""

from __future__ import annotations

import os


class OomCount:
    """How often memory ran out in a v1 group and those below it, whose own counts go with them."""

    __slots__ = ("_directory", "_event", "_found")

    def __init__(self, directory: str) -> None:
        self._directory, self._found = directory, 0
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                with open(f"{directory}/cgroup.event_control", "w") as file:
                    file.write(f"{self._event} {control}")
            finally:
                os.close(control)
        except OSError:
            os.close(self._event)
            self._event = -1
            raise

    def __del__(self) -> None:
        if self._event >= 0:
            os.close(self._event)

    def read(self) -> int:
        """So far."""
        try:
            if os.access(self._directory, os.F_OK):  # else it tells that the group went
                self._found += os.eventfd_read(self._event)
        except BlockingIOError:
            pass
        return self._found
