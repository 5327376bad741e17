"""Which addresses are inside: the configured home networks, and what the routers tell and show of their own."""

from __future__ import annotations

import collections
import contextlib
import ipaddress
import json
import threading
import time
import typing
from collections.abc import Iterable
from pathlib import Path

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Never looked up and never "outside": they don't leave the link.
_LINK = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32",
            "::/128", "::1/128", "fe80::/10", "ff00::/8",
        ),
    )
)  # fmt: skip

# A router may tell of networks no larger than these: one false line must not turn the world into the house.
_LARGEST = {4: 8, 6: 32}
_MOST = 64

# Addresses that a router translates to: so many of the latest, and seconds until one more takes the place of another.
# A router that has a whole network to translate to must not have everything placed anew with each flow.
_SHOWN = 8
_PAUSE = 60


class Networks:
    """The home networks as they are known now."""

    def __init__(
        self, configured: Iterable[str], left_out: Iterable[str] = (), file: Path | None = None
    ) -> None:
        """Configured and left_out are in CIDR (left_out's MACs are skipped); file keeps what was learned."""
        self._configured = _by_version([*_LINK, *map(_network, configured)])
        self._left_out = _by_version(_network(item) for item in left_out if not is_mac(item))
        self._file = file
        self._lock = threading.Lock()
        self._learned: dict[str, tuple[Network, ...]] = {}
        # By router that tells nothing: when it last showed a new address, and its addresses.
        self._shown: dict[str, tuple[float, collections.deque[Network]]] = {}
        if file is not None:
            with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
                for router, items in json.loads(file.read_text(encoding="ascii")).items():
                    self._learned[router] = tuple(map(_network, items))
        self._home = self._united()

    def is_home(self, address: Address) -> bool:
        """Whether the address is inside or never leaves its link."""
        return _within(address, self._home)

    def is_left_out(self, address: Address) -> bool:
        """Whether nothing may be stored about the address."""
        return _within(address, self._left_out)

    def learn(self, router: str, networks: Iterable[str]) -> bool:
        """Take the networks and addresses that are the router's own, instead of those it told before.

        ValueError where one is none or larger than a house's. Returns whether that changed anything.
        """
        told = tuple(sorted({_plausible(_network(item)) for item in networks}, key=str))
        if len(told) > _MOST:
            raise ValueError(f"more than {_MOST} networks")
        with self._lock:
            if self._learned.get(router, ()) == told:
                return False
            self._learned[router] = told
            self._shown.pop(router, None)
            self._home = self._united()
            if self._file is not None:
                content = {name: [str(item) for item in items] for name, items in self._learned.items()}
                new = self._file.with_name(f"{self._file.name}.new")
                with contextlib.suppress(OSError):
                    new.write_text(json.dumps(content), encoding="ascii")
                    new.replace(self._file)
        return True

    def shows(self, router: str, address: str) -> bool:
        """Take an address that a router translates home addresses to: it is its own.

        Returns whether that changed anything. A router that tells its networks knows better.
        """
        if router in self._learned or len(self._shown) >= _MOST:
            return False
        moment = time.monotonic()
        last, shown = self._shown.get(router, (moment, collections.deque[Network](maxlen=_SHOWN)))
        if len(shown) == _SHOWN and moment - last < _PAUSE:
            return False
        with self._lock:
            shown.append(_network(address))
            self._shown[router] = moment, shown
            self._home = self._united()
        return True

    def learned(self) -> dict[str, list[str]]:
        """Return what each router told."""
        return {router: [str(item) for item in items] for router, items in self._learned.items()}

    def _united(self) -> dict[int, tuple[Network, ...]]:
        shown = (items for _, items in self._shown.values())
        told = _by_version(item for items in (*self._learned.values(), *shown) for item in items)
        return {version: self._configured[version] + told[version] for version in (4, 6)}


def is_mac(text: str) -> bool:
    """Whether the text is a MAC and not an address or a network."""
    return len(text) == 17 and text.count(":") + text.count("-") == 5


def _network(text: str) -> Network:
    return ipaddress.ip_network(text, strict=False)


def _plausible(network: Network) -> Network:
    if network.prefixlen < _LARGEST[network.version]:
        raise ValueError(f"{network} is no house's network")
    return network


def _by_version(networks: Iterable[Network]) -> dict[int, tuple[Network, ...]]:
    found: dict[int, list[Network]] = {4: [], 6: []}
    for network in networks:
        found[network.version].append(network)
    return {version: tuple(items) for version, items in found.items()}


def _within(address: Address, networks: dict[int, tuple[Network, ...]]) -> bool:
    return any(address in typing.cast("typing.Any", network) for network in networks[address.version])
