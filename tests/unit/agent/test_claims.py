from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from moorage.agent.claims import JOURNAL, Claims
from moorage.protocol.agent import Launch, Outcome, Report, Usage, encode


def launch(job: int = 1, **more: object) -> Launch:
    return Launch(
        run=1, run_name="r", user="u", job=job, index=0, attempt=1, commands=["true"], **more
    )


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    made = Claims(tmp_path / "attempts")
    made.read()
    return made


def reread(claims: Claims) -> Claims:
    claims.close()
    again = Claims(claims.root)
    again.read()
    return again


def test_a_key_is_claimed_once_even_across_restarts(claims: Claims) -> None:
    assert claims.take(launch()) is not None
    assert claims.take(launch()) is None
    assert reread(claims).take(launch()) is None


def test_a_claim_is_private_and_keeps_the_launch(claims: Claims) -> None:
    claim = claims.take(launch(env={"TOKEN": "secret"}))
    assert claim is not None
    assert claim.directory.stat().st_mode & 0o777 == 0o700
    assert (claim.directory / "launch.msgpack").stat().st_mode & 0o777 == 0o600
    again = reread(claims).get("1.1.0")
    assert again is not None
    assert again.launch == claim.launch


def test_phases_are_read_back(claims: Claims) -> None:
    claim = claims.take(launch())
    assert claim is not None
    claim.begin("claim")
    claim.end("claim")
    claim.begin("fetch")
    claim.end("fetch", "3 files")
    claim.begin("mount")
    again = reread(claims).get("1.1.0")
    assert again is not None
    assert again.phases == claim.phases
    assert again.ended("fetch")
    assert not again.ended("mount")
    assert again.phases[1].detail == "3 files"
    assert again.state == "staging"


def test_a_repeated_phase_replaces_the_interrupted_one(claims: Claims) -> None:
    claim = claims.take(launch())
    assert claim is not None
    claim.begin("fetch")
    claim.begin("fetch")
    assert len(claim.phases) == 1


def test_a_torn_last_line_is_as_if_never_written(claims: Claims) -> None:
    claim = claims.take(launch())
    assert claim is not None
    claim.begin("claim")
    claim.end("claim")
    with open(claim.directory / JOURNAL, "ab") as file:
        file.write(b'\n{"at": 12, "pha')
    claims = reread(claims)
    again = claims.get("1.1.0")
    assert again is not None
    assert [phase.name for phase in again.phases] == ["claim"]
    again.begin("fetch")
    third = reread(claims).get("1.1.0")
    assert third is not None
    assert [phase.name for phase in third.phases] == ["claim", "fetch"]


def test_a_claim_without_a_launch_is_still_a_claim(claims: Claims) -> None:
    (claims.root / "7.1.0").mkdir()
    (claims.root / "not-a-key").mkdir()
    again = reread(claims)
    held = again.get("7.1.0")
    assert held is not None
    assert held.launch is None
    assert [held.key for held in again.held()] == ["7.1.0"]


def test_any_file_name_can_be_told(claims: Claims) -> None:
    claim = claims.take(launch())
    assert claim is not None
    claim.begin("clean")
    claim.end("clean", "\udcff cannot be removed")
    claim.decide(Outcome("phase-failed", phase="fetch", message="\udcff has vanished"))
    assert claim.outcome is not None
    claim.finish(claim.outcome)
    held = claim.held()
    assert held.outcome is not None
    assert held.outcome.message == "\\udcff has vanished"
    assert held.phases[0].detail == "\\udcff cannot be removed"
    encode(Report(1, [held]))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_what_is_mounted_in_a_claim_survives_its_removal(claims: Claims, tmp_path: Path) -> None:
    claim = claims.take(launch())
    assert claim is not None
    claim.finish(Outcome("exited", 0))
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").touch()
    place = claim.directory / "work" / "here"
    place.mkdir(parents=True)
    subprocess.run(["mount", "--bind", precious, place], check=True)
    try:
        claims.forget(claim.key)
        assert (precious / "data").exists()
    finally:
        subprocess.run(["umount", place], check=True)


def test_the_end_survives_and_only_an_ended_claim_is_forgotten(claims: Claims) -> None:
    claim = claims.take(launch())
    assert claim is not None
    claims.forget("1.1.0")
    assert claim.directory.exists()
    claim.usage = Usage(1.5, 1024)
    claim.decide(Outcome("exited", exit_code=3))
    claim.finish(Outcome("exited", exit_code=3))
    claims = reread(claims)
    again = claims.get("1.1.0")
    assert again is not None
    assert again.held().state == "done"
    assert again.outcome == Outcome("exited", exit_code=3)
    assert again.usage == Usage(1.5, 1024)
    claims.forget("1.1.0")
    claims.forget("1.1.0")
    assert not again.directory.exists()
    assert claims.held() == []


def test_a_decided_outcome_is_known_before_the_end(claims: Claims) -> None:
    claim = claims.take(launch())
    assert claim is not None
    claim.decide(Outcome("phase-failed", phase="fetch", message="no such blob"))
    again = reread(claims).get("1.1.0")
    assert again is not None
    assert again.outcome is not None
    assert again.outcome.message == "no such blob"
    assert again.state == "staging"


def test_lines_that_nothing_depends_on_wait_for_one_that_must_be_there(claims: Claims) -> None:
    claim = claims.take(launch())
    assert claim is not None
    claim.begin("claim", at_once=False)
    claim.end("claim", at_once=False)
    assert not (claim.directory / JOURNAL).exists()
    claim.begin("run")
    again = reread(claims).get("1.1.0")
    assert again is not None
    assert again.phases == claim.phases


def test_claims_come_back_in_order_of_their_numbers(claims: Claims) -> None:
    for job in (10, 9, 100):
        claims.take(launch(job))
    assert [held.key for held in reread(claims).held()] == ["9.1.0", "10.1.0", "100.1.0"]
