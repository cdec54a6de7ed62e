"""Who counts as one source: an address, cut to its prefix."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

Network = IPv4Network | IPv6Network


class Source(NamedTuple):
    """One source: the network of its address, as text, and its family (4 or 6)."""

    name: str
    version: int


class Sources:
    """Cuts addresses to sources.  Whoever holds a /64 has all of its addresses, so it is one source by default."""

    def __init__(self, prefix_v4: int, prefix_v6: int, exempt: Sequence[Network]) -> None:
        self._prefix = {4: prefix_v4, 6: prefix_v6}
        self._exempt = exempt

    def of(self, address: str) -> Source | None:
        """The source of `address`; None for one that is exempt, or no IP address at all (a Unix socket's)."""
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return None
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if any(ip in network for network in self._exempt):
            return None
        bits = ip.max_prefixlen - self._prefix[ip.version]
        name = type(ip)(int(ip) >> bits << bits)
        return Source(f"{name}/{self._prefix[ip.version]}" if bits else str(name), ip.version)
