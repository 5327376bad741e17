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


# DUID-LLT and DUID-LL of Ethernet, in hexadecimal.
_DUID = re.compile("(?:00010001.{8}|00030001)(..)(..)(..)(..)(..)(..)")


_NOBODY = (None, 0)


class _Address(NamedTuple):
    """An address at home."""

    mac: str  # empty for an unknown one
    told: Told
    name: str | None  # what only the address is known to be called
    when: int


class Devices:
    """Devices by address. device() and mac() are look-ups in dictionaries."""

    def __init__(
        self, state: State, chosen: settings.Names, left_out: LeftOut, moved: Callable[[str], None]
    ) -> None:
        """Of devices left out nothing is remembered but which address has such a MAC.

        moved is called with each address that a device loses.
        """
        self._static = {address(text) or spelt(text) or "": name for text, name in chosen.devices.items()}
        self._local_domains = chosen.local_domains
        self._left_out = left_out
        self._moved = moved
        # By MAC: the name that it told, and when it was seen. A MAC that only a DUID told is not here: it may be that
        # of an interface that is never on the wire. Those without an address come first, then the longest unseen.
        self.owners: Rows[tuple[str | None, int]] = Rows(state, "devices")
        self.addresses: Rows[_Address] = Rows(state, "addresses")
        # What device() has said since the last line.
        self._found: dict[str, Device] = {}
        self.counts: Counter[str] = Counter()
        limits = ADDRESSES, ADDRESSES_OF_DEVICE, DEVICE_TTL, LATELY
        self.shares = Shares(*limits, self._dropped, self.counts, "addresses")
        # Of devices left out, whose flows are known by nothing else: no other device takes these away, and no time.
        self.hidden = Shares(HIDDEN, HIDDEN, NEVER, NEVER, self._dropped, self.counts, "addresses")

    def load(self, now: int) -> None:
        """Read what was kept. A time that is still to come is a wrong clock's, and taken as now."""

        def owner(key: str, row: Any) -> tuple[str | None, int]:
            name, when = row
            if mac(key) != key:
                raise ValueError(key)
            return name and str(name), min(int(when), now)

        def known(key: str, row: Any) -> _Address:
            holder, told, name, when = row
            if address(key) != key or (holder != "" and mac(holder) != holder):
                raise ValueError(key)
            return _Address(holder, Told(told), name and str(name), min(int(when), now))

        self.owners.load(owner)
        for holder in self._left_out.macs & self.owners.keys():
            del self.owners[holder]
        self.addresses.load(known)
        for ip, one in sorted(self.addresses.items(), key=lambda row: row[1].when):
            room = self._room(one.mac, one.told, one.when) and self._shares(one.mac).put(
                one.mac, ip, one.when
            )
            if self._left_out.address(ip) or not room:
                del self.addresses[ip]
            else:
                self._see(one.mac, one.told, one.when)

    def device(self, ip: str) -> Device:
        """Return what is known of the device that has this address, or whose MAC an IPv6 address was made of."""
        found = self._found.get(ip)
        if found is None:
            if len(self._found) >= ADDRESSES:
                self._found.clear()
            found = self._found[ip] = self._find(ip)
        return found

    def mac(self, ip: str) -> str | None:
        """Return the MAC of that device."""
        return self.device(ip).mac

    def _find(self, ip: str) -> Device:
        known = self.addresses.get(ip)
        holder = known.mac if known else _eui64_mac(ip)
        if not (holder in self.owners or holder in self._static or self._left_out.mac(holder)):
            holder = None
        own = self.owners.get(holder, _NOBODY)[0] if holder else None
        name = self._static.get(ip) or self._static.get(holder or "") or own
        return Device(known.name if known and not name else name, holder)

    def identity(self, ip: str) -> str:
        """Return a device's MAC, else its address; "" for one that is left out. ip may be such an identity itself."""
        owner, left_out = self.mac(ip), self._left_out
        return "" if left_out.mac(owner) or left_out.mac(ip) or left_out.address(ip) else owner or ip

    def refresh(self, now: int) -> None:
        """Let go of what has grown too old."""
        for ip, known in list(self.addresses.items()):
            if now - known.when > DEVICE_TTL and not self._left_out.mac(known.mac):
                self.shares.drop(known.mac, ip)
        for holder in [holder for holder, (_, when) in self.owners.items() if now - when > DEVICE_TTL]:
            self._forget(holder)
        self._found.clear()

    def observe(self, text: str, now: int) -> None:
        """Take a line of dnsmasq-dhcp's, of odhcpd's or of wrtflow-net's. Only the lines above tell anything."""
        try:
            self._observe(text, now)
        finally:
            self._found.clear()

    def _observe(self, text: str, now: int) -> None:
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
        self._bind(ip, holder, told, now, self._name_of(rest))

    def _lease6(self, ip_text: str, duid: str, rest: list[str], now: int) -> None:
        ip = address(ip_text)
        if ip is None:
            self.counts["names_invalid"] += 1
            return
        name = self._name_of(rest)
        found = _DUID.fullmatch(duid)
        holder = mac(":".join(found.groups())) if found else None
        if holder is not None or (ip not in self.addresses and name is not None):
            self._bind(ip, holder or "", Told.DUID, now)
        known = self.addresses.get(ip)
        # No name is news too: whoever had the address before may have had one.
        if known is not None and known.name != name and not self._left_out.mac(known.mac):
            self.addresses[ip] = known._replace(name=name)

    def _name_of(self, rest: list[str]) -> str | None:
        """Return the name at the end of a line; None where it has several words or other characters."""
        name = hostname(rest[0]) if len(rest) == 1 else None
        if rest and name is None:
            self.counts["names_invalid"] += 1
        return name and without(name, self._local_domains)

    def _bind(self, ip: str, holder: str, told: Told, now: int, name: str | None = None) -> None:
        """Note that a MAC ("": an unknown one) has an address, unless a surer one told otherwise, or no room is."""
        known = self.addresses.get(ip)
        surer = known is not None and known.told > told and now - known.when < LEASE
        if surer or self._left_out.address(ip):
            return
        room = self._room(holder, told, now)
        # Looked up again: a device that made room has lost its addresses.
        known = self.addresses.get(ip)
        called = known.name if known else None
        if known is not None and known.mac != holder:
            # The new owner gets no name of the former one. But where only a DUID told that one, it may be the same.
            called = called if known.told == Told.DUID else None
            self._shares(known.mac).drop(known.mac, ip)
        if not room or not self._shares(holder).put(holder, ip, now):
            return
        if self._left_out.mac(holder):
            # Forgets what it asked for while it was only an address.
            self._moved(ip)
        self.addresses[ip] = _Address(holder, told, called, now)
        self._see(holder, told, now, name)

    def _see(self, holder: str, told: Told, now: int, name: str | None = None) -> None:
        before, when = self.owners.get(holder, _NOBODY)
        if holder in self.owners or (holder and told != Told.DUID and not self._left_out.mac(holder)):
            self.owners[holder] = name or before, max(when, now)

    def _room(self, holder: str, told: Told, now: int) -> bool:
        """Make room for a device, where it is a new one."""
        if not holder or holder in self.owners or told == Told.DUID or self._left_out.mac(holder):
            return True
        if len(self.owners) >= DEVICES:
            oldest = next(iter(self.owners))
            if oldest in self.shares.owners and now - self.owners[oldest][1] < LATELY:
                self.counts["devices_refused"] += 1
                return False
            self._forget(oldest)
        return True

    def _shares(self, holder: str) -> Shares[str]:
        return self.hidden if self._left_out.mac(holder) else self.shares

    def _dropped(self, ip: str) -> None:
        holder, told = self.addresses[ip][:2]
        del self.addresses[ip]
        if told != Told.DUID:
            self._moved(ip)
        if holder in self.owners and holder not in self.shares.owners:
            self.owners.move_to_end(holder, last=False)

    def _forget(self, holder: str) -> None:
        self.shares.forget(holder)
        del self.owners[holder]


def _eui64_mac(ip: str) -> str | None:
    """Return the MAC that an IPv6 address was made of (RFC 4291, appendix A)."""
    # In its usual form any other address lacks these.
    if "ff:fe" not in ip or address(ip) is None:
        return None
    last = inet_pton(AF_INET6, ip)[8:]
    return mac(bytes((last[0] ^ 2, *last[1:3], *last[5:])).hex(":")) if last[3:5] == b"\xff\xfe" else None
