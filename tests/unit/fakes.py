"""The collector without syslog-ng, network and threads, and with a clock that the test sets."""

from __future__ import annotations

import json
import typing
from pathlib import Path

from house import settings as house
from wrtflow import clock, collector, parsers
from wrtflow.collector import Collector
from wrtflow.names import Device
from wrtflow.outbox import Numbers as Counted
from wrtflow.state import State

SECOND, HOUR, DAY, YEAR = 1_000, 3_600_000, 86_400_000, 365 * 86_400_000

# 2026-11-24T03:13:47Z
START = 1_795_490_027_000

SENDER = "192.168.1.1"
LAPTOP, TABLET, SITE, OUTER = "10.77.0.20", "10.77.0.21", "198.18.1.80", "198.18.0.1"


def line(
    event: str,
    source: str = LAPTOP,
    destination: str = SITE,
    port: int = 57534,
    *,
    at: str = "Nov 24 03:13:47",
    host: str = "OpenWrt",
    octets: tuple[int, int] = (3371, 1301),
    reply: tuple[str, str] | None = None,
    ping: bool = False,
) -> str:
    """Return one of ulogd's lines. reply: REPLY's source and destination; by default behind OUTER's NAT."""
    back, to = reply or (destination, OUTER)
    name, ports, ports_back = ("TCP", f" SPT={port} DPT=443", f" SPT=443 DPT={port}")
    if ping:
        name, ports, ports_back = "ICMP", " TYPE=0 CODE=8", " TYPE=0 CODE=0"
    counters = [(0, 0), (0, 0)] if event == "NEW" else [(9, octets[0]), (8, octets[1])]
    return (
        f"<150>{at} {host} ulogd[1868]: [{event}] ORIG: SRC={source} DST={destination} PROTO={name}{ports}"
        f" PKTS={counters[0][0]} BYTES={counters[0][1]} , REPLY: SRC={back} DST={to} PROTO={name}{ports_back}"
        f" PKTS={counters[1][0]} BYTES={counters[1][1]} "
    )


def told(text: str, program: str = "wrtflow-net", host: str = "OpenWrt") -> str:
    """Return any other line of a router."""
    return f"<30>Nov 24 03:13:40 {host} {program}: {text}"


OBJECT = {
    "timestamp": "2026-11-24T03:13:47", "dvc": "OpenWrt", "orig.ip.protocol": 6, "orig.l4.sport": 57534,
    "orig.l4.dport": 443, "orig.raw.pktlen": 3371, "orig.raw.pktcount": 9, "reply.ip.protocol": 6,
    "reply.l4.sport": 443, "reply.l4.dport": 57534, "reply.raw.pktlen": 1301, "reply.raw.pktcount": 8, "ct.mark": 0,
    "ct.id": 145926108, "ct.event": 4, "oob.family": 2, "oob.protocol": 0, "src_ip": LAPTOP, "dest_ip": SITE,
    "reply.ip.saddr.str": SITE, "reply.ip.daddr.str": OUTER,
}  # fmt: skip


def json_line(**changes: object) -> str:
    """One of ulogd's objects, a DESTROY. changes: members, their dots written as two underscores."""
    return json.dumps(OBJECT | {name.replace("__", "."): value for name, value in changes.items()})


class Clock(clock.Clock):
    """Stands still unless the test moves it."""

    def __init__(self, wall: int = START) -> None:
        """wall: ms since 1970."""
        self.steady = self.by_wall = wall

    def now(self) -> int:
        return self.steady

    def wall(self) -> int:
        return self.by_wall

    def _set(self, milliseconds: int) -> None:
        self.steady = milliseconds

    def passes(self, milliseconds: int) -> None:
        self.steady += milliseconds
        self.by_wall += milliseconds

    def steps(self, milliseconds: int) -> None:
        """The wall clock is set."""
        self.by_wall += milliseconds


class Kept:
    """A part of the collector with its state file; kind: its class."""

    kind: typing.Any

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.folder, self.clock = folder, clock or Clock()
        self.state = State(folder / "state.sqlite")
        self.clock.keep(self.state)
        self.part = self.kind(self.state, self.clock)
        self.state.open()
        self.clock.load()
        self.part.load()

    def again(self, clock: Clock | None = None) -> typing.Self:
        """Return the same part after a restart."""
        self.clock.note()
        self.state.save()
        self.state.close()
        return type(self)(self.folder, clock or Clock(self.clock.by_wall))


class Names:
    """Names from dicts that the test fills."""

    def __init__(self, *_: object) -> None:
        self.macs: dict[str, str] = {}
        self.sites: dict[tuple[str, str], str] = {}
        self.reversed: dict[str, tuple[str, str]] = {}
        self.called: dict[str, str] = {}
        self.wanted: list[str] = []
        self.observed: list[tuple[str, ...]] = []
        self.asked_at: list[tuple[str, str, int | None]] = []

    def asked(self, device: str, remote: str, at: int | None = None) -> str | None:
        self.asked_at.append((device, remote, at))
        return self.sites.get((device, remote))

    def reverse(self, ip: str) -> tuple[str | None, str]:
        return self.reversed.get(ip, (None, "none"))

    def device(self, ip: str) -> Device:
        return Device(self.called.get(ip), self.macs.get(ip))

    def mac(self, ip: str) -> str | None:
        return self.macs.get(ip)

    def addresses(self, mac: str) -> list[str]:
        return [ip for ip, owner in self.macs.items() if owner == mac]

    def want(self, ip: str, device: str = "", now: int = 0) -> None:
        self.wanted.append(ip)

    def observe(self, *what: str) -> None:
        self.observed.append(what)

    def stats(self) -> dict[str, int]:
        return {}

    def nothing(self) -> None:
        pass

    load = refresh = start = stop = nothing


class Outbox:
    """Keeps the documents in a list."""

    def __init__(self, state: object, before: Outbox | None = None) -> None:
        self.put_: list[tuple[str, str, dict[str, typing.Any]]] = before.put_ if before else []
        self.numbers = Counted()

    def waiting(self) -> int:
        return len(self.put_)

    def load(self) -> None:
        pass

    stop = load

    def put(self, document: str) -> None:
        action, text = document.split("\n")
        self.put_.append((*json.loads(action)["create"].values(), json.loads(text)))


class Chain:
    """The fragments 20, 30 and 40 in a row. keep() does the work of each second."""

    def __init__(self, folder: Path, clock: Clock | None = None, **settings: typing.Any) -> None:
        self.folder = folder
        self.clock = clock or Clock()
        home = ("10.77.0.0/24", "fd77:0:0:1::/64", "192.168.8.0/24")
        self.settings: dict[str, typing.Any] = {"home_networks": home, **settings}
        self._start(None)

    def _start(self, before: Collector | None) -> None:
        made = collector.Clock
        collector.Clock = lambda: self.clock  # type: ignore[assignment,misc]
        try:
            self.collector = Collector(house(self.folder, **self.settings), before)
        finally:
            collector.Clock = made  # type: ignore[misc]
        self.collector.start()
        self.names = typing.cast(Names, self.collector.names)
        self.outbox = typing.cast(Outbox, self.collector.outbox)

    def send(self, text: str, sender: str = SENDER) -> list[dict[str, typing.Any]]:
        """Take a line or an object; returns the documents that came of it."""
        before = len(self.outbox.put_)
        event = (self.collector.object if text.startswith("{") else self.collector.line)(text, sender)
        if event is not None:
            self.collector.enriched(self.collector.correlated(event))
        return [document for _, _, document in self.outbox.put_[before:]]

    def keep(self) -> list[dict[str, typing.Any]]:
        before = len(self.outbox.put_)
        self.collector.keep()
        return [document for _, _, document in self.outbox.put_[before:]]

    def restart(self, clock: Clock | None = None, *, kill: bool = False, **settings: typing.Any) -> None:
        """Another process. kill: nothing is written any more."""
        if not kill:
            self.collector.stop()
        self.clock = clock or Clock(self.clock.by_wall)
        self.settings |= settings
        outbox, names = self.outbox, self.names
        self._start(None)
        outbox, self.outbox.put_ = self.outbox, outbox.put_
        self.names.__dict__.update(names.__dict__)

    def reload(self, **settings: typing.Any) -> None:
        """Other settings, in the same process."""
        self.settings |= settings
        before, names = self.collector, self.names
        before.stop()
        self._start(before)
        self.names.__dict__.update(names.__dict__)

    @property
    def counts(self) -> dict[str, int]:
        return self.collector.report()

    @property
    def lines(self) -> list[str]:
        """The open flows of devices that are not left out."""
        flows = [flow for router in self.collector._routers for flow in router.open.values()]
        return [flow.line for flow in flows if flow.line]

    @property
    def identities(self) -> list[str]:
        return [identity for _, identity, _ in self.outbox.put_]

    @property
    def unparsed(self) -> str:
        file = self.folder / "unparsed.log"
        return file.read_text() if file.exists() else ""


class Message(dict[str, bytes]):
    """As syslog-ng's message: values that are set as text are read as bytes."""

    def __init__(self, text: str | bytes = b"", sender: str = SENDER) -> None:
        super().__init__()
        self["MESSAGE"] = text
        self["SOURCEIP"] = sender

    def __setitem__(self, name: str, value: str | bytes) -> None:
        super().__setitem__(name, value if isinstance(value, bytes) else value.encode())


PARTS = (parsers.Parse, parsers.ParseJson, parsers.Correlate, parsers.Enrich, parsers.Documents)
