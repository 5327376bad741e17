"""Where both ends of a flow are and what they are called; the document of it all goes into the outbox."""

from __future__ import annotations

from dataclasses import dataclass

from wrtflow import document
from wrtflow.accesspoints import LEFT_OUT, AccessPoints
from wrtflow.clock import Clock
from wrtflow.contacts import Contacts
from wrtflow.correlate import Ended, Ends
from wrtflow.document import Facts
from wrtflow.names import Device, Names
from wrtflow.outbox import Outbox
from wrtflow.parse import Flow, Refused
from wrtflow.places import LeftOut, Place, Places
from wrtflow.registries import Registries

# ms that a router's clock may be wrong and still be the one that counts.
_CLOCK = 600_000
# Tolerance in ms between a flow's start (the router's clock) and the DNS answer that led to it (our clock).
_SKEW = 2_000
# ms. No flow is open longer: a router that tells an earlier start did not know the time yet.
_LONGEST = 366 * 86_400_000
# What domain_source is counted as.
SITES = {via: f"sites_{via}" for via in ("dns", "ptr", "ptr_unconfirmed", "none")}


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

    def is_left_out(self, ends: Ends) -> bool:
        """Tell whether nothing may be stored of a flow: by either end of ORIG or REPLY."""
        return self.left_out.any and any(map(self._place_left_out, ends))

    def leaves_out(self, read: Flow) -> bool:
        """Tell whether nothing may be stored of a flow. Refused as by ends()."""
        return self.left_out.any and self.is_left_out(self.ends(read))

    def behind(self, read: Flow) -> tuple[Place | None, bool]:
        """Return the device behind an access point, where the flow is one's, and whether it is left out."""
        device = self.access_points.device(read) if self.access_points.routers else None
        if not device:
            return None, device == LEFT_OUT
        place = self.places[device]
        return place, self._place_left_out(place)

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

    def take(self, ended: Ended) -> None:
        """Put the document of a flow into the outbox."""
        read, ends, who, left_out = ended.read, ended.ends, None, False
        if ends is None:
            ends = self.ends(read)
            left_out = self.is_left_out(ends)
        access_point = ended.router.id in self.access_points.routers
        if not (access_point or left_out):
            who, left_out = self.behind(read)
        if left_out:
            self.counts["left_out"] += 1
            return
        start, end, began = self._times(ended)
        facts = self._facts(ended, ends, access_point, who, began)
        self.counts["flows"] += 1
        counts = ended.router.counts
        counts["flows"] += 1
        if ended.action == document.TIMEOUT:
            counts["without_end"] += 1
        elif start is None:
            counts["without_start"] += 1
        self.counts[SITES[facts.domain_source]] += 1
        text = document.document(ended, ends, start, end, facts, self.calendar)
        self.outbox.put(document.index(self.prefix, end // 86_400_000), ended.id, text)

    def _facts(
        self, ended: Ended, ends: Ends, access_point: bool, who: Place | None, began: int | None
    ) -> Facts:
        """Name both sides: devices at home by their names, others by the site that the device asked for."""
        source, destination, translated, _ = ends
        names, inner = self.names, translated if translated.home else destination
        observer = document.ACCESS_POINT if access_point else document.ROUTER
        direction = document.direction(source, destination, translated)
        if direction == "internal":
            device, to = names.device(source.ip), names.device(inner.ip).name
            maker = self._maker(device, source)
            return Facts(observer, direction, device.name, device.mac, to, "none", False, *maker)
        name = (who and self.asked(ends, who, began)) or ended.name
        # Its NEW has asked by its own time. Without a NEW the name that was asked for last is the best guess.
        if not name and (began is None or began != ended.start):
            name = self.asked(ends, None, began)
        site, via = (name, "dns") if name else names.reverse((source if inner.home else destination).ip)
        if direction == "inbound":
            device = names.device(inner.ip)
            maker = self._maker(device, inner)
            return Facts(observer, direction, site, None, device.name, via, False, *maker)
        registered = site and self.registries.registered_domain(site)
        if direction == "external":
            sender = names.reverse(source.ip)[0]
            return Facts(observer, direction, sender, None, site, via, False, None, None, registered)
        home = who or source
        device = names.device(home.ip)
        # The contact is first in the other router's flow: the dashboards show that one.
        first = not access_point and self.contacts.meets(device.mac, home.ip, destination, ended.at)
        called, manufacturer = self._maker(device, home)
        return Facts(
            observer, direction, device.name, device.mac, site, via, first, called, manufacturer, registered
        )

    def _maker(self, device: Device, home: Place) -> tuple[str, str | None]:
        """Return what the device at home is called, and who made it."""
        maker = self.registries.manufacturer(device.mac) if device.mac else None
        return device.name or device.mac or home.ip, maker

    def _times(self, ended: Ended) -> tuple[int | None, int, int | None]:
        """Return start and end in ms since 1970, and the start in ms of the steady clock, as sure as it is."""
        # Both times of the steady clock are moved together: no step of the wall clock is part of a flow.
        ahead = self.clock.ahead()
        wall = ended.at + ahead
        start = None if ended.start is None else ended.start + ahead
        read = ended.read
        if read.end is None:
            return start, wall, ended.start
        # Moved to now where the router's clock is plainly wrong.
        wrong = wall - read.end if abs(wall - read.end) >= _CLOCK else 0
        end = read.end + wrong
        if read.start is not None:
            told = read.start + wrong
            up = ended.router.started
            possible = 0 <= end - told < _LONGEST and (not up or told >= up + ahead - _CLOCK)
            # Else the router got to know the time while the flow was open.
            if possible and (start is None or abs(told - start) < _CLOCK):
                start = told
        return start, end, None if start is None else start - ahead + _SKEW

    def _place_left_out(self, place: Place) -> bool:
        return place.left_out or self.left_out.mac(self.names.mac(place.ip))
