"""The collector: its parts, what they share, and what they do with a line. Free of syslog-ng.

One Collector lives as long as the process. A reload of syslog-ng keeps it unless the settings have changed: then
another one takes over what the first has in memory.
"""

from __future__ import annotations

import functools
import gc
import re
import threading
import typing
from collections.abc import Callable
from pathlib import Path

from wrtflow import health, settings
from wrtflow.clock import Clock
from wrtflow.correlate import Correlate, Event
from wrtflow.document import Calendar
from wrtflow.enrich import SITES, Contacts, Enrich, Registries
from wrtflow.ledger import Ledger, Monitor
from wrtflow.names import Names
from wrtflow.outbox import KEPT, Outbox
from wrtflow.parse import Flow, Line, Reader, Refused, Unparsed, read_json, whole
from wrtflow.places import Databases, LeftOut, Places
from wrtflow.routers import LEFT_OUT, AccessPoints, Router, Routers
from wrtflow.state import State

# Seconds between two writes of what outlives a restart, and ms between two looks for names that are too old.
_SAVE = 1.0
_REFRESH = 60_000
# Seconds after which a silent router is no longer watched.
_SILENT = 7 * 86_400
# Flows that end in one go, while no line is taken.
_EXPIRE = 500
# The line that a kernel begins with.
_first_of_boot = re.compile(r"\[ *0\.0+\] Linux version ").match
_address_at_the_end = re.compile("[0-9A-Fa-f:.-]+$").search
# What a line is; each is one of these.
_LINES = ("new", "destroy", "unparsed", "ignored", "other")
_COUNTED = (*_LINES, "flows", "left_out", "beyond", "doubled", "faults", *SITES.values())


class Collector:
    """The parts of the chain. line() and object() are called by one thread."""

    def __init__(self, chosen: settings.Settings, before: Collector | None = None) -> None:
        """Read nothing yet: start() does. before: the collector that this one replaces; its counters carry over."""
        self.settings = chosen
        self.clock: Clock = before.clock if before else Clock()
        self.state: State = State(chosen.state_file("state.sqlite"), before.state if before else None)
        clock, state = self.clock, self.state
        clock.keep(state)
        self.counts: dict[str, int] = before.counts if before else dict.fromkeys(_COUNTED, 0)
        self._reader = Reader(chosen.log_prefix)
        # Each takes a router's line or JSON object, its sender, and whether it is a piece of a longer line. They return
        # a flow's event; None for anything else, which is learned from or refused.
        self.line = functools.partial(self._take, self._reader.read)
        self.object = functools.partial(self._take, read_json)
        self._unparsed = Unparsed(Path(chosen.log_directory))
        self._left_out = LeftOut(chosen.left_out)
        self._databases = Databases(Path(chosen.geolite_directory))
        self._places = Places(chosen.home_networks, self._left_out, self._databases, state, clock)
        self._routers = Routers(state)
        self._access_points = AccessPoints(state, clock)
        self._contacts = Contacts(state, clock, self._left_out)
        self.names = Names(chosen, state, clock, self._left_out)
        self.outbox: Outbox = Outbox(state, before.outbox if before else None)
        self.correlate = Correlate(
            self._routers, self._reader, chosen.flow_timeout, state, clock, self.counts
        )
        self.enrich = Enrich(
            chosen.index_prefix, self._places, self.names, self._left_out,
            self._access_points, self._contacts, self.outbox, clock,
            Registries(), Calendar(chosen.timezone), self.counts,
        )  # fmt: skip
        self._ledger: Ledger = Ledger(state, clock, before._ledger if before else None)
        self._monitor = Monitor(chosen.delivery, self._ledger)
        self._follows = before is not None
        self._lock = threading.Lock()
        self._loaded = False
        self._finished = False
        self._refresh_names = 0
        self._began = 0
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None

    def start(self) -> None:
        """Read what was kept, where that has not been done, and begin to keep."""
        # Open flows are many objects without cycles: to search all of them for cycles now and then costs too much.
        gc.set_threshold(100_000, 50, 100)
        self._databases.open()
        # The databases may be new ones.
        self._places.clear()
        self.state.open()
        if not self._loaded:
            self._loaded = True
            away = 0 if self._follows else self.clock.load()
            parts = (
                self._places,
                self._routers,
                self._access_points,
                self._contacts,
                self.names,
                self.outbox,
            )
            for part in parts:
                part.load()
            self.correlate.load(away, self._leaves_out)
            noted = self._ledger.load(self._kept())
            for router in self._routers:
                router.unmarked = noted.get(f"unmarked {router.id}", 0)
            self._began = self.clock.now()
        self.correlate.start()
        self.names.start()
        self._finished = False
        self._stop.clear()
        self._keeper = threading.Thread(target=self._keep, name="wrtflow-keeper", daemon=True)
        self._keeper.start()
        self._monitor.start()
        health.register("flows", self.report)
        health.register("databases", self._databases.report)
        health.register("state", self.state.report)
        health.register("senders", self._senders)
        health.register("names", self.names.stats)
        health.register("health_documents", self._monitor.report)
        health.register("routers", self._watched)

    def stop(self) -> None:
        """Write everything."""
        self._stop.set()
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None
        self.names.stop()
        self._monitor.stop()
        self.correlate.stop()
        self.clock.note()
        self._note()
        self.state.save()
        self.state.close()
        self._unparsed.close()

    def report(self) -> dict[str, int]:
        """Return the counters since the start, for the health record."""
        return {
            "lines": self._lines(), **self.counts, "open": len(self.correlate), "routers": len(self._routers),
            "first_contacts": len(self._contacts.met), "first_contacts_beyond": self._contacts.beyond,
            "access_point_flows_beyond": self._access_points.beyond,
        }  # fmt: skip

    def correlated(self, event: Event) -> list[Event]:
        """Take an event of a flow. Returns what has ended with it."""
        with self._lock:
            if event.read.event == "DESTROY":
                return self.correlate.ends(event)
            return self.correlate.opens(event, self.enrich.asked(event.ends, None, event.at))

    def enriched(self, ended: list[Event]) -> None:
        """Put the documents of ended flows into the outbox."""
        with self._lock:
            self._document(ended)

    def _document(self, ended: list[Event]) -> None:
        for flow in ended:
            try:
                self.enrich.take(flow)
            except (ValueError, OverflowError):
                # A flow of a damaged state: addresses that are none, times that can't be.
                self.counts["unparsed"] += 1

    def _take(
        self, reader: Callable[[str], Flow | Line], text: str, sender: str, piece: bool = False
    ) -> Event | None:
        now = self.clock.now()
        try:
            line = whole(text)
            read = reader(line)
            if piece:
                raise Refused("a piece of a longer line")
            router = self._routers.spoke(read.host, sender, now)
            if isinstance(read, Flow):
                event = self._event(router, read, line, now)
            else:
                event = None
                self._learn(router, read)
            router.counts["lines"] += 1
            return event
        except Refused as why:
            # Counted and kept, unless it may be of a device that is left out.
            self.counts["unparsed"] += 1
            if not (self._left_out.any and self._may_be_left_out(text)):
                self._unparsed.write(sender, str(why), text)
        except Exception as error:
            # A line with which the collector can't do. The next one is another.
            self.counts["faults"] += 1
            health.rarely("line", health.ERROR, f"A line met a fault of wrtflow's own: {error!r:.200}")
        return None

    def _event(self, router: Router, read: Flow, text: str, now: int) -> Event | None:
        ends = self.enrich.ends(read)
        if read.event == "UPDATE":
            self.counts["ignored"] += 1
            return None
        source, destination, _, answered = ends
        if source.home and not answered.home and self._places.shows(router.id, answered.ip):
            ends = source, destination, _, answered = self.enrich.ends(read)
        new, left_out = read.event == "NEW", self._left_out.any and self.enrich.leaves_out(*ends)
        if self._access_points.routers:
            if router.id in self._access_points.routers:
                self._access_points.saw(read, LEFT_OUT if left_out else source.ip)
            elif new and not left_out:
                left_out = self.enrich.behind(read)[1]
        event = Event(router, read, text, ends, now, left_out)
        if not new:
            router.counts["ends"] += 1
            # One that is left out, too: its NEW may have come before that was known, and is open.
            self.counts["ignored" if left_out else "destroy"] += 1
            return event
        router.counts["starts"] += 1
        router.unmarked += 1
        if left_out:
            self.counts["ignored"] += 1
            return event
        self.counts["new"] += 1
        if not destination.home:
            self.names.want(destination.ip, source.ip, now)
        if not source.home:
            self.names.want(source.ip, "", now)
        return event

    def _leaves_out(self, read: Flow) -> bool:
        return self._left_out.any and self.enrich.leaves_out(*self.enrich.ends(read))

    def _may_be_left_out(self, text: str) -> bool:
        if not self._reader.begins(text):
            return True
        left_out, names = self._left_out, self.names
        # An address at the end may have been cut.
        cut = _address_at_the_end(text)
        addresses = (ip for mac in left_out.macs for ip in names.addresses(mac))
        if cut and (left_out.begins(cut[0]) or any(ip.startswith(cut[0]) for ip in addresses)):
            return True
        return any(
            left_out.mac(word) or left_out.address(word) or left_out.mac(names.mac(word))
            for word in left_out.words(text)
        )

    def _learn(self, router: Router, read: Line) -> None:
        """Learn from a router's other lines."""
        if read.program and " " not in read.program:
            self._routers.called(router)
        if read.program in ("dnsmasq", "dnsmasq-dhcp", "odhcpd"):
            self.names.observe(router.id, read.program, read.text)
        elif read.program == "wrtflow-net":
            self._tell(router, read.text)
        elif read.program == "kernel" and _first_of_boot(read.text):
            # With its time, because a logread may send all that it has once more.
            self.correlate.booted(router, "kernel", f"{read.stamp} {read.text}", 0)
        self.counts["other"] += 1

    def _tell(self, router: Router, text: str) -> None:
        """Take a line of the router's own script."""
        match text.split():
            case ["neigh" | "lease", *_]:
                self.names.observe(router.id, "wrtflow-net", text)
            case ["networks", *networks]:
                try:
                    changed = self._places.tell(router.id, networks)
                except ValueError as error:
                    sentence = f"{router.id} tells of networks: {error}. They are not taken."
                    health.rarely("networks", health.WARNING, sentence)
                    raise Refused(str(error)) from error
                if changed:
                    # Those of a router that was renamed are its former ones.
                    for earlier in self._routers.earlier(router):
                        self._places.tell(earlier.id, [])
            case ["role", *role]:
                self._access_points.tell(router.id, " ".join(role))
            case ["boot", boot, *up]:
                # Seconds since then, where they are told: flows that have begun since go on.
                told = up and up[0].isdecimal() and len(up[0]) < 10
                self.correlate.booted(router, "wrtflow-net", boot, int(up[0]) if told else None)
            case ["counts", starts, overruns] if max(len(starts), len(overruns)) < 20:
                self._routers.counted(router, starts, overruns)

    def _senders(self) -> dict[str, int]:
        """Return how many lines came from others than the routers: syslog-ng drops them before they come here."""
        received = health.received()
        return {} if received is None else {"strangers": max(0, received - self._lines())}

    def _lines(self) -> int:
        return sum(self.counts[kind] for kind in _LINES)

    def finish(self) -> None:
        """Have the last documents leave: no more lines come, and no more flows end before the next start()."""
        self._expire()
        with self._lock:
            self._finished = True
        self.outbox.stop()

    def _expire(self) -> None:
        more = True
        while more:
            with self._lock:
                if self._finished:
                    return
                lost = self.correlate.expire(_EXPIRE)
                self._document(lost)
            more = len(lost) == _EXPIRE

    def keep(self) -> None:
        """Let go of what is too old, and write what has changed: each second."""
        self._expire()
        self.clock.note()
        self._note()
        self._places.refresh()
        self.state.save()
        # This one looks at all that is known.
        if self.clock.now() >= self._refresh_names:
            self.names.refresh()
            self._refresh_names = self.clock.now() + _REFRESH

    def _note(self) -> None:
        """Have the ledger count what has happened since the last time."""
        record, kept, numbers = health.last(), self._kept(), self.outbox.numbers
        counts = {**self.counts, **typing.cast("dict[str, int]", record.get("senders", {})), **kept}
        unmarked = {}
        for router in self._routers:
            counts.update((f"{name} {router.id}", count) for name, count in router.counts.items())
            unmarked[f"unmarked {router.id}"] = router.unmarked
        ages = [age for age in self._databases.report().values() if isinstance(age, float)]
        gauges = {
            "open": len(self.correlate), "waiting": counts["waiting"], "delay": numbers.delay,
            "faults": list(health.faults(record)), "routers": self._watched(),
            **({"database_age": max(ages)} if ages else {}),
        }  # fmt: skip
        numbers.delay = 0
        self._ledger.note(counts, kept | unmarked, gauges)

    def _watched(self) -> dict[str, typing.Any]:
        """Return of each router the seconds since its last line, and which counts its kernel tells.

        One that has said nothing since the start counts from then on.
        """
        now = self.clock.now()
        silences = ((router, (now - (router.heard_at or self._began)) // 1000) for router in self._routers)
        return {
            router.id: {"silence": silence, "kernel": list(self._routers.kernel(router))}
            for router, silence in silences
            if silence < _SILENT
        }

    def _kept(self) -> dict[str, int]:
        """Return the counters that outlive a restart."""
        return {**{name: self.outbox.numbers[name] for name in KEPT}, "waiting": self.outbox.waiting()}

    def _keep(self) -> None:
        while not self._stop.wait(_SAVE):
            try:
                self.keep()
            except Exception as error:
                # This thread must not end: nothing would outlive a restart any more.
                health.rarely("keeper", health.ERROR, f"a fault of wrtflow's own: {error!r}")


_lock = threading.Lock()
_users = 0
_collector: Collector | None = None


def start() -> Collector | None:
    """Return the one Collector of this process, started; None, and a sentence, if the settings can't be used.

    Counted: each call that returns one has its stop(). A collector that has run before keeps its settings if the new
    ones can't be used: syslog-ng ends where a part of its former configuration fails after one of the new.
    """
    global _users, _collector
    with _lock:
        if _users == 0:
            try:
                loaded = settings.load()
                if _collector is None or _collector.settings != loaded:
                    _collector = Collector(loaded, _collector)
            # Also what only its parts find to be wrong.
            except ValueError as error:
                stay = ", those of before stay" if _collector else ""
                health.say(health.ERROR, f"the settings can't be used{stay}: {error}")
            if _collector is None:
                return None
            _collector.start()
        _users += 1
        return _collector


def stop() -> None:
    """End one use; with the last one everything is written."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0 and _collector is not None:
            _collector.stop()
