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
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from socket import AF_INET6, inet_pton
from typing import Any, NamedTuple

from wrtflow import settings
from wrtflow.places import LeftOut
from wrtflow.shares import Shares
from wrtflow.state import Rows, State
from wrtflow.wellformed import LONGEST, address, hostname, mac, spelt, without

# ms after which a device or an address that wasn't seen is forgotten.
DEVICE_TTL = 30 * 86_400_000
# MACs, addresses of one MAC, and addresses of all.
DEVICES = 10_000
ADDRESSES_OF_DEVICE = 128
ADDRESSES = 20_000
# Addresses of all devices left out.
HIDDEN = 2_000
NEVER = 1 << 62
# ms. Where all is full, what wasn't seen for so long makes room; else the newcomer is refused.
LATELY = 86_400_000
# ms that a lease counts more than a neighbour's MAC: behind a repeater that MAC is the repeater's.
LEASE = 86_400_000


class Device(NamedTuple):
    """What is known of a device; mac as AA-BB-CC-DD-EE-FF."""

    name: str | None
    mac: str | None


class Told(enum.IntEnum):
    """Who told that an address has a MAC; the surer has the greater number."""

    DUID = 0  # made of some interface's MAC, once
    NEIGHBOUR = 1
    LEASE = 2


_UNKNOWN = Device(None, None)
# DUID-LLT and DUID-LL of Ethernet, in hexadecimal.
_DUID = re.compile("(?:00010001.{8}|00030001)(..)(..)(..)(..)(..)(..)")


@dataclass(slots=True)
class _Owner:
    """A MAC, or what all devices of unknown MAC share."""

    mac: str
    when: int
    name: str | None = None  # as it told itself
    # With the settings' name or its own. Unknown while the MAC was only in a DUID, never on the wire.
    device: Device = _UNKNOWN


@dataclass(slots=True)
class _Address:
    """An address at home."""

    owner: _Owner
    name: str | None  # what only the address is known to be called
    told: Told = Told.DUID
    when: int = 0


class Devices:
    """Devices by address. device() and mac() are look-ups in dictionaries."""

    def __init__(
        self, state: State, chosen: settings.Names, left_out: LeftOut, moved: Callable[[str], None]
    ) -> None:
        """Of devices left out nothing is remembered but which address has such a MAC.

        moved is called with each address that a device loses.
        """
        self._static = {address(text) or spelt(text): name for text, name in chosen.devices.items()}
        self._local_domains = chosen.local_domains
        self._left_out = left_out
        self._moved = moved
        # MACs without an address come first, then those that were last seen longest ago.
        self.owners: Rows[_Owner] = Rows(state, "devices", self._owner_row)
        self.addresses: Rows[_Address] = Rows(state, "addresses", _address_row)
        self._nobody = _Owner("", 0)
        self._left = {holder: self._called(_Owner(holder, 0), None) for holder in left_out.macs}
        self.counts: Counter[str] = Counter()
        limits = ADDRESSES, ADDRESSES_OF_DEVICE, DEVICE_TTL, LATELY
        self.shares = Shares(*limits, self._dropped, self.counts, "addresses")
        # Of devices left out, whose flows are known by nothing else: no other device takes these away, and no time.
        self.hidden = Shares(HIDDEN, HIDDEN, NEVER, NEVER, self._dropped, self.counts, "addresses")

    def load(self, now: int) -> None:
        """Read what was kept. A time that is still to come is a wrong clock's, and taken as now."""

        def owner(key: str, row: Any) -> _Owner:
            name, when = row
            if mac(key) != key:
                raise ValueError(key)
            return self._called(_Owner(key, min(int(when), now)), name and str(name))

        def known(key: str, row: Any) -> _Address:
            holder, told, name, when = row
            if address(key) != key or (holder != "" and mac(holder) != holder):
                raise ValueError(key)
            when = min(int(when), now)
            of = self._owner(holder, when)
            if of is None:
                raise ValueError(holder)
            return _Address(of, name and str(name), Told(told), when)

        self.owners.load(owner)
        for holder in self._left.keys() & self.owners.keys():
            del self.owners[holder]
        self.addresses.load(known)
        for ip, one in sorted(self.addresses.items(), key=lambda row: row[1].when):
            if self._left_out.address(ip) or not self._shares(one.owner).put(one.owner.mac, ip, one.when):
                del self.addresses[ip]
            else:
                self._see(one.owner, one.told, max(one.owner.when, one.when))

    def device(self, ip: str) -> Device:
        """Return what is known of the device that has this address."""
        known = self.addresses.get(ip)
        device = self._derived(ip) if known is None else known.owner.device
        name = self._static.get(ip) or device.name
        if name is None and known is not None:
            name = known.name
        return device if name == device.name else Device(name, device.mac)

    def mac(self, ip: str) -> str | None:
        """Return the MAC of the device that has this address."""
        known = self.addresses.get(ip)
        return self._derived(ip).mac if known is None else known.owner.device.mac

    def identity(self, ip: str) -> str:
        """Return a device's MAC, else its address; "" for one that is left out. ip may be such an identity itself."""
        owner, left_out = self.mac(ip), self._left_out
        return "" if left_out.mac(owner) or left_out.mac(ip) or left_out.address(ip) else owner or ip

    def refresh(self, now: int) -> None:
        """Let go of what has grown too old."""
        for ip in [ip for ip, known in self.addresses.items() if self._old(known.owner, known.when, now)]:
            self._drop(ip)
        for holder in [holder for holder, owner in self.owners.items() if self._old(owner, owner.when, now)]:
            self._forget(holder)

    def observe(self, text: str, now: int) -> None:
        """Take a line of dnsmasq-dhcp's, of odhcpd's or of wrtflow-net's. Only the lines above tell anything."""
        words = text.split(None, 16) if len(text) <= LONGEST else []
        if words and words[0].isdigit():  # log-dhcp
            del words[0]
        if len(words) < 3:
            return
        verb = words[0].partition("(")[0]
        if verb in ("DHCPACK", "lease"):
            self._lease(words[1], words[2], words[3:], Told.LEASE, now)
        elif verb == "neigh":
            self._lease(words[1], words[2], [], Told.NEIGHBOUR, now)
        elif verb == "DHCPREPLY" and words[2].count(":") >= 3:  # one without an address has its DUID there
            self._lease6(words[1], words[2].replace(":", ""), words[3:], now)
        elif verb == "SLAAC-CONFIRM":
            self._lease6(words[1], "", words[2:], now)
        elif verb == "DHCPV6" and words[2:4] == ["IA_NA", "from"] and words[7:8] == ["ok"]:
            for prefix in words[8:16]:
                self._lease6(prefix.removesuffix("/128"), words[4], [], now)

    def _lease(self, ip_text: str, mac_text: str, rest: list[str], told: Told, now: int) -> None:
        ip, holder = address(ip_text), mac(mac_text)
        if ip is None or holder is None:
            self.counts["names_invalid"] += 1
            return
        name = self._name_of(rest)
        known = self._bind(ip, holder, told, now)
        if known and name not in (None, known.owner.name) and holder not in self._left:
            self.owners[holder] = self._called(known.owner, name)

    def _lease6(self, ip_text: str, duid: str, rest: list[str], now: int) -> None:
        ip = address(ip_text)
        if ip is None:
            self.counts["names_invalid"] += 1
            return
        name = self._name_of(rest)
        known = self.addresses.get(ip)
        found = _DUID.fullmatch(duid)
        holder = mac(":".join(found.groups())) if found else None
        if holder is not None or (known is None and name is not None):
            known = self._bind(ip, holder or "", Told.DUID, now) or self.addresses.get(ip)
        # No name is news too: whoever had the address before may have had one.
        if known is not None and known.name != name and known.owner.mac not in self._left:
            known.name = name
            self.addresses[ip] = known

    def _name_of(self, rest: list[str]) -> str | None:
        """Return the name at the end of a line; None where it has several words or other characters."""
        name = hostname(rest[0]) if len(rest) == 1 else None
        if rest and name is None:
            self.counts["names_invalid"] += 1
        return name and without(name, self._local_domains)

    def _bind(self, ip: str, holder: str, told: Told, now: int) -> _Address | None:
        """Note that a MAC ("": an unknown one) has an address. None where a surer one told otherwise, or no room is."""
        known = self.addresses.get(ip)
        surer = known is not None and known.told > told and now - known.when < LEASE
        if surer or self._left_out.address(ip):
            return None
        owner = self._owner(holder, now)
        # Looked up again: an owner that made room has lost its addresses.
        known = self.addresses.get(ip)
        name = None
        if known is not None and known.owner is not owner:
            # The new owner gets no name of the former one. But where only a DUID told that one, it may be the same.
            name = known.name if known.told == Told.DUID else None
            self._drop(ip)
            known = None
        if owner is None or not self._shares(owner).put(holder, ip, now):
            return None
        if known is None:
            known = _Address(owner, name)
        if holder in self._left:
            # Forgets what it asked for while it was only an address.
            self._moved(ip)
        known.told, known.when = told, now
        self.addresses[ip] = known
        self._see(owner, told, now)
        return known

    def _see(self, owner: _Owner, told: Told, now: int) -> None:
        if owner is not self._nobody and owner.mac not in self._left:
            owner.when = now
            if told != Told.DUID and owner.device is _UNKNOWN:
                self._called(owner, None)
            self.owners[owner.mac] = owner

    def _called(self, owner: _Owner, name: str | None) -> _Owner:
        owner.name = name
        owner.device = Device(self._static.get(owner.mac, name), owner.mac)
        return owner

    def _owner(self, holder: str, now: int) -> _Owner | None:
        """Return the owner of a MAC ("": an unknown one); None for a new MAC where there is no room."""
        owner = self._left.get(holder) or self.owners.get(holder) if holder else self._nobody
        if owner is None:
            if len(self.owners) >= DEVICES:
                oldest = next(iter(self.owners))
                if oldest in self.shares.owners and now - self.owners[oldest].when < LATELY:
                    self.counts["devices_refused"] += 1
                    return None
                self._forget(oldest)
            owner = _Owner(holder, now)
            if holder in self._static:
                self._called(owner, None)
            self.owners[holder] = owner
            self.owners.move_to_end(holder, last=False)
        return owner

    def _shares(self, owner: _Owner) -> Shares[str]:
        return self.hidden if owner.mac in self._left else self.shares

    def _drop(self, ip: str) -> None:
        owner = self.addresses[ip].owner
        self._shares(owner).drop(owner.mac, ip)

    def _old(self, owner: _Owner, when: int, now: int) -> bool:
        return now - when > DEVICE_TTL and owner.mac not in self._left

    def _dropped(self, ip: str) -> None:
        known = self.addresses[ip]
        holder = known.owner.mac
        del self.addresses[ip]
        if known.told != Told.DUID:
            self._moved(ip)
        if holder in self.owners and holder not in self.shares.owners:
            self.owners.move_to_end(holder, last=False)

    def _forget(self, holder: str) -> None:
        self.shares.forget(holder)
        del self.owners[holder]

    def _derived(self, ip: str) -> Device:
        """Return the device whose MAC an IPv6 address was made of, if one here has that."""
        holder = _eui64_mac(ip) or ""
        owner = self.owners.get(holder)
        if owner is None and (holder in self._static or self._left_out.mac(holder)):
            return Device(self._static.get(holder), holder)
        return _UNKNOWN if owner is None else owner.device

    def _owner_row(self, owner: _Owner) -> tuple[str | None, int] | None:
        return (owner.name, owner.when) if owner.device.mac else None


def _address_row(known: _Address) -> tuple[str, int, str | None, int]:
    return known.owner.mac, known.told, known.name, known.when


def _eui64_mac(ip: str) -> str | None:
    """Return the MAC that an IPv6 address was made of (RFC 4291, appendix A)."""
    # In its usual form any other address lacks these.
    if "ff:fe" not in ip or address(ip) is None:
        return None
    last = inet_pton(AF_INET6, ip)[8:]
    return mac(bytes((last[0] ^ 2, *last[1:3], *last[5:])).hex(":")) if last[3:5] == b"\xff\xfe" else None
