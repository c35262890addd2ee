"""Two users on one machine: each has servers, agents and jobs of their own, and secrets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator

import pytest

from system.keeper_harness import PATIENCE, gone, grows
from system.user_harness import User, place

pytestmark = pytest.mark.root

LOOK = """
import os, socket, sys
home = sys.argv[1]
for path in (home, f"{home}/server.json", f"{home}/agent/token", f"{home}/agent/attempts"):
    try:
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        continue
    print("can open", path)
try:
    socket.socket(socket.AF_UNIX).connect(f"{home}/agent/keeper.sock")
except PermissionError:
    pass
else:
    print("can connect to the keeper")
for name in filter(str.isdigit, os.listdir("/proc")):
    try:
        print("can read", open(f"/proc/{name}/environ").read())
    except (OSError, UnicodeDecodeError):
        continue
"""

TAKE = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    print("listening", flush=True)
    connection, _ = listener.accept()
    with connection:
        print(connection.recv(4096), flush=True)
"""


@pytest.fixture
def users() -> Iterator[tuple[User, User]]:
    with place() as directory:
        both = User(23401, directory), User(23402, directory)
        try:
            yield both
        finally:
            for user in both:
                user.moorage("server", "stop")
                left = keeper_of(user)
                if left is not None:
                    os.kill(left, signal.SIGKILL)
                    gone(left)


def keeper_of(user: User) -> int | None:
    """Its process, while it runs."""
    try:
        pid = int((user.moorage_home / "agent" / "keeper.pid").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def address(user: User) -> dict[str, str]:
    found: dict[str, str] = json.loads((user.moorage_home / "server.json").read_text())
    return found


def test_they_do_not_disturb_each_other(users: tuple[User, User]) -> None:
    ada, bob = users
    for user in users:
        mine = f"mine-{user.uid}\n"
        command = f"echo {mine.strip()}; exec sleep 600"
        code, _, err = user.moorage("run", "-d", "-n", "same", "--", "sh", "-c", command)
        assert code == 0, err
        with user.popen(user.python, "-m", "moorage", "logs", "-f", "same") as following:
            assert following.stdout is not None
            assert following.stdout.readline() == mine
            following.kill()
    for user in users:
        assert [row[1] for row in rows(user)] == ["same"]
        code, _, err = user.moorage("stop", "same")
        assert code == 0, err
    stopped = bob.moorage("server", "stop")
    assert stopped[0] == 0, stopped
    code, _, err = ada.moorage("wait", "same")
    assert (code, "started a server" in err) == (143, False), err
    assert ada.moorage("logs", "same")[1] == f"mine-{ada.uid}\n"


def rows(user: User) -> list[list[str]]:
    code, out, err = user.moorage("ps")
    assert code == 0, err
    return [line.split() for line in out.splitlines()[1:]]


def test_they_do_not_learn_each_others_secrets(users: tuple[User, User]) -> None:
    ada, bob = users
    for user in users:
        assert user.moorage("server", "start")[0] == 0
    code, out, err = bob.run(bob.python, "-c", LOOK, str(ada.moorage_home))
    assert code == 0, err
    assert [line for line in out.splitlines() if line.startswith("can open")] == []
    assert "can connect" not in out
    assert str(ada.home) not in out
    hers, his = address(ada), address(bob)
    assert hers["url"] != his["url"]
    setting = (f"MOORAGE_URL={hers['url']}", f"MOORAGE_TOKEN={his['token']}")
    code, _, err = bob.run("env", *setting, bob.python, "-m", "moorage", "ps")
    assert code == 4, err


def test_whoever_takes_the_port_of_a_dead_server_learns_nothing(users: tuple[User, User]) -> None:
    ada, bob = users
    assert ada.moorage("server", "start")[0] == 0
    hers = address(ada)
    port = hers["url"].rpartition(":")[2]
    server = int(hers["pid"])
    os.kill(server, signal.SIGKILL)
    assert gone(server)
    with bob.popen(bob.python, "-c", TAKE, port) as thief:
        try:
            told, _ = thief.communicate(timeout=PATIENCE)
        finally:
            thief.kill()
    assert told == "listening\nb''\n"
    log = ada.moorage_home / "agent" / "log"
    asyncio.run(grows(log, lambda text: f"port {port} is now user {bob.uid}'s" in text))
    code, _, err = ada.moorage("ps")
    assert (code, "started a server" in err) == (0, True), err


def test_a_user_without_a_home_is_told_in_one_line(users: tuple[User, User]) -> None:
    ada, _ = users
    code, _, err = ada.run("env", "-u", "HOME", ada.python, "-m", "moorage", "ps")
    assert (code, err.count("\n")) == (2, 1), err
    assert "this user has no home; set MOORAGE_HOME" in err
