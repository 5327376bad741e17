"""NEW and DESTROY become one: open flows wait here for their end.

Open flows are on disk as well, written once a second. A stop and a reload write everything. A kill -9 loses the NEWs of
the last second: their flows end without a start.
"""

from __future__ import annotations

import collections
import itertools
import typing

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
# Ends that are remembered, and those over a restart: they tell a line that comes twice from two flows that ended alike.
# Only lines of the same second can be equal.
_ENDS = 100_000
_ENDS_KEPT = 1_000
# Characters of what a router tells of its boot.
_BOOT = 256
# ms between two notes of the clock on disk, and a step of the wall clock that is noted at once.
_NOTE = 60_000
_STEP = 1_000
_DAY = 86_400_000

# The places of ORIG's source and destination and of REPLY's.
Ends = tuple[Place, Place, Place, Place]


class Event(typing.NamedTuple):
    """A flow event of a router, on its way from 20 to 30."""

    router: Router
    read: Flow
    text: str
    ends: Ends
    at: int  # ms, steady: when it came
    left_out: bool = False  # nothing may be stored of it


class Open(typing.NamedTuple):
    """A flow without its end."""

    number: int
    router: Router
    tuple: str
    source: str
    line: str  # the NEW
    start: int  # ms, steady: when the NEW came
    due: int  # ms, steady: when the flow ends as flow-timeout
    name: str | None  # the site's name as it was asked for


class Ended(typing.NamedTuple):
    """A flow on its way from 30 to 40."""

    router: Router
    read: Flow
    ends: Ends | None
    action: str
    at: int  # ms, steady: when its end came or was found out
    start: int | None  # ms, steady: when its NEW came, if that was seen
    name: str | None  # the site's name as it was asked for before the NEW
    id: str  # the document's


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
        # By the document's id, in the order of the ends: how many flows ended so.
        self._ends: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._table = state.table("open", self._dump, once=True, numbered=True)
        self._last: Table[str] = state.table("ended", lambda: list(self._ends.items())[-_ENDS_KEPT:])
        self._clocks = state.table("clock", lambda: [("clock", self._noted)])
        self._noted = (0, 0)
        self._counts = counts

    def __len__(self) -> int:
        """Count the open flows."""
        return self._size

    def load(self, same_clock: bool = False) -> None:
        """Read the flows that were open before. same_clock: their times are this clock's."""
        now = self._clock.now()
        steady, wall = next(iter(self._clocks.load(lambda _, row: (int(row[0]), int(row[1])))), (now, now))
        # Times of another steady clock are moved to this one. The time without a collector makes no flow older.
        if same_clock:
            steady, wall = now, now
        away = max(0, now - wall)

        def decode(number: int, row: typing.Any) -> Open:
            router, start, line, site = row
            read = self._read(line)
            age = steady - start
            if not (site is None or isinstance(site, str)) or not -_DAY < age < self._timeout + _DAY:
                raise ValueError(row)
            begun, due = min(now - away - age, now), now - age + self._timeout
            return Open(number, self._routers.named(router), read.tuple, read.source, line, begun, due, site)

        self._ends.update(self._last.load(lambda end, number: (end, int(number))))
        for flow in self._table.load(decode):
            self._add(flow)
            self._number = max(self._number, flow.number)
        self.note()

    def opens(self, event: Event, name: str | None) -> list[Ended]:
        """Take a NEW; name: its site's, as it was asked for. Returns a flow whose DESTROY was lost."""
        router, read, now = event.router, event.read, event.at
        lost: list[Ended] = []
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
        flow = Open(self._number, router, read.tuple, read.source, event.text, now, now + self._timeout, name)
        self._add(flow)
        self._table.put(self._number, (router.id, now, event.text, name))
        return lost

    def ends(self, event: Event) -> list[Ended]:
        """Take a DESTROY. Returns the flow; nothing where it is left out, or where the line came before."""
        router, read, text, ends, at, left_out = event
        flow = self._first(router, read.tuple)
        if flow is not None:
            self._remove(flow)
        if left_out:
            return []
        end = document.identity(read, router.id, text)
        twin = self._ends.pop(end, 0)
        if flow is None and twin:
            # The same line again: its document gets the same id, and Elasticsearch keeps the first.
            self._counts["doubled"] += 1
            twin -= 1
        self._ends[end] = twin + 1
        if len(self._ends) > _ENDS:
            self._ends.popitem(last=False)
        if twin:
            end = document.identity(read, router.id, text, twin)
        start, name = (flow.start, flow.name) if flow else (None, None)
        return [Ended(router, read, ends, document.END, at, start, name, end)]

    def expire(self, most: int) -> list[Ended]:
        """End flows that are open too long or that a boot of their router ended, but not more than most."""
        now = self._clock.now()
        lost: list[Ended] = []
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
        if before != boot and (before is not None or up is not None):
            if up:
                router.gone_before = router.started
            else:
                router.gone = self._number

    def stop(self) -> None:
        """Write down the clock and the last ends for the next start."""
        self.note()
        self._last.whole = True

    def note(self) -> None:
        """Note the clock on disk now and then. The next start learns from it how long there was no collector."""
        now, wall = self._clock.now(), self._clock.wall()
        steady, noted = self._noted
        if now - steady >= _NOTE or abs((wall - now) - (noted - steady)) >= _STEP:
            self._noted = now, wall
            self._clocks.put("clock", self._noted)

    def _first(self, router: Router, tuple_: str) -> Open | None:
        """Return the flow of a tuple that began first: of this router, or of one that it was."""
        known = router.tuples.get(tuple_)
        if known is None:
            earlier = (one.tuples.get(tuple_) for one in self._routers.earlier(router))
            known = next((flows for flows in earlier if flows is not None), None)
        return known if known is None or isinstance(known, Open) else next(iter(known.values()))

    def _apart(self, before: Open, read: Flow, now: int) -> int:
        """Tell how many ms two NEWs are apart, by the router's clock where it can be read."""
        seconds = document.seconds_of_year(self._read(before.line).stamp)
        later = document.seconds_of_year(read.stamp)
        # A router without a clock begins at the same time with each boot.
        if seconds is None or later is None or now - before.start > _REPEATED:
            return now - before.start
        return abs(later - seconds) * 1000

    def _read(self, line: str) -> Flow:
        read = read_json(line) if line.startswith("{") else self._reader.read(line)
        if not isinstance(read, Flow):
            raise Refused("no flow")
        return read

    def _times_out(self, flow: Open, now: int) -> list[Ended]:
        """End a flow whose DESTROY will not come. Returns it, unless the log_prefix is another one since."""
        self._remove(flow)
        try:
            read = self._read(flow.line)
        except Refused:
            return []
        end = document.identity(read, flow.router.id, flow.line, flow.number)
        return [Ended(flow.router, read, None, document.TIMEOUT, now, flow.start, flow.name, end)]

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

    def _dump(self) -> list[tuple[int, tuple[str, int, str, str | None]]]:
        flows = (flow for router in self._routers for flow in list(router.open.values()))
        return [(flow.number, (flow.router.id, flow.start, flow.line, flow.name)) for flow in flows]


def _gone(flow: Open) -> bool:
    """Tell whether a flow's router has booted since its start."""
    return flow.number <= flow.router.gone or flow.start < flow.router.gone_before
