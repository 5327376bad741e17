"""What devices and sites are called. Nothing here waits: only threads of reverse DNS use the network.

A device is its MAC; an address belongs to the MAC that was last seen to have it. Lines that are understood:

    dnsmasq-dhcp  DHCPACK(br-lan) 10.77.0.134 02:aa:bb:cc:dd:01 Camera          name may be missing
    dnsmasq-dhcp  DHCPREPLY(br-lan) fd77::13a 00:03:00:01:02:aa:bb:cc:dd:01 Camera      a DUID in place of the MAC
    dnsmasq-dhcp  SLAAC-CONFIRM(br-lan) fd77::aa:bbff:fecc:dd01 Camera
    odhcpd        DHCPV6 RENEW IA_NA from 0003000102aabbccdd01 on br-lan: ok fd77::13a/128
    wrtflow-net   neigh fd77::aa:bbff:fecc:dd01 02-AA-BB-CC-DD-01
    wrtflow-net   lease 10.77.0.134 02-AA-BB-CC-DD-01 Camera                      name may be missing
    dnsmasq       3 10.77.0.20/40686 query[A] news.example from 10.77.0.20          see passive_dns
"""

from __future__ import annotations

import functools
import re
import threading
from collections import Counter
from collections.abc import Sequence
from socket import AF_INET6, inet_pton
from typing import Any, NamedTuple

from wrtflow import settings
from wrtflow.clock import Clock
from wrtflow.passive_dns import PassiveDns
from wrtflow.places import LeftOut
from wrtflow.reverse_dns import ReverseDns
from wrtflow.shares import NEVER, Shares
from wrtflow.state import Rows, State
from wrtflow.wellformed import LONGEST, address, hostname, mac, spelt, without

DEVICE_TTL = 30 * 86_400_000  # ms after which a device or an address that wasn't seen is forgotten
# Addresses of one MAC, of all, and of all devices left out.
ADDRESSES_OF_DEVICE, ADDRESSES, HIDDEN = 128, 20_000, 2_000
LATELY = 86_400_000  # ms; if the table is full, a device that wasn't seen for so long makes room
UNKNOWN = 120_000  # ms until the MAC of a new address is known: routers tell their neighbours every 30 s
LEASE = 86_400_000  # ms that a lease counts more than a neighbour's MAC: behind a repeater that MAC is the repeater's
# Where the MAC of an address is from, the surer source last. A DUID is made of some interface's MAC, once.
_FROM_DUID, _FROM_NEIGHBOUR, _FROM_LEASE = range(3)
# DUID-LLT and DUID-LL of Ethernet, in hexadecimal.
_DUID = re.compile("(?:00010001.{8}|00030001)(..)(..)(..)(..)(..)(..)")
_NOBODY = None, 0
# Replaced: what made room for the same device's next. Refused: what found no room.
_COUNTED = (
    "addresses_replaced", "addresses_refused", "dns_answers", "dns_queries", "dns_queries_refused",
    "dns_queries_replaced", "dns_refused", "dns_replaced", "names_invalid", "ptr_asked", "ptr_dropped",
    "ptr_failed", "ptr_found", "ptr_none", "ptr_unconfirmed",
)  # fmt: skip


class Device(NamedTuple):
    """What is known of a device; mac as AA-BB-CC-DD-EE-FF."""

    name: str | None
    mac: str | None


class _Binding(NamedTuple):
    mac: str  # empty for an unknown one
    told: int
    name: str | None  # the name that only this address has
    when: int  # ms, steady: when it was seen last


class Names:
    """One collector's knowledge of names. Any method may be called from any thread."""

    def __init__(self, chosen: settings.Settings, state: State, clock: Clock, left_out: LeftOut) -> None:
        """Know nothing yet: load() reads what was kept, start() starts the threads."""
        self._clock, self._left_out = clock, left_out
        self._local_domains = chosen.names.local_domains
        self._static = {
            address(text) or spelt(text) or "": name for text, name in chosen.names.devices.items()
        }
        # By MAC: its name, and when it was seen. A MAC that only a DUID has is not here: it may be that of an interface
        # that is never on the wire. Those without an address come first.
        self.owners: Rows[tuple[str | None, int]] = Rows(state, "devices")
        # Of devices left out, only these are kept.
        self.bindings: Rows[_Binding] = Rows(state, "addresses")
        self.counts: Counter[str] = Counter()
        limits = ADDRESSES, ADDRESSES_OF_DEVICE, DEVICE_TTL, LATELY
        self.shares = Shares(*limits, self._dropped, self.counts, "addresses")
        # Of devices left out, whose flows are known by nothing else: no other device takes these away, and no time.
        self.hidden = Shares(HIDDEN, HIDDEN, NEVER, NEVER, self._dropped, self.counts, "addresses")
        self._passive = PassiveDns(state, self.identity)
        self._reverse = ReverseDns(state, clock, chosen.names.resolvers)
        self.want, self.start, self.stop = self._reverse.want, self._reverse.start, self._reverse.stop
        # Emptied with each line.
        self._cache = functools.lru_cache(ADDRESSES)(self._known)
        # For changes; look-ups need none.
        self._lock = threading.Lock()

    def load(self) -> None:
        """Read the names of before. After State.open(). A time in the future is a wrong clock's, and taken as now."""
        now = self._clock.now()

        def known(key: str, row: Any) -> _Binding:
            holder, told, name, when = row
            if address(key) != key or holder not in ("", mac(holder)) or told not in range(3):
                raise ValueError(key)
            return _Binding(holder, told, name and str(name), min(int(when), now))

        with self._lock:
            self.owners.load(lambda _, row: (row[0] and str(row[0]), min(int(row[1]), now)))
            for holder in self._left_out.macs & self.owners.keys():
                del self.owners[holder]
            self.bindings.load(known)
            for ip, one in sorted(self.bindings.items(), key=lambda row: row[1].when):
                if self._left_out.address(ip) or not self._shares(one.mac).put(one.mac, ip, one.when):
                    del self.bindings[ip]
                elif one.mac in self.owners:
                    self.owners.move_to_end(one.mac)
            self._passive.load(now)
            self._reverse.load(now)

    def observe(self, router: str, program: str, text: str) -> None:
        """Take a line of dnsmasq's query log, of its DHCP server, of odhcpd or of the router's own script."""
        now = self._clock.now()
        with self._lock:
            if program == "dnsmasq":
                self._passive.observe(router, text, now)
            elif len(text) <= LONGEST:
                self._observe(text.split(None, 16), now)
                self._cache.cache_clear()

    def mac(self, ip: str) -> str | None:
        """Return the MAC of the device that has this address."""
        return self._cache(ip).mac

    def identity(self, ip: str) -> str:
        """Return a device's MAC, else its address; "" for one that is left out. ip may be such an identity itself."""
        owner, left_out = self.mac(ip), self._left_out
        return "" if left_out.mac(owner) or left_out.mac(ip) or left_out.address(ip) else owner or ip

    def asked(self, device_ip: str, remote_ip: str, at: int | None = None) -> str | None:
        """Return the name that led a device to a remote: the one it asked for last until at (ms, steady; None: now)."""
        owner, name = self.mac(device_ip), self._passive.name
        when = self._clock.now() if at is None else at
        # Before its MAC was known, the device was its address.
        return (owner and name(owner, remote_ip, when)) or name(device_ip, remote_ip, when)

    def reverse(self, ip: str) -> tuple[str | None, str]:
        """Return an address's name by reverse DNS, and its wrtflow.domain_source: ptr, ptr_unconfirmed or none."""
        name, confirmed = self._reverse.name(ip)
        return name, "none" if name is None else "ptr" if confirmed else "ptr_unconfirmed"

    def device(self, ip: str) -> Device:
        """Return what is known of a device at home; without a name of its own it has that of its reverse DNS.

        Confirmed or not: the house's own resolver often knows no address of such a name ("camera" without a domain).
        """
        device = self._cache(ip)
        if device.name is not None:
            return device
        self._reverse.want(ip, "home")
        name, _ = self._reverse.name(ip)
        return Device(name and without(name, self._local_domains), device.mac)

    def addresses(self, mac: str) -> list[str]:
        """Return the addresses that the MAC of a device left out has."""
        return list(self.hidden.owners.get(mac, ()))

    def refresh(self) -> None:
        """Forget what is too old."""
        now = self._clock.now()
        with self._lock:
            self.shares.refresh(now)
            for holder in [holder for holder, (_, when) in self.owners.items() if now - when > DEVICE_TTL]:
                del self.owners[holder]
            self._cache.cache_clear()
            self._passive.shares.refresh(now)
        self._reverse.refresh(now)

    def stats(self) -> dict[str, int]:
        """Return the counters since the start, and the present sizes, for the health record."""
        return {
            **dict.fromkeys(_COUNTED, 0),
            **(self._passive.counts + self._reverse.counts + self.counts),
            "dns_kept": len(self._passive.records),
            "ptr_waiting": self._reverse.waiting,
            "ptr_kept": len(self._reverse.names),
            "devices_known": len(self.owners),
            "addresses_known": len(self.bindings),
        }

    def _known(self, ip: str) -> Device:
        """Return what is known of the device that has this address, or whose MAC an IPv6 address was made of."""
        known = self.bindings.get(ip)
        holder = known.mac if known else _eui64_mac(ip) or ""
        if not (holder in self.owners or holder in self._static or self._left_out.mac(holder)):
            holder = ""
        own = self._static.get(holder) or self.owners.get(holder, _NOBODY)[0]
        return Device(self._static.get(ip) or own or (known.name if known else None), holder or None)

    def _observe(self, words: list[str], now: int) -> None:
        if words and words[0].isdigit():  # log-dhcp
            del words[0]
        if len(words) < 3:
            return
        verb = words[0].partition("(")[0]
        if verb in ("DHCPACK", "lease"):
            self._lease(words[1], mac(words[2]), _FROM_LEASE, now, words[3:])
        elif verb == "neigh":
            self._lease(words[1], mac(words[2]), _FROM_NEIGHBOUR, now)
        elif verb == "DHCPREPLY" and words[2].count(":") >= 3:  # one without an address has its DUID there
            self._lease(words[1], _duid_mac(words[2]), _FROM_DUID, now, words[3:])
        elif verb == "SLAAC-CONFIRM":
            self._lease(words[1], None, _FROM_DUID, now, words[2:])
        elif verb == "DHCPV6" and words[2:4] == ["IA_NA", "from"] and words[7:8] == ["ok"]:
            for prefix in words[8:16]:
                self._lease(prefix.removesuffix("/128"), _duid_mac(words[4]), _FROM_DUID, now)

    def _lease(self, ip_text: str, holder: str | None, told: int, now: int, rest: Sequence[str] = ()) -> None:
        ip = address(ip_text)
        if ip is None or (holder is None and told != _FROM_DUID):
            self.counts["names_invalid"] += 1
            return
        # A name has no blanks.
        name = hostname(rest[0]) if len(rest) == 1 else None
        if rest and name is None:
            self.counts["names_invalid"] += 1
        name = name and without(name, self._local_domains)
        if holder is not None or (ip not in self.bindings and name is not None):
            self._bind(ip, holder or "", told, now, None if told == _FROM_DUID else name)
        known = self.bindings.get(ip)
        # No name is news too: whoever had the address before may have had one.
        if told == _FROM_DUID and known and known.name != name and not self._left_out.mac(known.mac):
            self.bindings[ip] = known._replace(name=name)

    def _bind(self, ip: str, holder: str, told: int, now: int, name: str | None = None) -> None:
        """Note that a MAC ("": an unknown one) has an address, unless a surer source differs or there is no room."""
        known = self.bindings.get(ip)
        surer = known is not None and known.told > told and now - known.when < LEASE
        if surer or self._left_out.address(ip):
            return
        # A new owner gets no name of the former one. But if only a DUID told that one, it may be the same.
        called = known.name if known and (known.mac == holder or known.told == _FROM_DUID) else None
        if known and known.mac != holder:
            self._shares(known.mac).drop(known.mac, ip)
        if not self._shares(holder).put(holder, ip, now):
            return
        if known is None or known.mac != holder:
            # Who asked from this address long ago, or while the device had another one, may be another device.
            others = [each for each in self._shares(holder).owners[holder] if each != ip]
            same = not self._left_out.mac(holder) and (":" in ip or all(":" in each for each in others))
            self._passive.shares.forget(ip, now - UNKNOWN if same else NEVER)
        self.bindings[ip] = _Binding(holder, told, called, now)
        seen = holder and told != _FROM_DUID and not self._left_out.mac(holder)
        if seen or holder in self.owners:
            self.owners[holder] = name or self.owners.get(holder, _NOBODY)[0], now
        if len(self.owners) > ADDRESSES:
            del self.owners[next(iter(self.owners))]

    def _shares(self, holder: str) -> Shares:
        return self.hidden if self._left_out.mac(holder) else self.shares

    def _dropped(self, ip: str) -> None:
        holder, told = self.bindings[ip][:2]
        del self.bindings[ip]
        if told != _FROM_DUID:
            self._passive.shares.forget(ip, NEVER)
        if holder in self.owners and holder not in self.shares.owners:
            self.owners.move_to_end(holder, last=False)


def _duid_mac(duid: str) -> str | None:
    found = _DUID.fullmatch(duid.replace(":", ""))
    return mac(":".join(found.groups())) if found else None


def _eui64_mac(ip: str) -> str | None:
    """Return the MAC that an IPv6 address was made of (RFC 4291, appendix A)."""
    # In its usual form any other address lacks these.
    if "ff:fe" not in ip or address(ip) is None:
        return None
    last = inet_pton(AF_INET6, ip)[8:]
    return mac(bytes((last[0] ^ 2, *last[1:3], *last[5:])).hex(":")) if last[3:5] == b"\xff\xfe" else None
