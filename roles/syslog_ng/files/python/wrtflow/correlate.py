"""NEW and DESTROY become one: open flows wait here for their end.

Open flows are on disk as well, written once a second. A stop and a reload write everything. A kill -9 loses the NEWs of
the last second: their flows end without a start.
"""

from __future__ import annotations

import collections
import itertools
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass

from wrtflow import document
from wrtflow.clock import Clock
from wrtflow.parse import Flow, Reader, Refused, read_json
from wrtflow.places import Place
from wrtflow.routers import Router, Routers
from wrtflow.state import State, Table

# ms. conntrack forgets no flow sooner than this after its last packet. Within it a second NEW of a tuple is the same
# line again. After it the NEW is another flow's, and the DESTROY of the first was lost.
_DOUBLED = 10_000
# ms within which a line may come again.
_REPEATED = 3_600_000
# Open flows of one address, and of all. A NEW beyond is not kept: its flow ends without a start.
_OF_ONE = 50_000
_MOST = 400_000
# Ends to remember at least, and over a restart: they tell a line that comes twice.
_ENDS = 25_000
_ENDS_KEPT = 1_000
# Characters of what a router tells of its boot, and ms that it takes at least.
_BOOT = 256
_BOOTING = 10_000
# Flows are numbered from the ms of the start times this: no two flows of a collector have the same number. The id of a
# flow's document is its number (document.numbered).
_NUMBERS = 128
_LAST = 1 << 62
_id = re.compile("[A-Za-z0-9_-]{8,16}").fullmatch
_DAY = 86_400_000

# The places of ORIG's source and destination and of REPLY's. Empty: not looked up yet.
Ends = tuple[Place, ...]


@dataclass(slots=True, eq=False)
class Event:
    """A flow event of a router, on its way from 20 to 40. What follows left_out is added in 30: the flow has ended."""

    router: Router
    read: Flow
    text: str
    ends: Ends
    at: int  # ms, steady: when it came, or was found out
    left_out: bool = False  # nothing may be stored of it
    action: str = document.END
    id: str = ""  # the document's
    start: int | None = None  # ms, steady: when the NEW came, if that was seen
    name: str | None = None  # the site's name as it was asked for before the NEW


@dataclass(slots=True, eq=False)
class Open:
    """A flow without its end."""

    number: int
    router: Router
    tuple: str
    source: str
    line: str  # the NEW; empty for a flow that is left out
    start: int  # ms, steady: when the NEW came
    due: int  # ms, steady: when the flow ends as flow-timeout
    name: str | None  # the site's name as it was asked for


class Correlate:
    """The open flows of all routers. One thread at a time."""

    def __init__(
        self, routers: Routers, reader: Reader, limit: int, state: State, clock: Clock, counts: dict[str, int]
    ) -> None:
        """limit: seconds that a flow may be open. counts: takes beyond (NEWs) and doubled (DESTROYs)."""
        self._routers = routers
        self._reader = reader
        self._timeout = limit * 1000
        self._clock = clock
        self._number = 0
        # How many flows are open: of each address, and of all.
        self._of: dict[str, int] = {}
        self._size = 0
        # By the hash of a DESTROY's line and router: the document's id. Of the last ends, and of those before them.
        self._ends: dict[int, str] = {}
        self._ends_before: dict[int, str] = {}
        self._last: collections.deque[tuple[tuple[str, str], str]] = collections.deque(maxlen=_ENDS_KEPT)
        self._table = state.table("open", self._dump, once=True, numbered=True)
        self._ended: Table[str] = state.table("ended", self._dump_ended)
        # After a kill, flows up to this number may have ended without the file knowing.
        self._unsure = 0
        # Has that number if the last process ended properly and could write.
        self._stopped = state.table(
            "stopped", lambda: [("stopped", self._unsure)] if self._is_stopped else []
        )
        self._is_stopped = False
        self._counts = counts

    def __len__(self) -> int:
        """Count the open flows."""
        return self._size

    def load(self, away: int, left_out: Callable[[Flow], bool]) -> None:
        """Read the flows that were open before, but of devices left out. away: ms that make no flow older."""
        now = self._clock.now()

        def opened(number: int, row: typing.Any) -> tuple[Open, bool]:
            router, start, line, site = row
            read = self._read(line)
            known = type(start) is int and 0 < number < _LAST and (site is None or isinstance(site, str))
            if not known or not -_DAY < now - away - start < self._timeout + _DAY:
                raise ValueError(row)
            of, due = self._routers.named(router), start + away + self._timeout
            flow = Open(number, of, read.tuple, read.source, line, min(start, now), due, site)
            return flow, left_out(read)

        def ended(row: str, end: str) -> tuple[tuple[str, str], str, bool]:
            router, _, line = row.partition(" ")
            if not _id(end):
                raise ValueError(end)
            return (router, line), end, left_out(self._read(line))

        self._number = now * _NUMBERS
        for flow, gone in self._table.load(opened):
            self._number = max(self._number, flow.number)
            if gone:
                self._table.delete(flow.number)
            else:
                self._add(flow)
        for line, end, gone in self._ended.load(ended):
            if gone:
                self._ended.delete(" ".join(line))
            else:
                self._remember(line, hash(line), end)
        self._unsure = next(self._stopped.load(lambda _, number: int(number)), self._number)

    def start(self) -> None:
        """Note that a stop is still to come."""
        self._is_stopped = False
        self._stopped.delete("stopped")

    def opens(self, event: Event, name: str | None) -> list[Event]:
        """Take a NEW; name: its site's, as it was asked for. Returns a flow whose DESTROY was lost.

        One that is left out is known in memory, so that its end is left out too, whoever has the address by then.
        """
        router, read, now = event.router, event.read, event.at
        lost: list[Event] = []
        known = router.tuples.get(read.tuple)
        if known is not None and read.distinct:
            before = known if isinstance(known, Open) else next(reversed(known.values()))
            if not _gone(before) and self._apart(before, read, now) <= _DOUBLED:
                return lost
            lost = self._times_out(before, now)
        if self._size >= _MOST or self._of.get(read.source, 0) >= _OF_ONE:
            self._counts["beyond"] += 1
            return lost
        self._number += 1
        line = "" if event.left_out else event.text
        self._add(Open(self._number, router, read.tuple, read.source, line, now, now + self._timeout, name))
        if line:
            self._table.put(self._number, (router.id, now, line, name))
        return lost

    def ends(self, event: Event) -> list[Event]:
        """Take a DESTROY. Returns it with what is known of the flow; nothing where nothing may be stored."""
        router, read = event.router, event.read
        # Not a digest, which would cost several times as much: this hash is another one in each process.
        line = router.id, event.text
        key = hash(line)
        before = self._ends.get(key) or self._ends_before.get(key)
        flow = router.tuples.get(read.tuple)
        if not (isinstance(flow, Open) and read.distinct):
            flow = self._first(router, read, before is None)
        if flow is not None and before and self._stamp(flow) > (document.seconds_of_year(read.stamp) or 0):
            # A copy of the line that ended the flow before this one.
            flow = None
        if flow is not None:
            self._remove(flow)
        if event.left_out or (flow is not None and not flow.line):
            return []
        if flow is None:
            # The same line again: its document gets the same id, and Elasticsearch keeps the first.
            self._counts["doubled"] += before is not None
            event.id = before or document.identity(read, " ".join(line))
        else:
            # The same id however a flow ends: after a kill -9 it may end once more.
            event.start, event.name, event.id = flow.start, flow.name, document.numbered(flow.number)
        self._remember(line, key, event.id)
        return [event]

    def expire(self, most: int) -> list[Event]:
        """End flows that are open too long or that a boot of their router ended, but not more than most."""
        now = self._clock.now()
        lost: list[Event] = []
        for router in self._routers:
            # All at once: each search for a dict's first key passes what was deleted before it.
            old = itertools.takewhile(lambda flow: flow.due <= now or _gone(flow), router.open.values())
            for flow in list(itertools.islice(old, most - len(lost))):
                lost += self._times_out(flow, now)
        return lost

    def booted(self, router: Router, teller: str, boot: str, up: int | None) -> None:
        """End the flows that a router had open before it booted; expire() returns them.

        boot: what the same teller tells differently after each boot. up: seconds since then, where that is told.
        """
        boot = boot[:_BOOT]
        before = self._routers.booted(router, teller, boot)
        if up is not None:
            router.started = self._clock.now() - up * 1000
        # The first one of a router may come without a boot: its program has been started.
        if before == boot or (before is None and up is None):
            return
        # One that it was before has been silent since then.
        silent = self._clock.now() - max((up or 0) * 1000, _BOOTING)
        for each in (router, *(one for one in self._routers.earlier(router) if one.heard_at < silent)):
            if up:
                each.gone_before = router.started
            else:
                each.gone = self._number

    def stop(self) -> None:
        """Have the last ends written for the next start."""
        self._ended.whole = self._is_stopped = True
        self._stopped.put("stopped", self._unsure)

    def _first(self, router: Router, read: Flow, anywhere: bool) -> Open | None:
        """Return the flow of a tuple that began first: of this router, or (anywhere) of one that it was.

        A flow that may have ended before a kill would give its id to the end of another: the last one goes first then.
        """
        known = router.tuples.get(read.tuple)
        if isinstance(known, collections.OrderedDict):
            first, last = next(iter(known.values())), next(reversed(known.values()))
            if first.number <= self._unsure < last.number:
                return last
        if anywhere and (known is None or not read.distinct):
            earlier = (_oldest(one.tuples.get(read.tuple)) for one in self._routers.earlier(router))
            return min(filter(None, (_oldest(known), *earlier)), key=lambda flow: flow.number, default=None)
        return _oldest(known)

    def _apart(self, before: Open, read: Flow, now: int) -> int:
        """Tell how many ms two NEWs are apart, by the router's clock where it can be read."""
        seconds, later = self._stamp(before), document.seconds_of_year(read.stamp)
        # A router without a clock begins at the same time with each boot.
        if seconds < 0 or later is None or now - before.start > _REPEATED:
            return now - before.start
        return abs(later - seconds) * 1000

    def _stamp(self, flow: Open) -> int:
        """Return the second of the year of a NEW by the router's clock; -1 where it is not known."""
        seconds = document.seconds_of_year(self._read(flow.line).stamp) if flow.line else None
        return -1 if seconds is None else seconds

    def _read(self, line: str) -> Flow:
        read = read_json(line) if line.startswith("{") else self._reader.read(line)
        if not isinstance(read, Flow):
            raise Refused("no flow")
        return read

    def _times_out(self, flow: Open, now: int) -> list[Event]:
        """End a flow whose DESTROY will not come. Returns it, unless it is left out or log_prefix has changed."""
        self._remove(flow)
        try:
            read = self._read(flow.line)
        except Refused:
            return []
        end = document.numbered(flow.number)
        action, start, name = document.TIMEOUT, flow.start, flow.name
        return [Event(flow.router, read, flow.line, (), now, False, action, end, start, name)]

    def _remember(self, line: tuple[str, str], key: int, end: str) -> None:
        """Note a DESTROY's router and line, their hash, and the id of its document."""
        if len(self._ends) >= _ENDS:
            self._ends, self._ends_before = {}, self._ends
        self._ends[key] = end
        self._last.append((line, end))

    def _add(self, flow: Open) -> None:
        router = flow.router
        router.open[flow.number] = flow
        known = router.tuples.setdefault(flow.tuple, flow)
        if known is not flow:
            if isinstance(known, Open):
                known = router.tuples[flow.tuple] = collections.OrderedDict({known.number: known})
            known[flow.number] = flow
        self._of[flow.source] = self._of.get(flow.source, 0) + 1
        self._size += 1

    def _remove(self, flow: Open) -> None:
        router = flow.router
        del router.open[flow.number]
        known = router.tuples[flow.tuple]
        if not isinstance(known, Open):
            del known[flow.number]
        if known is flow or not known:
            del router.tuples[flow.tuple]
        self._of[flow.source] -= 1
        if not self._of[flow.source]:
            del self._of[flow.source]
        self._size -= 1
        self._table.delete(flow.number)

    def _dump_ended(self) -> list[tuple[str, str]]:
        return [(" ".join(line), end) for line, end in list(self._last)]

    def _dump(self) -> list[tuple[int, tuple[str, int, str, str | None]]]:
        flows = (flow for router in self._routers for flow in list(router.open.values()) if flow.line)
        return [(flow.number, (flow.router.id, flow.start, flow.line, flow.name)) for flow in flows]


def _gone(flow: Open) -> bool:
    """Tell whether a flow's router has booted since its start."""
    return flow.number <= flow.router.gone or flow.start < flow.router.gone_before


def _oldest(flows: Open | collections.OrderedDict[int, Open] | None) -> Open | None:
    return flows if flows is None or isinstance(flows, Open) else next(iter(flows.values()))
