"""The network of a bed: one bridge in the guardian's namespace, and what is wrong with it.

What is to be dropped is kept here and written as one nftables ruleset at each change, so a host
that boots again finds the network as it was left.
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from testbed.guardian import BEDS, link_of

RANGE = IPv4Network("198.18.0.0/15")
"""Set aside for tests of networks (RFC 2544): no site and no cloud gives these addresses out."""
_UNITS = {"kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_OF = 1_000_000


@dataclass(frozen=True)
class Endpoint:
    """Something with a cable to the switch."""

    name: str
    address: str
    port: str
    """The name of its interface in the switch."""


def subnet(number: int) -> IPv4Network:
    """The addresses of a bed."""
    return list(RANGE.subnets(new_prefix=24))[number]


def taken() -> set[int]:
    """Beds whose addresses this machine has routes for."""
    routes = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    known = [IPv4Network((_address(row[1]), str(_address(row[7])))) for row in routes]
    known = [route for route in known if route.prefixlen and route.overlaps(RANGE)]
    return {n for n in range(BEDS) if any(subnet(n).overlaps(route) for route in known)}


def _address(word: str) -> IPv4Address:
    return IPv4Address(socket.inet_ntoa(struct.pack("=I", int(word, 16))))


class Switch:
    """The bridge of bed `number`, in the network namespace of `guardian` (a process)."""

    def __init__(self, number: int, guardian: int) -> None:
        self._number = number
        self._inside = ["nsenter", f"--net=/proc/{guardian}/ns/net"]
        addresses = list(subnet(number).hosts())
        self._addresses = [str(address) for address in addresses]
        self.here = Endpoint("here", self._addresses[-1], "uplink")
        self._blocked: set[tuple[str, str]] = set()
        self._loss: dict[str, float] = {}
        self._rates: dict[str, str] = {}

    def address(self, index: int) -> str:
        """Of a host, counted from 1."""
        return self._addresses[index - 1]

    def hardware_address(self, index: int) -> str:
        """Of a host, counted from 1; the same at each boot, so that no neighbour is confused."""
        return f"02:6d:6f:{self._number >> 8:02x}:{self._number & 255:02x}:{index:02x}"

    def set_up(self) -> None:
        """The bridge, and the test's side of the uplink."""
        inside = (
            "link add name switch type bridge\nlink set switch up\n"
            "link set uplink master switch up"
        )
        self._run(["ip", "-batch", "-"], inside)
        link = link_of(self._number)
        outside = (
            f"link set {link} addrgenmode none\n"
            f"addr add {self.here.address}/24 dev {link}\nlink set {link} up"
        )
        _run(["ip", "-batch", "-"], outside)

    def unplug(self, port: str) -> None:
        """Take a cable away, and all that its host has in flight."""
        _run([*self._inside, "ip", "link", "del", port], check=False)

    def block(self, *directions: tuple[Endpoint, Endpoint]) -> None:
        """Drop what goes from the first to the second of each pair."""
        self._blocked |= {(a.port, b.port) for a, b in directions}
        self._write()

    def heal(self, *endpoints: Endpoint) -> None:
        """No more drops and losses that concern these endpoints."""
        ports = {endpoint.port for endpoint in endpoints}
        self._blocked = {pair for pair in self._blocked if not ports & {*pair}}
        self._loss = {port: value for port, value in self._loss.items() if port not in ports}
        self._write()

    def lose(self, endpoint: Endpoint, probability: float) -> None:
        """Drop that part (0 to 1) of the packets to and from an endpoint."""
        if not 0 <= probability <= 1:
            raise ValueError(f"probability {probability} is not between 0 and 1")
        self._loss[endpoint.port] = probability
        self._write()

    def _write(self) -> None:
        rules = [f'iifname "{a}" oifname "{b}" drop' for a, b in sorted(self._blocked)]
        for port, probability in sorted(self._loss.items()):
            some = f"numgen random mod {_OF} < {round(probability * _OF)} drop"
            rules += [f'{way} "{port}" {some}' for way in ("iifname", "oifname")]
        chain = "\n".join(["type filter hook forward priority 0; policy accept;", *rules])
        table = "table bridge moorage"
        self._run(
            ["nft", "-f", "-"],
            f"{table}\ndelete {table}\n{table} {{ chain f {{\n{chain}\n}}\n}}\n",
        )

    def limit(self, port: str, host: int, rate: str | None) -> None:
        """Limit what a host's cable carries, each way; `host` is a process in its namespace, or 0
        where it has none now."""
        self._rates.pop(port, None)
        if rate is not None:
            _burst(rate)  # refuses what cannot be read
            self._rates[port] = rate
        if host:
            self.plugged(port, host, fresh=False)

    def plugged(self, port: str, host: int, *, fresh: bool = True) -> None:
        """A cable gets the rate that was set for it."""
        rate = self._rates.get(port)
        ends = {port: self._inside, "eth0": ["nsenter", f"--net=/proc/{host}/ns/net"]}
        for device, inside in ends.items():
            if rate is not None:
                limits = ["rate", rate, "burst", str(_burst(rate)), "latency", "50ms"]
                change = ["tc", "qdisc", "replace", "dev", device, "root", "tbf", *limits]
                _run([*inside, *change])
            elif not fresh:
                _run([*inside, "tc", "qdisc", "del", "dev", device, "root"], check=False)

    def _run(self, argv: list[str], text: str) -> None:
        _run([*self._inside, *argv], text)


def _burst(rate: str) -> int:
    """Bytes in 5 ms, and at least some full packets."""
    parts = re.fullmatch(r"(\d+)(kbit|mbit|gbit)", rate)
    if parts is None:
        raise ValueError(f"rate {rate!r} is not written like 100mbit")
    return max(int(parts[1]) * _UNITS[parts[2]] // 8 // 200, 16_384)


def _run(argv: list[str], text: str = "", *, check: bool = True) -> None:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
