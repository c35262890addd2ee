"""The terminal is given back as it was, however the command ends."""

from __future__ import annotations

import os
import termios

import pytest

from moorage.cli.screen import raw


def test_it_is_raw_within_and_as_before_behind() -> None:
    ours, theirs = os.openpty()
    try:
        before = termios.tcgetattr(theirs)
        with pytest.raises(KeyboardInterrupt), raw(theirs):
            assert not termios.tcgetattr(theirs)[3] & (termios.ICANON | termios.ECHO)
            assert not termios.tcgetattr(theirs)[3] & termios.ISIG
            raise KeyboardInterrupt
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)
