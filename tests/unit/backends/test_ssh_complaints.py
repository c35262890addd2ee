"""What ssh said, as it was recorded from OpenSSH 9.2 and 8.x, and what we make of it."""

import pytest

from moorage.backends.ssh.complaints import explain, explain_silence
from moorage.backends.ssh.interface import HostConfig, Jump
from moorage.backends.ssh.onhost.frame import NO_PYTHON, SHELL

HOST = HostConfig(fleet="f", num=0, hostname="n1", user="ada", identity_file="/k/ada")
BEHIND = HostConfig(
    fleet="f",
    num=0,
    hostname="n1",
    user="ada",
    jumps=(Jump("j1", user="root", identity_file="/k/j1"), Jump("j2")),
)
CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
The fingerprint for the ED25519 key sent by the remote host is
SHA256:abc.
Please contact your system administrator.
Add correct host key in /home/x/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /home/x/.ssh/known_hosts:3
Host key for [n1]:2222 has changed and you have requested strict checking.
Host key verification failed.
"""
CASES = [
    (HOST, "ada@n1: Permission denied (publickey).", "n1 refuses the key /k/ada for ada", False),
    (
        HOST,
        "ada@n1: Permission denied (password,keyboard-interactive).",
        "n1 takes no keys for ada",
        False,
    ),
    (
        HOST,
        "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures",
        "ended the login after too many keys",
        False,
    ),
    (HOST, "ssh: connect to host n1 port 22: Connection refused", "n1 refuses connections", True),
    (HOST, "ssh: connect to host n1 port 22: Connection timed out", "n1 does not answer", True),
    (HOST, "ssh: connect to host n1 port 22: No route to host", "no route to host", True),
    (HOST, "Connection timed out during banner exchange", "does not answer", True),
    (
        HOST,
        "ssh: Could not resolve hostname n1: Name or service not known",
        "the name of n1 is not known",
        False,
    ),
    (
        HOST,
        "No ED25519 host key is known for [n1]:2222 and you have requested strict checking.\n"
        "Host key verification failed.",
        "ssh-keyscan -p 2222 n1 >> ~/.ssh/known_hosts",
        False,
    ),
    (HOST, CHANGED, "ssh-keygen -R '[n1]:2222' -f /home/x/.ssh/known_hosts", False),
    (HOST, "kex_exchange_identification: read: Connection reset by peer", "before the gr", True),
    (
        HOST,
        "Unable to negotiate with 10.0.0.1 port 22: no matching host key type found. "
        "Their offer: ssh-rsa",
        "no host key type in common (it has ssh-rsa)",
        False,
    ),
    (HOST, "Timeout, server n1 not responding.", "the connection to ada@n1 broke", True),
    (HOST, "/x/.ssh/config: line 3: Bad configuration option: nonsense", "line 3", False),
    (HOST, "what nobody ever heard", "what nobody ever heard", True),
    (HOST, "", "ended without a word", True),
    (
        BEHIND,
        "root@j1: Permission denied (publickey).\n"
        "kex_exchange_identification: Connection closed by remote host\n"
        "Connection closed by UNKNOWN port 65535",
        "the jump host j1 refuses the key /k/j1 for root",
        False,
    ),
    (
        BEHIND,
        "channel 0: open failed: connect failed: Connection refused\n"
        "stdio forwarding failed\n"
        "kex_exchange_identification: Connection closed by remote host",
        "the jump host j2 cannot connect to ada@n1: connection refused",
        True,
    ),
    (
        BEHIND,
        "channel 0: open failed: connect failed: No route to host\n"
        "stdio forwarding failed\nkex_exchange_identification: Connection closed by remote host\n"
        "Connection closed by UNKNOWN port 65535\n"
        "kex_exchange_identification: Connection closed by remote host",
        "the jump host j1 cannot connect to j2: no route to host",
        True,
    ),
    (
        BEHIND,
        "Connection timed out during banner exchange\n",
        "ada@n1 does not answer through the jump host j2",
        True,
    ),
    (
        BEHIND,
        "Connection timed out during banner exchange\nConnection to UNKNOWN port 65535 timed out\n"
        "kex_exchange_identification: Connection closed by remote host\n",
        "the jump host j2 does not answer through the jump host j1",
        True,
    ),
    (
        BEHIND,
        "Connection timed out during banner exchange\nConnection to j1 port 22 timed out\n"
        "kex_exchange_identification: Connection closed by remote host\n"
        "Connection closed by UNKNOWN port 65535\n"
        "kex_exchange_identification: Connection closed by remote host\n",
        "the jump host j1 takes connections and then does not answer",
        True,
    ),
    (
        BEHIND,
        "channel 0: open failed: administratively prohibited: open failed\n"
        "stdio forwarding failed\n"
        "kex_exchange_identification: Connection closed by remote host",
        "the jump host j2 cannot connect",
        False,
    ),
]


@pytest.mark.parametrize(("config", "said", "words", "passing"), CASES)
def test_what_ssh_says(config, said, words, passing):
    found = explain(config, said)
    assert words in str(found)
    assert found.fix
    assert "\n" not in str(found)
    assert found.passing == passing


def test_words_with_carriage_returns():
    assert "refuses the key" in explain(HOST, "ada@n1: Permission denied (publickey).\r\n").cause


@pytest.mark.parametrize(
    ("out", "said", "words"),
    [
        (f"{SHELL}\n{NO_PYTHON}\n", "", "has no Python"),
        (f"{SHELL}\n", "sudo: a password is required", "sudo on ada@n1 wants more"),
        (f"{SHELL}\n", "Killed", "did not run on ada@n1: Killed"),
        ("This account is currently not available.\n", "", "does not run what it is told"),
        ("", "", "it says: nothing"),
    ],
)
def test_a_login_that_works_and_does_not_do_what_it_is_told(out, said, words):
    found = explain_silence(HOST, 1, out, said)
    assert words in str(found)
    assert "\n" not in str(found)
