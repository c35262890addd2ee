"""One host reached by a real ssh: from the first look to nothing left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from moorage.backends.ssh import bundle, install
from moorage.backends.ssh import config as config_module
from moorage.backends.ssh.bundle import Bundles
from moorage.backends.ssh.interface import Bundle, Enrolment, HostProblem, Jump
from system.servers import Server, serving
from system.ssh_harness import (
    PATIENCE,
    config,
    leftovers,
    processes,
    reaching,
    tunnelled,
)
from testbed.bed import Bed, bed_of
from testbed.host import Host
from testbed.shape import ACCOUNT, Shape
from tls import tls_listener

pytestmark = pytest.mark.root

GATE = "mkfifo -m 666 /srv/up /srv/down"


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with bed_of([Shape(), Shape(user=ACCOUNT), Shape(user=ACCOUNT, sudo=True)]) as made:
        yield made


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundles(tmp_path_factory.mktemp("bundles")).make()


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """As another version of moorage would make it."""
    given = bundle.contents

    def changed() -> Iterator[tuple[str, bytes]]:
        yield from given()
        yield "moorage/agent/newer.py", b""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "contents", changed)
        return Bundles(tmp_path_factory.mktemp("newer")).make()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    home = tmp_path / "server"
    home.mkdir()
    with serving(home) as made:
        yield made


def enrolment(server: Server) -> Enrolment:
    return Enrolment(node="lab-0", token=server.node_token, urls=())


async def inside(host: Host, command: str) -> str:
    done = await asyncio.to_thread(host.inside, "sh", "-c", command)
    return done.stdout


async def ended(server: Server, number: int) -> str:
    path = f"/v1/runs/{number}/wait?timeout={PATIENCE:.0f}"
    view = await asyncio.to_thread(server.call, "GET", path)
    state: str = view.json["summary"]["state"]
    return state


@pytest.mark.parametrize("name", ["h1", "h2", "h3"])
def test_an_agent_lives_through_kills_and_upgrades_and_leaves_nothing(
    bed, packed, newer, server, tmp_path, name
):
    """As root, as a user, and as a user with sudo."""
    there = bed[name]

    async def story() -> None:
        async with reaching(config(bed, there), tmp_path) as host:
            facts = await host.check()
            assert facts.installed == facts.running == ""
            await host.install(facts, packed)
            await host.start(facts, packed, enrolment(server))
            async with tunnelled(host, facts, server):
                await inside(there, GATE)
                gate = ["echo here >/srv/up", "cat /srv/down"]
                number = server.submit(commands=gate)
                assert await inside(there, "cat /srv/up") == "here\n"

                await kill_agent(there, facts.directory)
                after = server.submit("s", commands=["true"])
                assert await ended(server, after) == "succeeded"

                await host.install(facts, newer)
                await host.start(facts, newer, enrolment(server))
                after = server.submit("t", commands=["true"])
                assert await ended(server, after) == "succeeded"
                known = await host.check()
                assert known.installed == known.running == newer.digest

                await inside(there, "echo go >/srv/down; rm /srv/up /srv/down")
                assert await ended(server, number) == "succeeded"

                # The keeper, which is of the old version and has nothing to do, goes.
                await inside(there, "pkill -9 -f [m]oorage.agent.keeper")
                await host.start(facts, newer, enrolment(server))
                versions = await inside(there, f"ls {facts.directory}/versions")
                assert versions.split() == [newer.digest]

                await inside(there, "mkfifo -m 666 /srv/up")
                server.submit("u", commands=["echo here >/srv/up", "sleep 1000"])
                assert await inside(there, "cat /srv/up; rm /srv/up") == "here\n"
                await host.remove(facts)
            await host.remove(facts)
            assert leftovers(there) == []
            assert "sleep 1000" not in await inside(there, "ps -eww -o args | grep -v grep")

    asyncio.run(story())


async def kill_agent(there: Host, directory: str) -> None:
    await inside(there, f"kill -9 $(cat {directory}/home/agent/lock)")


def test_a_second_start_changes_nothing_and_a_stop_leaves_the_files(bed, packed, server, tmp_path):
    there = bed["h1"]

    async def story() -> None:
        async with reaching(config(bed, there), tmp_path) as host:
            facts = await host.check()
            await host.install(facts, packed)
            await host.start(facts, packed, enrolment(server))
            # Not who is called so: a supervisor's child is, before it becomes the agent.
            kept = f"cat {facts.directory}/supervisor"
            pid = await inside(there, kept)
            await host.start(facts, packed, enrolment(server))
            assert await inside(there, kept) == pid
            assert "supervisor" in await inside(there, f"ps -ww -o args= -p {pid}")
            await host.stop(facts)
            known = await host.check()
            assert (known.installed, known.running) == (packed.digest, "")
            assert not [line for line in processes(there) if "supervisor" in line]
            await host.remove(facts)
            assert leftovers(there) == []

    asyncio.run(story())


def test_a_tunnel_comes_back_and_a_killed_server_leaves_none(bed, packed, server, tmp_path):
    there = bed["h2"]

    async def story() -> None:
        async with reaching(config(bed, there), tmp_path) as host:
            facts = await host.check()
            await host.install(facts, packed)
            await host.start(facts, packed, enrolment(server))
            address = f"{facts.directory}/address"
            async with tunnelled(host, facts, server) as told:
                first = await inside(there, f"cat {address}")
                await inside(there, f"pkill -f -u {ACCOUNT} 'sshd: {ACCOUNT}@notty'")
                assert "broke" in await told.broke()
                await told.stands()
                second = await inside(there, f"cat {address}")
                assert first.split()[0] != second.split()[0]
                number = server.submit(commands=["true"])
                assert await ended(server, number) == "succeeded"
            await host.remove(facts)
            assert leftovers(there) == []

    asyncio.run(story())


def test_a_host_that_was_cut_off_is_back_as_soon_as_its_tunnel(
    bed, packed, server, tmp_path, monkeypatch
):
    there = bed["h1"]
    monkeypatch.setattr(config_module, "ALIVE_INTERVAL", 1)
    monkeypatch.setattr(config_module, "ALIVE_COUNT", 2)
    monkeypatch.setattr(config_module, "CONNECT_TIMEOUT", 2)

    async def story() -> None:
        async with reaching(config(bed, there), tmp_path) as host:
            facts = await host.check()
            await host.install(facts, packed)
            await host.start(facts, packed, enrolment(server))
            async with tunnelled(host, facts, server) as told:
                number = server.submit(commands=["true"])
                assert await ended(server, number) == "succeeded"
                bed.cut(there)
                assert "broke" in await told.broke()
                bed.heal()
                await told.stands()
                # The agent's old connection knows nothing of it.
                number = server.submit("s", commands=["true"])
                assert await ended(server, number) == "succeeded"
            await host.remove(facts)
            assert leftovers(there) == []

    asyncio.run(story())


def test_a_check_tells_what_can_be_reached(bed, tmp_path):
    here = bed.here.address
    with tls_listener(here) as (port, ca), tls_listener(here) as (others, _):
        good = f"https://{here}:{port}"
        bad = [f"https://{here}:1", f"https://{here}:{others}"]

        async def look() -> None:
            async with reaching(config(bed, bed["h3"]), tmp_path) as host:
                facts = await host.check([good, *bad], ca)
            assert facts.reaches == (good,)
            assert facts.hostname == "h3"
            assert (facts.user, facts.privilege) == (ACCOUNT, "sudo")
            assert facts.addresses == (bed["h3"].address,)
            assert abs(facts.clock_offset) <= facts.clock_error + 0.05
            assert msgspec.json.decode(msgspec.json.encode(facts), type=type(facts)) == facts

        asyncio.run(look())


def test_a_chain_of_jump_hosts_with_keys_of_their_own(bed, tmp_path):
    """h1 is reached through h2 and h3 only."""
    key = tmp_path / "key of the jump"
    key.write_bytes(bed.key.read_bytes())
    key.chmod(0o600)
    jumps = tuple(
        Jump(hostname=bed[name].address, user=ACCOUNT, identity_file=str(key))
        for name in ("h2", "h3")
    )
    bed.partition(bed.here, [bed["h1"], bed["h3"]])
    try:

        async def look() -> str:
            way = config(bed, bed["h1"], jumps=jumps)
            async with reaching(way, tmp_path) as host:
                return (await host.check()).hostname

        assert asyncio.run(look()) == "h1"
    finally:
        bed.heal()


def test_a_bundle_that_breaks_off_leaves_no_half_version(bed, packed, tmp_path):
    there = bed["h1"]
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(packed.path.read_bytes()[: packed.size // 2])

    async def story() -> None:
        async with reaching(config(bed, there), tmp_path) as host:
            facts = await host.check()
            with pytest.raises(HostProblem, match="arrived damaged"):
                await host.install(facts, msgspec.structs.replace(packed, path=cut))
            assert await inside(there, f"ls {facts.directory}/versions") == ""
            await host.install(facts, packed)
            await host.remove(facts)

    asyncio.run(story())


def test_an_install_that_is_cancelled_can_be_repeated(bed, packed, tmp_path, monkeypatch):
    there = bed["h1"]
    half = asyncio.Event()

    async def slowly(path: Path) -> AsyncIterator[bytes]:
        yield path.read_bytes()[: packed.size // 2]
        half.set()
        await asyncio.Event().wait()

    async def story() -> None:
        async with reaching(config(bed, there), tmp_path) as host:
            facts = await host.check()
            with monkeypatch.context() as patch:
                patch.setattr(install, "read_file", slowly)
                task = asyncio.create_task(host.install(facts, packed))
                await half.wait()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await host.install(facts, packed)
            assert (await inside(there, f"ls {facts.directory}/versions")).split() == [
                packed.digest
            ]
            await host.remove(facts)
            assert leftovers(there) == []

    asyncio.run(story())


def test_installs_at_the_same_time_make_one_version(bed, packed, tmp_path):
    there = bed["h1"]

    async def story() -> None:
        async with (
            reaching(config(bed, there), tmp_path / "a") as one,
            reaching(config(bed, there), tmp_path / "b") as other,
        ):
            facts = await one.check()
            await asyncio.gather(one.install(facts, packed), other.install(facts, packed))
            assert (await one.check()).installed == ""  # nothing was started yet
            await one.start(facts, packed, Enrolment(node="n", token="t", urls=()))
            assert (await other.check()).installed == packed.digest
            await one.remove(facts)
            assert leftovers(there) == []

    asyncio.run(story())


def test_a_full_disk_is_told_and_nothing_is_left(bed, packed, tmp_path):
    there = bed["h1"]
    mount = "mkdir -p /var/lib/moorage/s1 && mount -t tmpfs -o size=2m tmpfs /var/lib/moorage/s1"

    async def story() -> None:
        await inside(there, mount)
        async with reaching(config(bed, there), tmp_path) as host:
            facts = await host.check()
            refusal = facts.refusal()
            assert refusal is not None
            assert "MiB free of" in refusal.cause
            brave = msgspec.structs.replace(facts, cannot=())
            with pytest.raises(HostProblem, match="the disk is full"):
                await host.install(brave, packed)
            assert await inside(there, "ls /var/lib/moorage/s1/versions") == ""
        await inside(there, "umount /var/lib/moorage/s1; rm -r /var/lib/moorage")

    asyncio.run(story())


def test_a_call_on_a_frozen_host_ends(bed, tmp_path, monkeypatch):
    there = bed["h3"]
    monkeypatch.setattr(config_module, "ALIVE_INTERVAL", 1)
    monkeypatch.setattr(config_module, "ALIVE_COUNT", 2)
    monkeypatch.setattr(config_module, "CONNECT_TIMEOUT", 2)

    async def story() -> None:
        async with reaching(config(bed, there), tmp_path) as host:
            facts = await host.check()
            bed.freeze(there)
            try:
                with pytest.raises(HostProblem) as caught:
                    async with asyncio.timeout(PATIENCE):
                        await host.tail(facts)
            finally:
                bed.thaw(there)
            assert caught.value.passing
            assert (await host.check()).hostname == "h3"

    asyncio.run(story())


def test_what_is_written_for_ssh_is_gone_afterwards(bed, tmp_path, monkeypatch):
    # Of its own, and short, as a socket's address has to be.
    with TemporaryDirectory(prefix="m") as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", place)

        async def look() -> None:
            async with reaching(config(bed, bed["h1"]), tmp_path) as host:
                await host.check()
                (made,) = Path(place).iterdir()
                assert made.stat().st_mode & 0o777 == 0o700

        asyncio.run(look())
        assert list(Path(place).iterdir()) == []


def test_systemd_keeps_an_agent_over_kills_and_reboots(packed, server, tmp_path):
    async def story(bed: Bed) -> None:
        there = bed["h1"]
        async with reaching(config(bed, there), tmp_path) as host:
            facts = await host.check()
            assert facts.init == "system"
            await host.install(facts, packed)
            await host.start(facts, packed, enrolment(server))
            async with tunnelled(host, facts, server):
                await inside(there, GATE)
                gate = ["echo here >/srv/up", "cat /srv/down"]
                number = server.submit(commands=gate)
                assert await inside(there, "cat /srv/up") == "here\n"
                await kill_agent(there, facts.directory)
                await host.start(facts, packed, changed(enrolment(server)))
                await inside(there, "echo go >/srv/down")
                assert await ended(server, number) == "succeeded"
                assert "connected to" in "\n".join(await host.tail(facts))
            await asyncio.to_thread(bed.kill, there)
            await asyncio.to_thread(bed.start, there)
            async with tunnelled(host, facts, server):
                number = server.submit("s", commands=["true"])
                assert await ended(server, number) == "succeeded"
            await host.remove(facts)
            assert leftovers(there) == []
            units = await inside(there, "ls /etc/systemd/system | grep moorage; true")
            assert units == ""

    with bed_of([Shape(systemd=True)]) as bed:
        asyncio.run(story(bed))


def changed(given: Enrolment) -> Enrolment:
    return msgspec.structs.replace(given, options=("--log-limit", "1000000"))
