"""Who an address at home is: names and MACs from DHCP, from the router's neighbours and from the settings.

A device is its MAC; an address belongs to the MAC that was last seen to have it. Lines that are understood:

    dnsmasq-dhcp  DHCPACK(br-lan) 10.77.0.134 02:aa:bb:cc:dd:01 Camera          name may be missing
    dnsmasq-dhcp  DHCPREPLY(br-lan) fd77::13a 00:03:00:01:02:aa:bb:cc:dd:01 Camera      a DUID in place of the MAC
    dnsmasq-dhcp  SLAAC-CONFIRM(br-lan) fd77::aa:bbff:fecc:dd01 Camera
    odhcpd        DHCPV6 RENEW IA_NA from 0003000102aabbccdd01 on br-lan: ok fd77::13a/128
    wrtflow-net   neigh fd77::aa:bbff:fecc:dd01 02-AA-BB-CC-DD-01
    wrtflow-net   lease 10.77.0.134 02-AA-BB-CC-DD-01 Camera                      the name may be missing
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from socket import AF_INET6, inet_pton
from typing import Any, NamedTuple

from .kept import Kept
from .settings import SettingsError
from .wellformed import address, hostname, mac, without

# No line that tells of a device is longer.
LONGEST = 1024
# For so many seconds a lease outweighs the neighbour's MAC: behind a repeater that is the repeater's.
LEASE = 86400.0


class Device(NamedTuple):
    """What is known of a device; mac as AA-BB-CC-DD-EE-FF."""

    name: str | None
    mac: str | None


class Told(enum.IntEnum):
    """Who told that an address has a MAC; the surer has the greater number."""

    DUID = 0  # made of some interface's MAC, once
    NEIGHBOUR = 1
    LEASE = 2


class _Known(dict[str, tuple[Device, str]]):
    """What is known of the devices that were asked for; a flow asks three times."""

    def __init__(self, look_up: Callable[[str], tuple[Device, str]]) -> None:
        super().__init__()
        self._look_up = look_up

    def __missing__(self, ip: str) -> tuple[Device, str]:
        found = self[ip] = self._look_up(ip)
        return found


# (mac, who told it, when); (name, when).
Binding = tuple[str, int, float]
Named = tuple[str | None, float]


class Devices:
    """Devices by address. Lines may come from several threads; device() is one look-up in a dictionary."""

    def __init__(
        self,
        *,
        static: Mapping[str, str],
        left_out: Iterable[str] = (),
        ttl: float,
        size: int,
        moved: Callable[[str], None] = lambda ip: None,
        local_domains: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the static map (address or MAC -> name); forget what wasn't seen for `ttl` s, or beyond `size`.

        `left_out` names devices (address, network or MAC) that nothing is remembered of but which address has
        such a MAC. `moved` is called with an address that has become another device's. Names are told without
        `local_domains`.
        """
        self._static = {_key(text): name for text, name in static.items()}
        self._ttl = ttl
        self._size = size
        self._moved = moved
        self._local_domains = tuple(local_domains)
        self._clock = clock
        self._lock = threading.Lock()
        self.bindings: Kept[Binding] = Kept("address", size, _binding)
        # By MAC, every one that was seen; by address what only that is known to be called.
        self.names: Kept[Named] = Kept("device", size, _named)
        self._left_out_networks, self._left_out_macs = _networks_and_macs(left_out)
        # Address -> the device and its identity, as far as asked for since something changed.
        self.known = _Known(self._look_up)
        self.invalid = 0

    def device(self, ip: str) -> Device:
        """Return what is known of the device that has this address."""
        return self.known[ip][0]

    def identity(self, ip: str) -> str:
        """Return what tells the device from others: its MAC, else the address; "" for one that is left out."""
        return self.known[ip][1]

    def left_out(self, key: str) -> bool:
        """Whether a MAC or an address is that of a device that is left out."""
        return key in self._left_out_macs if mac(key) else self.identity(key) == ""

    def refresh(self) -> None:
        """Let go of what has grown too old; to be called now and then."""
        self.known.clear()

    def observe_dnsmasq(self, message: str, now: float) -> None:
        """Take a line of dnsmasq-dhcp's, received at `now`."""
        words = message.split(None, 6) if len(message) <= LONGEST else []
        if words and words[0].isdigit():  # log-dhcp
            del words[0]
        if len(words) < 3:
            return
        verb = words[0].partition("(")[0]
        if verb == "DHCPACK":
            self._lease(words[1], words[2], words[3:], now)
        elif verb == "DHCPREPLY" and words[2].count(":") >= 3:  # one without an address has its DUID there
            self._lease6(words[1], words[2].replace(":", ""), words[3:], now)
        elif verb == "SLAAC-CONFIRM":
            self._lease6(words[1], "", words[2:], now)

    def observe_odhcpd(self, message: str, now: float) -> None:
        """Take a line of odhcpd's, OpenWrt's own DHCPv6 server, received at `now`."""
        words = message.split(None, 16) if len(message) <= LONGEST else []
        if len(words) > 8 and words[0] == "DHCPV6" and words[2:4] == ["IA_NA", "from"] and words[7] == "ok":
            for prefix in words[8:16]:
                self._lease6(prefix.removesuffix("/128"), words[4], [], now)

    def observe_neighbour(self, line: str, now: float) -> None:
        """Take a line of the router's own script, received at `now`; other lines than these two are none of ours."""
        words = line.split(None, 4) if len(line) <= LONGEST else []
        if len(words) >= 3 and words[0] == "lease":
            self._lease(words[1], words[2], words[3:], now)
        if len(words) < 3 or words[0] != "neigh":
            return
        ip, owner = address(words[1]), mac(words[2])
        if ip is None or owner is None:
            self.invalid += 1
        elif not self._in_left_out_network(ip):
            with self._lock:
                self._bind(ip, owner, Told.NEIGHBOUR, now)

    def _lease(self, ip_text: str, mac_text: str, rest: list[str], now: float) -> None:
        ip, owner = address(ip_text), mac(mac_text)
        if ip is None or owner is None:
            self.invalid += 1
        elif not self._in_left_out_network(ip):
            with self._lock:
                self._bind(ip, owner, Told.LEASE, now)
                name = self._name_of(rest)
                if name is not None:
                    self._call(owner, name, now)

    def _lease6(self, ip_text: str, duid: str, rest: list[str], now: float) -> None:
        ip, owner = address(ip_text), _duid_mac(duid)
        if ip is None:
            self.invalid += 1
        elif not self._in_left_out_network(ip):
            with self._lock:
                if owner is not None:
                    self._bind(ip, owner, Told.DUID, now)
                # Without a name too: the one that had the address before may have had one.
                self._call(ip, self._name_of(rest), now)

    def _name_of(self, rest: list[str]) -> str | None:
        """Return the name at the end of a line; of several words, or of other characters, it is none."""
        name = hostname(rest[0]) if len(rest) == 1 else None
        if rest and name is None:
            self.invalid += 1
        return name and without(name, self._local_domains)

    def _bind(self, ip: str, owner: str, told: Told, now: float) -> None:
        known = self.bindings.get(ip)
        if known is not None:
            if known[1] > told and now - known[2] < LEASE:
                return
            if known[0] != owner and known[1] != Told.DUID:
                self._moved(ip)
                self._call(ip, None, now)
        if owner in self._left_out_macs:
            # What it asked for while it was only an address.
            self._moved(ip)
        self.bindings.put(ip, (owner, told, now))
        if told != Told.DUID and not self._seen(owner):
            self.names.put(owner, (None, now))
        if known is None or known[:2] != (owner, told):
            self.refresh()

    def _call(self, key: str, name: str | None, now: float) -> None:
        known = self.names.get(key)
        if (known is None and name is None) or self.left_out(key):
            return
        self.names.put(key, (name, now))
        if known is None or known[0] != name:
            self.refresh()

    def _look_up(self, ip: str) -> tuple[Device, str]:
        if len(self.known) >= self._size:
            self.refresh()
        owner = self._mac(ip)
        if owner in self._left_out_macs or self._in_left_out_network(ip):
            return Device(None, owner), ""
        return Device(self._name(ip, owner), owner), owner or ip

    def _mac(self, ip: str) -> str | None:
        binding = self.bindings.get(ip)
        if binding is not None and binding[2] >= self._clock() - self._ttl:
            owner, told, _ = binding
            if told != Told.DUID or self._seen(owner):
                return owner
        derived = _eui64_mac(ip)
        return derived if derived is not None and self._seen(derived) else None

    def _name(self, ip: str, owner: str | None) -> str | None:
        for key in (ip, owner):
            if key is not None and key in self._static:
                return self._static[key]
        oldest = self._clock() - self._ttl
        for key in (owner, ip):
            named = self.names.get(key) if key is not None else None
            if named is not None and named[0] is not None and named[1] >= oldest:
                return named[0]
        return None

    def _in_left_out_network(self, ip: str) -> bool:
        if not self._left_out_networks:
            return False
        try:
            parsed = ip_address(ip)
        except ValueError:
            return False
        return any(parsed in network for network in self._left_out_networks)

    def _seen(self, owner: str) -> bool:
        """Whether a MAC that an address was made of is one that a device here has."""
        return owner in self._static or owner in self._left_out_macs or self.names.get(owner) is not None


def _duid_mac(duid: str) -> str | None:
    """Return the MAC that a DUID (hexadecimal) was made of: DUID-LLT or DUID-LL of Ethernet."""
    duid = duid.lower()
    if (duid.startswith("00010001") and len(duid) == 28) or (duid.startswith("00030001") and len(duid) == 20):
        return _any_mac(duid[-12:])
    return None


def _eui64_mac(ip: str) -> str | None:
    """Return the MAC that an IPv6 address was made of (RFC 4291, appendix A)."""
    if "ff:fe" not in ip:
        return None
    try:
        last = inet_pton(AF_INET6, ip)[8:]
    except (OSError, ValueError):
        return None
    if last[3:5] != b"\xff\xfe":
        return None
    return _any_mac(bytes((last[0] ^ 2, *last[1:3], *last[5:])).hex())


def _any_mac(text: str) -> str | None:
    """Return a MAC written in any way: AA-BB-…, aa:bb:…, aabb.ccdd.eeff, aabbccddeeff."""
    digits = text.translate(_SEPARATORS)
    return mac(":".join(digits[i : i + 2] for i in range(0, 12, 2))) if len(digits) == 12 else None


_SEPARATORS = str.maketrans("", "", ":-.")


def _key(text: str) -> str:
    key = address(text) or _any_mac(text)
    if key is None:
        raise SettingsError(f"names: devices: {text!r} is neither an address nor a MAC")
    return key


def _networks_and_macs(texts: Iterable[str]) -> tuple[list[IPv4Network | IPv6Network], set[str]]:
    networks: list[IPv4Network | IPv6Network] = []
    macs: set[str] = set()
    for text in texts:
        try:
            # First: without its dots, 100.100.100.100 could be a MAC.
            networks.append(ip_network(text, strict=False))
        except ValueError:
            owner = _any_mac(text)
            if owner is None:
                raise SettingsError(f"left_out: {text!r} is no address, network or MAC") from None
            macs.add(owner)
    return networks, macs


def _binding(row: Any) -> Binding:
    owner, told, when = row
    return str(owner), Told(told), float(when)


def _named(row: Any) -> Named:
    name, when = row
    return (None if name is None else str(name)), float(when)
