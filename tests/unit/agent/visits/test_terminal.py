"""Terminals of commands, and how one is handed from process to process."""

from __future__ import annotations

import os
import socket

from moorage.agent.visits import terminal


def test_a_terminal_has_the_size_that_it_is_given() -> None:
    ours, theirs = terminal.make(33, 101)
    try:
        assert os.get_terminal_size(theirs) == (101, 33)
        terminal.resize(ours, 5, 6)
        assert os.get_terminal_size(theirs) == (6, 5)
    finally:
        os.close(ours)
        os.close(theirs)


def test_it_is_handed_over_or_there_is_none() -> None:
    ours, theirs = terminal.make(1, 1)
    here, there = socket.socketpair()
    with here, there:
        terminal.hand_over(there, ours)
        found = terminal.receive(here)
        assert os.path.sameopenfile(found, ours)
        assert not os.get_inheritable(found)
        there.sendall(b"x")
        assert terminal.receive(here) == -1
        there.close()
        assert terminal.receive(here) == -1
    for descriptor in (ours, theirs, found):
        os.close(descriptor)
