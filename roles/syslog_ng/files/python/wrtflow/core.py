"""The collector's heart: what the parsers share, and what they do with a line, free of syslog-ng.

One Core lives as long as the process; a reload of syslog-ng keeps it, unless the settings have changed.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from wrtflow import document, flow, health, names, networks, settings
from wrtflow.accesspoints import LEFT_OUT, AccessPoints
from wrtflow.firstseen import FirstSeen
from wrtflow.geo import Place, Places, built
from wrtflow.networks import Networks
from wrtflow.openflows import Open, OpenFlows
from wrtflow.outbox import Outbox, tally
from wrtflow.unparsed import Unparsed

# ms. conntrack forgets no flow sooner than this after its last packet: a second NEW of the same tuple within it is the
# same line again, and after it another flow, whose predecessor's DESTROY was lost.
_DOUBLED = 10_000

# ms that a router's clock may be wrong and still be the one that counts (a JSON object comes at once).
_CLOCK = 600_000

# ms that a flow may seem older than the answer that led to it where its times are the router's, and the answer's ours.
_SKEW = 2_000

# Seconds between two writes of what is kept on disk.
_SAVE = 1.0

# Routers that something is remembered of.
_ROUTERS = 1000

# Tuples of flows that are known to be open although grouping-by() has let go of them.
_LEFT = 10_000


# The line that a kernel begins with.
_first_of_boot = re.compile(r"\[ *0\.0+\] Linux version ").match

# Of ORIG's source and destination and of REPLY's.
_Places = tuple[Place, Place, Place, Place]


class Unplaced(Exception):  # noqa: N818 (no error: a question)
    """Addresses have to be looked up first; arguments: source and destination, "" for one that need not be."""


class Core:
    """The parsers' common state. Every method may be called from any thread."""

    def __init__(self, loaded: settings.Settings, before: Core | None = None) -> None:
        """Read nothing yet: start() does. Before: the one whose place it takes; the counters go on."""
        self.settings = loaded
        self.networks = Networks(loaded.home_networks, loaded.left_out, loaded.state_file("networks.json"))
        self.places = Places(self.networks)
        self._left_out_macs = {
            item.upper().replace(":", "-") for item in loaded.left_out if networks.is_mac(item)
        }
        self.names = names.shared(loaded)
        self.open = OpenFlows(loaded.state_file("open.sqlite"))
        self.first = FirstSeen(loaded.state_file("first.sqlite"))
        self.unparsed = Unparsed(Path(loaded.log_directory, "unparsed.log"), loaded.unparsed_size)
        counted = ("new", "destroy", "flows", "unparsed", "ignored", "other", "save_errors")
        self.counts: dict[str, int] = before.counts if before else dict.fromkeys(counted, 0)
        # To end without a DESTROY; the Endings source sends them round through grouping-by().
        self.endings: queue.SimpleQueue[Open | None] = queue.SimpleQueue()
        # Finished, on their way to the disk buffer; the Documents source hands them on.
        self.outbox = Outbox(tally(loaded.tally_file), loaded.delivery.batch_lines)
        self._left: dict[str, list[int]] = {}
        # When a flow last began, and when dnsmasq last said something, in ms since 1970.
        self._begun = self._said = 0
        self._spaced: set[str] = set()
        self._routers: dict[str, str] = {}
        self._boots_file = loaded.state_file("boots.json")
        self._boots: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            self._boots = dict(json.loads(self._boots_file.read_text(encoding="utf-8")))
        self._access_points = AccessPoints(loaded.state_file("access-points.json"))
        # The DESTROY that was read last: it comes back from grouping-by() at once.
        self._last: tuple[str, flow.Flow, _Places] | None = None
        self._stop = False
        self._keeper: threading.Thread | None = None

    def start(self) -> None:
        """Read what was kept and begin to keep."""
        self.names.start()
        self._spaced |= self.open.load()
        self.first.load()
        self._stop = False
        self._keeper = threading.Thread(target=self._keep, name="wrtflow-core", daemon=True)
        self._keeper.start()
        health.register("flows", self.stats)
        health.register("databases", self._databases)
        health.register("senders", self._senders)

    def stop(self) -> None:
        """Write everything."""
        self._stop = True
        self.open.due.set()
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None
        self._save()
        self._access_points.save()
        self.open.close()
        self.unparsed.close()
        self.names.stop()

    def stats(self) -> dict[str, int]:
        """Return the counters since the start, for the health record."""
        lines = sum(self.counts[name] for name in ("new", "destroy", "unparsed", "ignored", "other"))
        return {
            "lines": lines, **self.counts, "open": len(self.open), "first_contacts": len(self.first),
        }  # fmt: skip

    def _senders(self) -> dict[str, int]:
        """Return how many lines came from others than the routers: syslog-ng drops them before they come here."""
        received = health.received()
        return {} if received is None else {"strangers": max(0, received - self.stats()["lines"])}

    def _databases(self) -> dict[str, float]:
        """Return the ages of the GeoLite2 databases in days."""
        databases = built(Path(self.settings.geolite_directory))
        return {name: round((time.time() - when) / 86400, 1) for name, when in databases.items()}

    # Before the correlation.

    def line(self, text: str, sender: str) -> tuple[str, flow.Flow] | None:
        """Take a router's line. Returns the key and the event of a flow, None for anything else.

        flow.Refused: the line looks like a flow and is none, or is no syslog line.
        """
        read = flow.read_line(text)
        if isinstance(read, flow.Line):
            self._other(read, sender)
            return None
        router = self._router(read.host, sender)
        # PRINTFLOW ends each line with a space, and a line that was cut in its last number lacks it: the last one of a
        # connection that broke. Lines out of an editor lack it, too: so a router has to be known for its spaces, by
        # what came before or by flows that are open since before a restart.
        if text[-1] == " ":
            if router not in self._spaced and len(self._spaced) < _ROUTERS:
                self._spaced.add(router)
        elif router in self._spaced:
            raise flow.Refused("the end of the line is missing")
        return self._event(text, read, router)

    def object(self, text: str, sender: str) -> tuple[str, flow.Flow] | None:
        """Take a router's JSON object, as line() does."""
        read = flow.read_json(text)
        return self._event(text, read, self._router(read.host, sender))

    def _router(self, host: str | None, sender: str) -> str:
        """Name a router; one that does not say its name by what it was called before, or by its address."""
        return f"{host or self._routers.get(sender) or sender}@{sender}"

    def opened(self, key: str, text: str) -> int:
        """Note that a flow begins. Returns when, in ms since 1970: no sooner than what dnsmasq said before."""
        moment = now()
        if moment < self._said:
            moment = _now_or(self._said)
        self._begun = self.open.opened(key, moment, text)
        return self._begun

    def refuse(self, sender: str, why: flow.Refused, text: str) -> None:
        """Put a line that line() or object() refused into unparsed.log."""
        self.counts["unparsed"] += 1
        self.unparsed.write(sender, str(why), text)

    def _event(self, text: str, read: flow.Flow, router: str) -> tuple[str, flow.Flow] | None:
        places = self._places(read)
        source, destination, _, answered = places
        if source.home and not answered.home and self.networks.shows(router, answered.ip):
            self.places.clear()
            places = source, destination, _, _ = self._places(read)
        left_out = self._are_left_out(source, destination)
        if self._access_points.routers and read.event != "UPDATE":
            if router in self._access_points.routers:
                self._access_points.saw(read, LEFT_OUT if left_out else source.ip)
            elif read.event == "NEW":
                # The DESTROY has to pass: its NEW may have come before the access point's, and waits for it.
                left_out = left_out or self._is_left_out(self._access_points.device(read))
        if left_out or read.event == "UPDATE":
            self.counts["ignored"] += 1
            if read.event != "DESTROY":
                return None
            # It passes: its NEW may have come before the device was known as one that is left out, and waits for it.
            self._last = text, read, places
        elif read.event == "NEW":
            self.counts["new"] += 1
            if not source.home:
                self.names.want(source.ip)
            if not destination.home:
                self.names.want(destination.ip)
        else:
            self.counts["destroy"] += 1
            self._last = text, read, places
        return f"{router} {read.tuple}", read

    def _is_left_out(self, device: str | None) -> bool:
        """Whether nothing may be stored about a device behind an access point."""
        if not device:
            return device == LEFT_OUT
        place = self.places[device]
        return place.left_out or self._has_left_out_mac(place)

    def _are_left_out(self, source: Place, destination: Place) -> bool:
        """Whether nothing may be stored about a flow between the two."""
        if source.left_out or destination.left_out:
            return True
        return bool(self._left_out_macs) and (
            self._has_left_out_mac(source) or self._has_left_out_mac(destination)
        )

    def _has_left_out_mac(self, place: Place) -> bool:
        return place.home and self.names.device(place.ip).mac in self._left_out_macs

    def _places(self, read: flow.Flow) -> _Places:
        places = self.places
        try:
            source, destination = places[read.source], places[read.destination]
            reply_source, reply_destination = places[read.reply_source], places[read.reply_destination]
        except ValueError as error:
            raise flow.Refused("not an address") from error
        if not source.version == destination.version == reply_source.version == reply_destination.version:
            raise flow.Refused("two families of addresses in one flow")
        return source, destination, reply_source, reply_destination

    def _other(self, read: flow.Line, sender: str) -> None:
        """Learn from a router's other lines."""
        self.counts["other"] += 1
        if read.host and len(self._routers) < _ROUTERS:
            self._routers[sender] = read.host
        router = self._router(read.host, sender)
        if read.program in ("dnsmasq", "dnsmasq-dhcp", "odhcpd"):
            # What is said after a flow's NEW has not led to it, even if it is in the same millisecond.
            self._said = _now_or(self._begun + 1)
            self.names.observe_dnsmasq(router, read.program, read.text, self._said / 1000)
        elif read.program == "wrtflow-net":
            self._told(read, router)
        elif read.program == "kernel" and _first_of_boot(read.text):
            # With its time, because a logread may send all that it has once more.
            self._booted(router, f"{read.stamp} {read.text}", 0, " kernel")

    def _told(self, read: flow.Line, router: str) -> None:
        word, *rest = read.text.split() or [""]
        if word in ("neigh", "lease"):
            self.names.observe_neighbour(router, read.text, time.time())
        elif word == "networks":
            try:
                if self.networks.learn(router, rest):
                    self.places.clear()
            except ValueError as error:
                raise flow.Refused(str(error)) from error
        elif word == "role":
            self._access_points.told(router, " ".join(rest))
        elif word == "boot" and rest:
            # Seconds since then, where they are told: flows that have begun since go on.
            told = len(rest) > 1 and rest[1].isdecimal() and len(rest[1]) < 10
            self._booted(router, rest[0], int(rest[1]) if told else None)

    def _booted(self, router: str, boot: str, up: int | None, teller: str = "") -> None:
        """End the flows that a router had open before it booted, up s ago.

        Boot: what differs from boot to boot, as far as the same teller is asked.
        """
        moment = max(now(), self._begun) + 1 - (up or 0) * 1000
        before = self._boots.get(router + teller)
        if before == boot or len(self._boots) >= _ROUTERS:
            return
        self._boots[router + teller] = boot
        # Kept on disk: a power cut takes the router and the collector alike.
        new = self._boots_file.with_name(f"{self._boots_file.name}.new")
        with contextlib.suppress(OSError):
            new.write_text(json.dumps(self._boots), encoding="utf-8")
            new.replace(self._boots_file)
        # The first one of a router may come without a boot: its program has been started.
        if before is not None or up is not None:
            for lost in self.open.older(moment, router):
                self.endings.put(lost)

    # After the correlation.

    def finished(self, key: str, text: str, opened: str, get: Callable[[str], str] | None) -> None:
        """Put the document of a flow that ended with this line (DESTROY; a JSON object) into the outbox.

        Opened: the NEWs that grouping-by() had, as opening() wrote them, separated by commas.
        Get: what geoip2() found, by name; None before it was asked. Unplaced where it has to be.
        """
        read, places = self._read(text, get)
        lost: list[Open] = []
        times = (self._start(key, read, opened, lost), now()) if read.stamp else _kernel_times(read)
        if read.stamp and not read.distinct:
            # Two that the lines can't tell apart may end in the same second with the same counters: what is open still
            # tells the one from the other, and both from the same line twice.
            text += str(len(self._left.get(key, ())) + len(self.open.before(key)))
        self._document(key, document.END, read, places, times, text)
        # Now, not before: their documents are another thread's, and come behind this one.
        for gone in lost:
            self.endings.put(gone)

    def lost(self, key: str, start: int, text: str, opened: str, get: Callable[[str], str] | None) -> None:
        """Put the document of a flow whose DESTROY will not come into the outbox; text is its NEW line.

        None is made where it has ended.
        """
        read, places = self._read(text, get)
        left = [*self._left.pop(key, ()), *(begun for begun, _ in _openings(opened))]
        self._leave(key, [begun for begun in left if begun != start])
        if start not in left and start not in self.open.before(key):
            # Its DESTROY came at the last moment.
            return
        self.open.closed(key, start)
        self._document(key, document.TIMEOUT, read, places, (start, now()), text)

    def _read(self, text: str, get: Callable[[str], str] | None) -> tuple[flow.Flow, _Places]:
        """Read a flow's line again, and place it."""
        last = self._last
        if last is not None and last[0] == text:
            _, read, places = last
        else:
            again = flow.read_json(text) if text.startswith("{") else flow.read_line(text)
            if not isinstance(again, flow.Flow):
                raise TypeError("line() lets nothing but flows through")
            read, places = again, self._places(again)
        source, destination, _, _ = places
        if not (source.looked_up and destination.looked_up):
            _look_up(source, destination, get)
        return read, places

    def _start(self, key: str, read: flow.Flow, opened: str, lost: list[Open]) -> int | None:
        """Tell when the flow that ends began, in ms since 1970; None where no NEW of it was ever seen.

        Lost: takes the flows whose tuple was used again.
        """
        left = self._left.pop(key, None) if self._left else None
        before = self.open.before(key)
        if opened and "," not in opened and not left and not before:
            start = int(opened[: opened.index(" ")])
            self.open.closed(key, start)
            return start
        openings = _openings(opened)
        # After a reload grouping-by() may still hold what was also read from disk.
        stamps = dict.fromkeys((*(left or ()), *before), "") | dict(openings)
        if not stamps:
            return None
        openings = sorted(stamps.items())
        start, stamp = openings.pop(0)
        if not read.distinct:
            # First in, first out.
            self._leave(key, [begun for begun, _ in openings])
        else:
            for begun, again in openings:
                if _apart(start, stamp, begun, again) > _DOUBLED:
                    self._leave(key, [start])
                    lost += [
                        gone for gone in self.open.older(start + 1) if (gone.key, gone.start) == (key, start)
                    ]
                    start, stamp = begun, again
                else:
                    self.open.closed(key, begun)
        self.open.closed(key, start)
        return start

    def _leave(self, key: str, starts: list[int]) -> None:
        """Remember flows that are still open although grouping-by() has let go of them."""
        starts = [start for start in starts if start not in self.open.before(key)]
        if starts and len(self._left) < _LEFT:
            self._left[key] = sorted({*self._left.get(key, ()), *starts})

    def _document(
        self,
        key: str,
        action: str,
        read: flow.Flow,
        places: _Places,
        times: tuple[int | None, int],
        text: str,
    ) -> None:
        router = key[: key.index(" ")]
        source, destination, translated, _ = places
        if self._are_left_out(source, destination):
            return
        who, observer = source, document.ROUTER
        if self._access_points.routers:
            if router in self._access_points.routers:
                observer = document.ACCESS_POINT
            elif (device := self._access_points.device(read)) is not None:
                if self._is_left_out(device):
                    self.counts["ignored"] += 1
                    return
                who = self.places[device]
        self.counts["flows"] += 1
        where = document.direction(source, destination, translated)
        start, end = times
        asked = (end if start is None else start) + (0 if read.stamp else _SKEW)
        names, via = self._named(where, who, destination, translated, asked / 1000, source)
        # The dashboards show the other router's flow: the contact is first there.
        first = (
            where == "outbound"
            and observer == document.ROUTER
            and self.first.meets(names[0][1], who.ip, destination.country, destination.system)
        )
        moment = start if action == document.TIMEOUT else read.end
        self.outbox.put(
            document.index(self.settings.index_prefix, end),
            document.identity(read.stamp, moment, f"{router} {text}"),
            document.document(read, router, observer, action, times, places, names, via, where, first),
        )

    def _named(
        self, where: str, source: Place, destination: Place, translated: Place, moment: float, seen: Place
    ) -> tuple[tuple[document.Named, document.Named], str]:
        """Name both sides: devices at home by their names, remote ones by the site that the device asked for.

        Seen: the source as the router has it, which is an access point where the flow is another's behind it.
        """
        device, site = self.names.device, self.names.site
        # Behind a port forward, or a redirection.
        behind = translated if translated.home else destination
        if where == "outbound":
            name, via = site(source.ip, destination.ip, moment, None if seen is source else seen.ip)
            return (device(source.ip), (name, None)), via
        if where == "inbound":
            name, via = site(behind.ip, source.ip, moment)
            return ((name, None), device(behind.ip)), via
        if where == "internal":
            return (device(source.ip), device(behind.ip)), "none"
        name, via = site(source.ip, destination.ip, moment)
        return ((site(destination.ip, source.ip, moment)[0], None), (name, None)), via

    # In the background.

    def _keep(self) -> None:
        # Hourly for the default limit, oftener for a short one.
        every = max(1, min(3600, self.settings.flow_timeout // 20))
        looked = time.monotonic()
        while not self._stop:
            self.open.due.wait(_SAVE)
            self._save()
            if time.monotonic() - looked >= every:
                looked = time.monotonic()
                self._expire()

    def _save(self) -> None:
        for part in (self.open, self.first):
            try:
                part.save()
            except sqlite3.Error as error:
                self.counts["save_errors"] += 1
                _rarely.say("save", health.ERROR, f"what has to outlive a restart can't be written: {error}")

    def _expire(self) -> None:
        try:
            for lost in self.open.older(now() - self.settings.flow_timeout * 1000):
                self.endings.put(lost)
        except sqlite3.Error as error:
            _rarely.say("expire", health.ERROR, f"open flows can't be read: {error}")


_rarely = health.Rarely()


def _look_up(source: Place, destination: Place, get: Callable[[str], str] | None) -> None:
    if get is None:
        raise Unplaced("" if source.looked_up else source.ip, "" if destination.looked_up else destination.ip)
    if not source.looked_up:
        source.put(lambda name: get(f"place.source.{name}"))
    if not destination.looked_up:
        destination.put(lambda name: get(f"place.destination.{name}"))


def opening(start: int, stamp: str) -> str:
    """Write what grouping-by() keeps of a NEW: start is in ms since 1970."""
    return f"{start} {stamp}"


def _apart(start: int, stamp: str, begun: int, again: str) -> int:
    """Tell how many ms two NEWs are apart, by the router's clock where it can be read."""
    seconds, later = document.seconds_of_year(stamp), document.seconds_of_year(again)
    return begun - start if seconds is None or later is None else abs(later - seconds) * 1000


def _openings(opened: str) -> list[tuple[int, str]]:
    if "," not in opened:
        start, _, stamp = opened.partition(" ")
        return [(int(start), stamp)] if start else []
    return [opening for item in opened.split(",") for opening in _openings(item.strip('"'))]


def _kernel_times(read: flow.Flow) -> tuple[int | None, int]:
    """Return start and end in ms since 1970; moved to now where the router's clock is plainly wrong."""
    moment = now()
    if read.end is None:
        return None, moment
    wrong = moment - read.end
    if abs(wrong) < _CLOCK:
        wrong = 0
    return None if read.start is None else min(read.start, read.end) + wrong, read.end + wrong


def _now_or(moment: int) -> int:
    """Return the time in ms since 1970, or a moment that is still to come (not where the clock was put back)."""
    present = now()
    return moment if present < moment < present + 1000 else present


def now() -> int:
    """Return the time in ms since 1970."""
    return time.time_ns() // 1_000_000
