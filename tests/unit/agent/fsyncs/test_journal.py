"""What a clerk leaves to the next one."""

from __future__ import annotations

import os

from moorage.agent.fsyncs.calls import FDATASYNC, FSYNC, Call
from moorage.agent.fsyncs.journal import Journal


def test_what_was_noted_is_found_again() -> None:
    descriptor = os.memfd_create("calls")
    try:
        journal = Journal(descriptor)
        assert list(journal.entries()) == []
        calls = [Call(2**63 + number, number, FSYNC, (7, 0)) for number in range(4)]
        places = []
        for call in calls[:3]:
            journal.note(call)
            places.append(journal.keep(call))
        journal.release(places[1])
        journal.note(Call(9, 9, FDATASYNC, (2**32 - 1,)))
        found = [(call.id, call.name, call.arguments[0]) for call in Journal(descriptor).entries()]
        assert found == [(9, FDATASYNC, 2**32 - 1), *((call.id, FSYNC, 7) for call in calls[:3])]
        assert journal.keep(calls[3]) == places[1]
    finally:
        os.close(descriptor)


def test_a_successor_writes_over_nothing_that_may_wait() -> None:
    descriptor = os.memfd_create("calls")
    try:
        Journal(descriptor).keep(Call(1, 1, FSYNC, (3,)))
        for _ in range(3):
            later = Journal(descriptor)
            later.settle({1, 2})
            later.note(Call(3, 1, FSYNC, (3,)))
            later.release(later.keep(Call(2, 1, FSYNC, (3,))))
            assert {call.id for call in later.entries()} == {1, 2, 3}
        assert len(list(later.entries())) == 4
    finally:
        os.close(descriptor)
