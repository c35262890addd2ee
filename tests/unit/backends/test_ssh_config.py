import stat
import subprocess
from pathlib import Path

import pytest

from moorage.backends.ssh.config import check_keys, config_text, write_config
from moorage.backends.ssh.interface import HostConfig, HostProblem, Jump

KNOWN = Path("/k/known_hosts")
SOCKETS = Path("/s")


def understood(config: HostConfig, host: str, tmp_path: Path) -> dict[str, str]:
    """What ssh makes of it, by option in lower case."""
    path = tmp_path / "config"
    path.write_text(config_text(config, SOCKETS, KNOWN))
    said = subprocess.run(
        ["ssh", "-G", "-F", str(path), host], capture_output=True, text=True, check=True
    )
    pairs = (line.partition(" ") for line in said.stdout.splitlines())
    return {name: value for name, _, value in pairs}


def test_ssh_understands_all_of_it(tmp_path):
    host = HostConfig(
        fleet="f", num=0, hostname="node.lab", port=2222, user="ada", identity_file="/keys/a b"
    )
    found = understood(host, "node.lab", tmp_path)
    assert found["hostname"] == "node.lab"
    assert found["port"] == "2222"
    assert found["user"] == "ada"
    assert found["identityfile"] == "/keys/a b"
    assert found["identitiesonly"] == "yes"
    assert found["batchmode"] == "yes"
    assert found["stricthostkeychecking"] == "true"
    assert found["controlmaster"] == "auto"
    assert found["controlpath"].startswith("/s/")
    assert found["userknownhostsfile"].startswith("/k/known_hosts ")


def test_what_is_not_set_is_left_to_the_users_own_configuration(tmp_path):
    text = config_text(HostConfig(fleet="f", num=0, hostname="alias"), SOCKETS, KNOWN)
    for option in ("User ", "Port ", "IdentityFile", "ProxyJump", "HostName"):
        assert f"    {option}" not in text
    assert text.index("Include ~/.ssh/config") > text.index("Host alias")


def test_jumps_have_keys_of_their_own_and_are_chained(tmp_path):
    host = HostConfig(
        fleet="f",
        num=0,
        hostname="inner",
        jumps=(Jump("outer", 22, "a", "/keys/outer"), Jump("middle", 2022, "b", "/keys/middle")),
    )
    inner = understood(host, "inner", tmp_path)
    middle = understood(host, "middle", tmp_path)
    outer = understood(host, "outer", tmp_path)
    assert inner["proxyjump"] == "middle"
    assert (middle["proxyjump"], middle["user"], middle["port"]) == ("outer", "b", "2022")
    assert middle["identityfile"] == "/keys/middle"
    assert outer["identityfile"] == "/keys/outer"
    assert "proxyjump" not in outer
    assert middle["controlmaster"] == outer["controlmaster"] == "false"


def test_whoever_is_nearer_to_the_server_gives_up_first(tmp_path):
    jumps = tuple(Jump(f"j{place}") for place in range(3))
    host = HostConfig(fleet="f", num=0, hostname="n1", jumps=jumps)
    found = [
        int(understood(host, name, tmp_path)["connecttimeout"])
        for name in ("j0", "j1", "j2", "n1")
    ]
    assert found == [7, 9, 11, 13]
    one = HostConfig(fleet="f", num=0, hostname="n1", jumps=jumps[:1])
    assert understood(one, "n1", tmp_path)["connecttimeout"] == "10"
    bare = HostConfig(fleet="f", num=0, hostname="n1")
    assert understood(bare, "n1", tmp_path)["connecttimeout"] == "10"


def test_hosts_of_one_name_are_told_apart(tmp_path):
    host = HostConfig(
        fleet="f", num=0, hostname="lab", port=2200, jumps=(Jump("lab", 22), Jump("lab", 2100))
    )
    assert understood(host, "lab", tmp_path)["proxyjump"] == "moorage-jump-1"
    second = understood(host, "moorage-jump-1", tmp_path)
    assert (second["hostname"], second["port"]) == ("lab", "2100")
    assert second["proxyjump"] == "moorage-jump-0"


def test_new_keys_are_accepted_where_that_is_wanted(tmp_path):
    host = HostConfig(fleet="f", num=0, hostname="a", host_key="accept-new")
    assert understood(host, "a", tmp_path)["stricthostkeychecking"] == "accept-new"


@pytest.mark.parametrize("name", ["-oProxyCommand=x", "a b", "a\nb", "*", ""])
def test_a_name_cannot_be_an_option_or_a_pattern(name):
    with pytest.raises(HostProblem, match="is no name of a host"):
        config_text(HostConfig(fleet="f", num=0, hostname=name), SOCKETS, KNOWN)


def test_a_key_path_cannot_leave_its_quotes():
    host = HostConfig(fleet="f", num=0, hostname="a", identity_file='/k"\nProxyCommand x')
    with pytest.raises(HostProblem, match="cannot be told of the path"):
        config_text(host, SOCKETS, KNOWN)


def test_only_the_owner_may_read_the_file(tmp_path):
    path = write_config(HostConfig(fleet="f", num=0, hostname="a"), tmp_path, KNOWN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_keys_of_jumps_are_looked_at_too(tmp_path):
    host = HostConfig(
        fleet="f", num=0, hostname="a", jumps=(Jump("b", identity_file=str(tmp_path / "none")),)
    )
    with pytest.raises(HostProblem, match="none does not exist"):
        check_keys(host)
