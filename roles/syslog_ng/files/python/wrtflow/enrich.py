"""Where both ends of a flow are and what they are called; the document of it all goes into the outbox."""

from __future__ import annotations

import csv
import functools
import ipaddress
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import publicsuffix2  # type: ignore[import-untyped]

from wrtflow import document, health
from wrtflow.clock import Clock
from wrtflow.correlate import Ends, Event
from wrtflow.document import Facts
from wrtflow.names import Device, Names
from wrtflow.outbox import Outbox
from wrtflow.parse import Flow, Refused
from wrtflow.places import LeftOut, Place, Places
from wrtflow.routers import LEFT_OUT, AccessPoints
from wrtflow.state import Rows, State

_List = typing.TypeVar("_List")
_DAY = 86_400_000

# ms that a router's clock may be wrong and still be the one that counts.
_CLOCK = 600_000
# Tolerance in ms between a flow's start (the router's clock) and the DNS answer that led to it (our clock).
_SKEW = 2_000
# ms. No flow is open longer: a router that tells an earlier start did not know the time yet.
_LONGEST = 366 * _DAY
# What domain_source is counted as.
SITES = {via: f"sites_{via}" for via in ("dns", "ptr", "ptr_unconfirmed", "none")}
# Contacts of one device, and of all; what is beyond is never called first.
_CONTACTS_OF_ONE = 10_000
_CONTACTS = 500_000
# Days to remember a contact after its last time.
_CONTACT_DAYS = 400
# Entries of the short cut for what was asked today.
_ASKED = 100_000
# Debian's package ieee-data: IEEE's registries of MAC prefixes of 24, 28 and 36 bits.
_IEEE = Path("/usr/share/ieee-data")
_LISTS = ("oui.csv", "mam.csv", "oui36.csv")
# Hexadecimal digits of a prefix, the longest first: a registered block may be sold in parts.
_LENGTHS = (9, 7, 6)
# The owner of the blocks that are sold in parts: nobody's maker.
_NOBODY = "IEEE Registration Authority"
#: A MAC that the device chose itself (the locally administered bit is set), as phones do.
PRIVATE = "private MAC address"


@dataclass
class Enrich:
    """The way from an ended flow to its document. One thread at a time."""

    prefix: str  # the first part of the indices' names
    places: Places
    names: Names
    left_out: LeftOut
    access_points: AccessPoints
    contacts: Contacts
    outbox: Outbox
    clock: Clock
    registries: Registries
    calendar: document.Calendar
    counts: dict[str, int]  # takes flows, left_out, and sites_… by domain_source

    def ends(self, read: Flow) -> Ends:
        """Place the ends of ORIG and REPLY. Refused where they are no addresses of one family."""
        places = self.places
        try:
            source, destination = places[read.source], places[read.destination]
            reply_source, reply_destination = places[read.reply_source], places[read.reply_destination]
        except ValueError as error:
            raise Refused("not an address") from error
        if not source.version == destination.version == reply_source.version == reply_destination.version:
            raise Refused("two families of addresses in one flow")
        return source, destination, reply_source, reply_destination

    def leaves_out(self, *places: Place) -> bool:
        """Tell whether nothing may be stored of a flow with these ends."""
        left_out, mac = self.left_out, self.names.mac
        return left_out.any and any(place.left_out or left_out.mac(mac(place.ip)) for place in places)

    def behind(self, read: Flow) -> tuple[Place | None, bool]:
        """Return the device behind an access point, where the flow is one's, and whether it is left out."""
        device = self.access_points.device(read) if self.access_points.routers else None
        if not device:
            return None, device == LEFT_OUT
        place = self.places[device]
        return place, self.leaves_out(place)

    def asked(self, ends: Ends, who: Place | None = None, at: int | None = None) -> str | None:
        """Return the name that a device asked for before this flow; at: ms, steady, None for now.

        who: the device, where it is not the end that is at home.
        """
        source, destination, translated, _ = ends
        if source.home:
            inside = destination.home or translated.home
            return None if inside else self.names.asked((who or source).ip, destination.ip, at)
        inner = translated if translated.home else destination
        return self.names.asked(inner.ip, source.ip, at) if inner.home else None

    def take(self, flow: Event) -> None:
        """Put the document of an ended flow into the outbox."""
        ends, router, who, left_out = flow.ends, flow.router, None, False
        if not ends:
            ends = self.ends(flow.read)
            left_out = self.leaves_out(*ends)
        access_point = router.id in self.access_points.routers
        if not (access_point or left_out):
            who, left_out = self.behind(flow.read)
        if left_out:
            self.counts["left_out"] += 1
            return
        start, end, began = self._times(flow)
        facts = self._facts(flow, ends, access_point, who, began)
        text = document.document(flow, ends, start, end, facts, self.calendar, self.prefix)
        self.counts["flows"] += 1
        self.counts[SITES[facts.domain_source]] += 1
        router.counts["flows"] += 1
        if flow.action == document.TIMEOUT:
            router.counts["without_end"] += 1
        elif start is None:
            router.counts["without_start"] += 1
        self.outbox.put(text)

    def _facts(
        self, flow: Event, ends: Ends, access_point: bool, who: Place | None, began: int | None
    ) -> Facts:
        """Name both sides: devices at home by their names, others by the site that the device asked for."""
        source, destination, translated, _ = ends
        names, inner = self.names, translated if translated.home else destination
        observer = document.ACCESS_POINT if access_point else document.ROUTER
        direction = document.direction(source, destination, translated)
        facts = Facts(observer, direction)
        if direction == "internal":
            facts.destination_name = names.device(inner.ip).name
            facts.source_name, facts.source_mac = self._device(facts, source)
            return facts
        name = (who and self.asked(ends, who, began)) or flow.name
        # Its NEW has asked by its own time. Without a NEW the name that was asked for last is the best guess.
        if not name and (began is None or began != flow.start):
            name = self.asked(ends, None, began)
        site, via = (name, "dns") if name else names.reverse((source if inner.home else destination).ip)
        facts.domain_source = via
        if direction == "inbound":
            facts.source_name, facts.destination_name = site, self._device(facts, inner).name
            return facts
        facts.destination_name = site
        facts.registered_domain = site and self.registries.registered_domain(site)
        if direction == "external":
            facts.source_name = names.reverse(source.ip)[0]
            return facts
        home = who or source
        facts.source_name, facts.source_mac = self._device(facts, home)
        # The contact is first in the other router's flow: the dashboards show that one.
        if not access_point:
            facts.first_seen = self.contacts.meets(facts.source_mac, home.ip, destination, flow.at)
        return facts

    def _device(self, facts: Facts, home: Place) -> Device:
        """Note what the device at home is called, and who made it. Returns what is known of it."""
        device = self.names.device(home.ip)
        name, mac = device
        facts.device = name or mac or home.ip
        facts.manufacturer = mac and self.registries.manufacturer(mac)
        return device

    def _times(self, flow: Event) -> tuple[int | None, int, int | None]:
        """Return start and end in ms since 1970, and the start in ms of the steady clock, as sure as it is."""
        # Both times of the steady clock are moved together: no step of the wall clock is part of a flow.
        ahead, read = self.clock.ahead(), flow.read
        wall = flow.at + ahead
        start = None if flow.start is None else flow.start + ahead
        if read.end is None:
            return start, wall, flow.start
        # Moved to now where the router's clock is plainly wrong.
        wrong = wall - read.end if abs(wall - read.end) >= _CLOCK else 0
        end = read.end + wrong
        if read.start is not None:
            told, up = read.start + wrong, flow.router.started
            possible = 0 <= end - told < _LONGEST and (not up or told >= up + ahead - _CLOCK)
            # Else the router got to know the time while the flow was open.
            if possible and (start is None or abs(told - start) < _CLOCK):
                start = told
        return start, end, None if start is None else start - ahead + _SKEW


class Contacts:
    """First contacts: which countries and autonomous systems each device has met. One thread at a time."""

    def __init__(self, state: State, clock: Clock, left_out: LeftOut) -> None:
        """Know none."""
        self._clock, self._left_out = clock, left_out
        # "device place" -> the day of the last contact, the oldest first.
        self.met: Rows[int] = Rows(state, "met", owner=_host)
        self._asked: set[tuple[str | None, str, str | None, int | None]] = set()
        self._today = 0
        self.beyond = 0  # contacts beyond the limits

    def load(self) -> None:
        """Read what was met before, but by devices left out."""
        today = self._clock.now() // _DAY

        def decode(contact: str, day: int) -> int:
            if not (_host(contact) and 0 <= day <= today):
                raise ValueError(day)
            return int(day)

        self.met.load(decode)
        for contact in list(self.met):
            device = contact.rpartition(" ")[0]
            if self._left_out.mac(device) or self._left_out.address(device):
                del self.met[contact]

    def meets(self, mac: str | None, address: str, place: Place, now: int) -> bool:
        """Tell whether a device is new to the place's country or system. A device is its MAC, else its address."""
        today = now // _DAY
        if today != self._today or len(self._asked) >= _ASKED:
            self._today = today
            self._asked.clear()
            while self.met and next(iter(self.met.values())) < today - _CONTACT_DAYS:
                del self.met[next(iter(self.met))]
        contact = mac, address, place.country, place.system
        if contact in self._asked:
            return False
        self._asked.add(contact)
        places = place.country, place.system and f"AS{place.system}"
        # Both are noted, also where the first of them is new.
        first = [self._meet(mac, address, where) for where in places if where]
        return any(first)

    def _meet(self, mac: str | None, address: str, where: str) -> bool:
        known = f"{mac or address} {where}"
        last, today = self.met.get(known), self._today
        # What it met before its MAC was known is the address's. The MAC takes it over.
        taken = self.met.drop(f"{address} {where}") if mac else None
        if last is None and (self.met.of[_host(known)] >= _CONTACTS_OF_ONE or len(self.met) >= _CONTACTS):
            self.beyond += 1
            return False
        if last != today:
            self.met[known] = today
        # But not what another one met that had the address long ago.
        return last is None and (taken is None or taken < today - 1)


def _host(contact: str, _: int = 0) -> str:
    """Return whose a contact is: a host may take any address of its /64."""
    device = contact.rpartition(" ")[0]
    return str(ipaddress.IPv6Network(f"{device}/64", strict=False)) if ":" in device else device


class Registries:
    """Who registered a site's name and who made a device, by the registries' lists that Debian packages.

    A list that can't be read leaves its field out and is reported in the log.
    """

    def __init__(self, ieee: Path = _IEEE) -> None:
        """Read the lists. ieee: the folder of IEEE's."""
        self.registered_domain = functools.lru_cache(4096)(self._registered_domain)
        self.manufacturer = functools.lru_cache(4096)(self._manufacturer)
        self._suffixes = _whole(publicsuffix2.PublicSuffixList)
        self._makers: dict[str, str] = {}
        for name in _LISTS:
            self._makers |= _whole(functools.partial(_makers, ieee / name)) or {}

    def _registered_domain(self, name: str) -> str | None:
        """Return the part of a site's name that its owner registered; None for a public suffix itself.

        The rules are those of publicsuffix.org; a top-level domain that is not listed is a public suffix.
        """
        if self._suffixes is None:
            return None
        suffix = self._suffixes.get_tld(name, strict=True)
        labels = name.split(".")
        owned = len(labels) - 1 - (suffix.count(".") + 1 if suffix else 1)
        return ".".join(labels[owned:]) if owned >= 0 else None

    def _manufacturer(self, mac: str) -> str | None:
        """Return who made the device with this MAC (AA-BB-CC-DD-EE-FF), None where no registry knows it."""
        digits = mac.replace("-", "")
        if int(digits[1], 16) & 2:
            return PRIVATE
        return next(filter(None, (self._makers.get(digits[:length]) for length in _LENGTHS)), None)


def _makers(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        makers = {row["Assignment"]: row["Organization Name"].strip() for row in csv.DictReader(file)}
    return {prefix: maker for prefix, maker in makers.items() if maker != _NOBODY}


def _whole(read: Callable[[], _List]) -> _List | None:
    try:
        return read()
    # What a damaged list may raise is nowhere written.
    except Exception as error:
        health.say(health.ERROR, f"A list of site names or MAC prefixes can't be read ({error!r}).")
        return None
