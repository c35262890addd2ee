"""Where the other nodes of its fleet reach a host."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network

from moorage.backends.ssh.interface import HostConfig


def inside(config: HostConfig, addresses: Sequence[str]) -> str:
    """What its fleet's file says, or which of the host's `addresses` is in the network of the
    fleet, or is the one that ssh reaches, or its first; empty where it has none."""
    if config.internal_ip:
        return config.internal_ip
    for address in addresses:
        with suppress(ValueError):
            if config.network and ip_address(address) in ip_network(config.network, strict=False):
                return address
    if config.hostname in addresses:
        return config.hostname
    return next(iter(addresses), "")
