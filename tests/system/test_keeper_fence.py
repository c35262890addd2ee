"""The keeper ends what is fenced when the lease does, by its own clock and with no agent there."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from moorage.agent.keeper.fence import now
from moorage.agent.keeping import Keeper, SpawnError
from moorage.agent.verdict import outcome
from moorage.protocol.agent import Isolation
from system.keeper_harness import House, gone, modes, play

LONG = "sleep 1000"
NOTICED = 30.0
"""Seconds within which a busy machine runs the keeper."""


@pytest.fixture
def plain(tmp_path: Path) -> Isolation:
    return modes(tmp_path / "agent")["plain"]


async def _spawn(house: House, number: int, *, fenced: bool) -> int:
    request = house.request(house.launch(number, LONG))
    return await house.keeper.spawn(msgspec.structs.replace(request, fenced=fenced))


def test_what_is_fenced_ends_with_the_lease_though_the_agent_is_dead(
    tmp_path: Path, plain: Isolation
) -> None:
    async def scenario(house: House) -> None:
        house.keeper.renew(now() + 60)
        fenced = await _spawn(house, 1, fenced=True)
        stays = await _spawn(house, 2, fenced=False)
        until = now() + 1.0
        house.keeper.renew(until)
        await house.keeper.close()  # all that a keeper sees of the death of its agent
        assert await asyncio.to_thread(gone, fenced)
        assert until <= now() < until + NOTICED
        os.kill(stays, 0)
        house.keeper = Keeper(house.home, house._on_exit, house.lost.set)
        await house.keeper.connect()
        if "1.1.0" in await house.keeper.running():  # dead, and not reaped yet
            await house.end(1)
        ended = await house.keeper.ended()
        assert list(ended) == ["1.1.0"]
        assert ended["1.1.0"].cause == "fenced"
        assert outcome(house.launch(1, LONG), ended["1.1.0"]).kind == "node-lost"
        assert await house.keeper.stop("2.1.0", 0)
        await house.end(2)

    play(tmp_path / "agent", plain, scenario)


def test_renewing_keeps_it_alive_and_the_last_renewal_counts(
    tmp_path: Path, plain: Isolation
) -> None:
    async def scenario(house: House) -> None:
        house.keeper.renew(now() + 60)
        await _spawn(house, 1, fenced=True)
        house.keeper.renew(now() + 3.0)
        until = now() + 4.0
        house.keeper.renew(until)
        record = await house.end(1)
        assert now() >= until
        assert record.cause == "fenced"

    play(tmp_path / "agent", plain, scenario)


def test_nothing_fenced_starts_without_a_lease(tmp_path: Path, plain: Isolation) -> None:
    async def scenario(house: House) -> None:
        for until in (None, now() - 1):
            if until is not None:
                house.keeper.renew(until)
            with pytest.raises(SpawnError) as refused:
                await _spawn(house, 1, fenced=True)
            assert refused.value.step == "fence"
            assert not (house.directory(1) / "spawned.json").exists()
        house.keeper.renew(now() + 60)
        await _spawn(house, 1, fenced=True)
        assert await house.keeper.stop("1.1.0", 0)
        await house.end(1)

    play(tmp_path / "agent", plain, scenario)


def test_what_the_server_knows_of_is_fenced_no_longer(tmp_path: Path, plain: Isolation) -> None:
    async def scenario(house: House) -> None:
        house.keeper.renew(now() + 60)
        await _spawn(house, 1, fenced=True)
        freed = await _spawn(house, 2, fenced=True)
        house.keeper.unfence(["2.1.0", "77.1.0"])
        house.keeper.renew(now() + 0.5)
        assert (await house.end(1)).cause == "fenced"
        os.kill(freed, 0)
        assert list(await house.keeper.running()) == ["2.1.0"]
        assert await house.keeper.stop("2.1.0", 0)
        assert (await house.end(2)).cause == "stopped"

    play(tmp_path / "agent", plain, scenario)


def test_an_agent_that_is_back_too_late_does_not_save_it(tmp_path: Path, plain: Isolation) -> None:
    """The renewal overtakes the timer, as on a machine that slept for longer than its lease."""

    async def scenario(house: House) -> None:
        house.keeper.renew(now() + 60)
        await _spawn(house, 1, fenced=True)
        house.keeper.renew(now() - 1)
        house.keeper.renew(now() + 60)
        assert (await house.end(1)).cause == "fenced"

    play(tmp_path / "agent", plain, scenario)
