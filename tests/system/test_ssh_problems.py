"""What goes wrong on the way to a host, as the system's ssh and real hosts say it: one line of
cause, one of fix, within the deadline."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.backends.ssh import config as config_module
from moorage.backends.ssh import connection
from moorage.backends.ssh.interface import HostConfig, HostProblem, Jump, Knocked
from moorage.backends.ssh.knock import EVERY_BEYOND
from system.ssh_harness import behind, config, problem, reaching
from testbed.bed import Bed, bed_of
from testbed.host import Host
from testbed.shape import ACCOUNT, Shape

pytestmark = pytest.mark.root

HOME = f"/home/{ACCOUNT}"


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with bed_of([Shape(user=ACCOUNT), Shape(), Shape(python=False)]) as made:
        yield made


@pytest.fixture
def way(bed: Bed) -> HostConfig:
    return config(bed, bed["h1"])


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A key that nobody knows."""
    path = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def told(found: HostProblem, *words: str) -> None:
    text = str(found)
    assert "\n" not in text
    assert found.fix
    for word in words:
        assert word in text


def knock(way: HostConfig, directory: Path, own: Path | None) -> Knocked | None:
    """`own` stands for the user's configuration."""

    async def asked() -> Knocked | None:
        async with reaching(way, directory) as host:
            return await host.answers()

    with pytest.MonkeyPatch.context() as patch:
        if own is not None:
            made = config_module.config_text
            patch.setattr(
                config_module,
                "config_text",
                lambda *args: made(*args).replace("~/.ssh/config", str(own)),
            )
        return asyncio.run(asked())


def test_a_key_that_is_refused(way, stranger, tmp_path):
    found = problem(behind(way, identity_file=str(stranger)), tmp_path)
    told(found, f"{way.hostname} refuses the key {stranger} for {ACCOUNT}", "authorized_keys")
    assert not found.passing


def test_a_key_file_that_is_not_there(way, tmp_path):
    found = problem(behind(way, identity_file=str(tmp_path / "none")), tmp_path)
    told(found, f"the key file {tmp_path}/none does not exist", "correct identity_file")


def test_a_key_file_that_others_may_read(way, stranger, tmp_path):
    stranger.chmod(0o644)
    found = problem(behind(way, identity_file=str(stranger)), tmp_path)
    told(found, "may be read by others (mode 0644)", f"chmod 600 {stranger}")


def test_a_host_key_that_is_not_known(way, bed, tmp_path):
    found = problem(behind(way, host_key="strict"), tmp_path)
    scanned = subprocess.run(
        ["ssh-keyscan", "-t", "ed25519", way.hostname], capture_output=True, check=True
    )
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", "-"], input=scanned.stdout, capture_output=True, check=True
    )
    told(found, listed.stdout.split()[1].decode(), f"ssh-keyscan {way.hostname}", "accept-new")


def test_a_host_key_that_changed(way, stranger, tmp_path):
    known = tmp_path / "known_hosts"
    key = " ".join(Path(f"{stranger}.pub").read_text().split()[:2])
    known.write_text(f"{way.hostname} {key}\n")
    found = problem(way, tmp_path)
    told(found, "is not the one that was known", f"ssh-keygen -R {way.hostname} -f {known}")
    assert "SHA256:" in found.cause
    assert not found.passing


def test_nobody_listens(way, tmp_path):
    found = problem(behind(way, port=1), tmp_path)
    told(found, f"{way.hostname} refuses connections on port 1")
    assert found.passing


def test_a_host_that_is_cut_off(way, bed, tmp_path, monkeypatch):
    monkeypatch.setattr(config_module, "CONNECT_TIMEOUT", 1)
    bed.cut(bed["h1"])
    try:
        found = problem(way, tmp_path)
    finally:
        bed.heal()
    told(found, f"{way.hostname} does not answer on port 22")
    assert found.passing


def test_the_silent_one_on_a_way_through_others_is_named(bed, tmp_path, monkeypatch):
    for name, seconds in (("CONNECT_TIMEOUT", 4), ("JUMP_TIMEOUT", 2)):
        monkeypatch.setattr(config_module, name, seconds)
    first, second = bed["h1"], bed["h2"]
    jump = Jump(hostname=first.address, user=ACCOUNT, identity_file=str(bed.key))
    for silent, words in (
        (second, f"does not answer through the jump host {first.address}"),
        (first, f"the jump host {first.address} takes connections and then does not answer"),
    ):
        bed.freeze(silent)
        try:
            found = problem(config(bed, second, jumps=(jump,)), tmp_path)
        finally:
            bed.thaw(silent)
        told(found, words)
        assert found.passing


def test_a_name_that_nobody_knows(way, tmp_path):
    found = problem(behind(way, hostname="nowhere.invalid"), tmp_path)
    told(found, "the name of nowhere.invalid is not known to the server's machine")


def test_a_host_without_python(bed, tmp_path):
    found = problem(config(bed, bed["h3"]), tmp_path)
    told(found, "has no Python", "install python3.")


class TestJumps:
    @pytest.fixture
    def over(self, bed: Bed, way: HostConfig) -> Jump:
        return Jump(hostname=bed["h2"].address, user="root", identity_file=way.identity_file)

    def test_the_jump_host_refuses_the_key(self, way, over, stranger, tmp_path):
        jump = Jump(hostname=over.hostname, user="root", identity_file=str(stranger))
        found = problem(behind(way, jumps=(jump,)), tmp_path)
        told(found, f"the jump host {over.hostname} refuses the key {stranger} for root")

    def test_a_host_behind_it_is_knocked_at_through_it(self, way, over, stranger, tmp_path):
        """As ssh goes there: by the file's jump host, or by one of the user's own."""
        own = tmp_path / "config"
        own.write_text(
            f"Host {way.hostname}\n ProxyJump root@{over.hostname}\n"
            f"Host {over.hostname}\n IdentityFile {over.identity_file}\n"
            f" StrictHostKeyChecking no\n UserKnownHostsFile {tmp_path}/known_hosts\n"
        )
        gone = Jump(hostname=over.hostname, user="root", identity_file=str(stranger))
        assert [
            knock(behind(way, **other), tmp_path, include)
            for other, include in (
                ({"jumps": (over,)}, None),
                ({"jumps": (over,), "port": 1}, None),
                ({"jumps": (gone,)}, None),
                ({"jumps": (over, over)}, None),
                ({}, own),
                ({"port": 1}, own),
            )
        ] == [Knocked(there, EVERY_BEYOND) for there in (True, False, False, True, True, False)]

    def test_the_jump_host_has_no_sshd_there(self, way, over, tmp_path):
        jump = Jump(hostname=over.hostname, port=1)
        found = problem(behind(way, jumps=(jump,)), tmp_path)
        told(found, f"the jump host {over.hostname} refuses connections on port 1")
        assert found.passing

    def test_the_jump_host_is_not_known(self, way, over, tmp_path):
        found = problem(behind(way, jumps=(over,), host_key="strict"), tmp_path)
        told(found, f"key of the jump host {over.hostname} is not known", "SHA256:")

    def test_the_jump_host_cannot_reach_the_host(self, way, over, tmp_path):
        found = problem(behind(way, jumps=(over,), port=1), tmp_path)
        told(found, f"the jump host {over.hostname} cannot connect to {ACCOUNT}@{way.hostname}:1")

    def test_the_host_behind_it_refuses_the_key(self, way, over, stranger, tmp_path):
        found = problem(behind(way, jumps=(over,), identity_file=str(stranger)), tmp_path)
        told(found, f"{way.hostname} refuses the key {stranger} for {ACCOUNT}")


class TestLogins:
    """h1's account as it should not be."""

    @pytest.fixture(autouse=True)
    def as_it_was(self, bed: Bed) -> Iterator[None]:
        self.host = bed["h1"]
        save = f"cp -a {HOME} /home/saved; cp -a /etc/passwd /etc/saved"
        self.do(save)
        yield
        back = f"rm -r {HOME}; mv /home/saved {HOME}; mv /etc/saved /etc/passwd"
        self.do(back)

    host: Host

    def do(self, command: str) -> None:
        self.host.inside("sh", "-euc", command)

    def test_no_shell(self, way, tmp_path):
        self.do(f"sed -i '/^{ACCOUNT}:/s#:[^:]*$#:/usr/sbin/nologin#' /etc/passwd")
        found = problem(way, tmp_path)
        told(found, "does not run what it is told", "not available", "/bin/sh")

    def test_noise(self, way, tmp_path):
        noise = 'echo "hello {"; echo oops >&2; printf "no line end"'
        self.do(f"echo '{noise}' >{HOME}/.bashrc; chown {ACCOUNT} {HOME}/.bashrc")

        async def look() -> str:
            async with reaching(way, tmp_path) as host:
                return (await host.check()).hostname

        assert asyncio.run(look()) == "h1"

    def test_endless_noise(self, way, tmp_path):
        self.do(f"echo yes >{HOME}/.bashrc; chown {ACCOUNT} {HOME}/.bashrc")
        told(problem(way, tmp_path), "prints without end", "rc files")

    def test_a_login_that_hangs(self, way, tmp_path, monkeypatch):
        monkeypatch.setattr(connection, "DEADLINE", 2.0)
        self.do(f"echo 'sleep 1000' >{HOME}/.bashrc; chown {ACCOUNT} {HOME}/.bashrc")
        found = problem(way, tmp_path)
        told(found, "did not answer within 2 s")
        assert found.passing


def test_a_forced_command_and_forbidden_forwarding(bed, way, tmp_path):
    """Told by options of the key, where sshd reads it from."""
    host = bed["h1"]
    name = host.inside("sh", "-c", "/usr/sbin/sshd -T | grep ^authorizedkeysfile").stdout.split()[
        1
    ]
    path = name if name.startswith("/") else f"{HOME}/{name}"
    keys = host.inside("cat", path).stdout
    try:
        host.inside("sh", "-c", f"""sed -i 's/^/command="echo no" /' {path}""")
        told(problem(way, tmp_path), "it says: no", "no command=")
        host.inside("sh", "-c", f"""sed -i 's/^command="echo no"/restrict/' {path}""")
        asyncio.run(refused_tunnel(way, tmp_path))
    finally:
        host.inside("sh", "-c", f"cat >{path} <<'END'\n{keys}END")


async def refused_tunnel(way: HostConfig, directory: Path) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    async with reaching(way, directory) as host:
        facts = await host.check()
        task = asyncio.create_task(host.tunnel(facts, ("127.0.0.1", 1), said.put_nowait))
        async with asyncio.timeout(30):
            assert "lets nobody forward ports; set AllowTcpForwarding" in await said.get()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
