"""Which address of a host the others are told."""

from __future__ import annotations

import pytest

from moorage.backends.ssh.interface import HostConfig
from moorage.engine.reconcile.address import inside

HAS = ["203.0.113.5", "10.1.2.3", "fd00::3"]


@pytest.mark.parametrize(
    ("network", "internal_ip", "hostname", "address"),
    [
        ("", "10.9.9.9", "203.0.113.5", "10.9.9.9"),
        ("10.1.0.0/16", "", "203.0.113.5", "10.1.2.3"),
        ("fd00::/64", "", "box", "fd00::3"),
        ("192.168.0.0/24", "", "10.1.2.3", "10.1.2.3"),
        ("", "", "box", "203.0.113.5"),
        ("no network", "", "box", "203.0.113.5"),
    ],
)
def test_the_address_inside(network: str, internal_ip: str, hostname: str, address: str) -> None:
    config = HostConfig(
        fleet="f", num=0, hostname=hostname, network=network, internal_ip=internal_ip
    )
    assert inside(config, HAS) == address


def test_none() -> None:
    assert inside(HostConfig(fleet="f", num=0, hostname="box"), []) == ""
