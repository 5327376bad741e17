"""The ledger: what came in, what was made of it and what became of that, in a row for each minute.

Each second the collector's counters are compared with what they were the second before, and the differences are added
to the row of this minute. The rows are part of the one state: they are written in the same transaction as the counters.
Rows of minutes become rows of hours after _MINUTES, and go after _KEPT.
"""

from __future__ import annotations

import json
import threading
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from wrtflow.clock import Clock
from wrtflow.state import State

# Minutes for which each minute has a row, and for which there are rows at all.
_MINUTES = 3 * 1440
_KEPT = 90 * 1440

# The key of what was noted last of the counters that outlive a restart. A minute's key is minutes since 1970.
_NOTED = 0

# The one number that falls as well: documents in the disk buffer.
_WAITING = "waiting"

Gauges = Mapping[str, typing.Any]


@dataclass
class Row:
    """A minute, or an hour. Counters of a router are called NAME ROUTER; those that are 0 are left out."""

    ms: int = 0  # how much of the time a collector was running
    counts: dict[str, int] = field(default_factory=dict)
    # As they were last: collector.gauges(). A row of an hour has none.
    gauges: dict[str, typing.Any] = field(default_factory=dict)
    # Its health documents are in Elasticsearch.
    sent: bool = False

    @classmethod
    def of(cls, text: str) -> Row:
        """Read what text() has written. ValueError, TypeError, AttributeError: it has not."""
        ms, counts, gauges, sent = json.loads(text)
        return cls(
            int(ms), {str(name): int(count) for name, count in counts.items()}, dict(gauges), bool(sent)
        )

    def text(self) -> str:
        """Write it down."""
        return json.dumps([self.ms, self.counts, self.gauges, self.sent], separators=(",", ":"))

    def add(self, counts: Iterable[tuple[str, int]]) -> None:
        """Add to the counters."""
        for name, count in counts:
            self.counts[name] = self.counts.get(name, 0) + count


_EMPTY = Row().text()


class Ledger:
    """The rows. note() is called by one thread, unsent() and sent() by another."""

    def __init__(self, state: State, clock: Clock, before: Ledger | None = None) -> None:
        """before: the ledger that this one replaces, in the same process."""
        self._clock = clock
        # Written down each: thousands of dicts would take ten times the memory.
        self._rows: dict[int, str] = {}
        self._table = state.table("ledger", lambda: list(self._rows.items()), numbered=True)
        self._unsent: set[int] = set()
        # All counters as they were noted last.
        # Those of routers begin with 0 again.
        carried = before._last if before else {}
        self._last: dict[str, int] = {name: count for name, count in carried.items() if " " not in name}
        # What is counted now, and when the last count was (ms, steady).
        self._minute = 0
        self._row = Row()
        self._noted_at = 0
        self._lock = threading.Lock()
        # A minute is over: its health documents can be made.
        self.closed = threading.Event()

    def load(self, kept: Mapping[str, int]) -> dict[str, int]:
        """Read the rows, and return the kept counters as they were noted last.

        kept: the counters that outlive a restart, as they are now. All others begin with 0.
        """

        def decode(minute: int, text: typing.Any) -> tuple[int, str]:
            Row.of(text)
            return minute, text

        self._rows.update(self._table.load(decode))
        noted = Row.of(self._rows[_NOTED]).counts if _NOTED in self._rows else dict(kept)
        self._last = noted | self._last
        self._unsent = {minute for minute, text in self._rows.items() if minute and not Row.of(text).sent}
        self._noted_at = self._clock.now()
        self._turn(self._clock.wall() // 60_000)
        return noted

    def note(self, counts: Mapping[str, int], kept: Mapping[str, int], gauges: Gauges) -> None:
        """Add what has happened since the last call.

        counts: all counters; kept: those of them that outlive a restart, and what else is to be returned by load().
        """
        with self._lock:
            now = self._clock.now()
            self._row.ms += now - self._noted_at
            self._noted_at = now
            changed = [(name, count) for name, count in counts.items() if count != self._last.get(name, 0)]
            self._row.add((name, self._since(name, count)) for name, count in changed)
            self._last.update(changed)
            minute = self._clock.wall() // 60_000
            # At its end also a minute in which nothing has happened.
            if changed or minute != self._minute:
                self._put(gauges)
            if changed:
                self._set(_NOTED, Row(counts=dict(kept)))
            if minute != self._minute:
                self._turn(minute)

    def unsent(self, most: int) -> list[tuple[int, Row]]:
        """Return the oldest minutes that are over and whose health documents are not sent, but not more than most."""
        with self._lock:
            over = sorted(minute for minute in self._unsent if minute != self._minute)
            return [(minute, Row.of(self._rows[minute])) for minute in over[:most]]

    def sent(self, minutes: Iterable[int]) -> None:
        """Note that the health documents of these minutes need not be sent again."""
        with self._lock:
            for minute in minutes:
                self._unsent.discard(minute)
                if minute in self._rows:
                    row = Row.of(self._rows[minute])
                    row.sent = True
                    self._set(minute, row)

    def __len__(self) -> int:
        """Count the minutes whose health documents wait."""
        return len(self._unsent)

    def _since(self, name: str, count: int) -> int:
        before = self._last.get(name, 0)
        # A counter that has fallen has begun again.
        return count - before if count >= before or name == _WAITING else count

    def _turn(self, minute: int) -> None:
        """Go on with the row of another minute."""
        if minute // 60 != self._minute // 60:
            self._fold(minute)
        self._minute = minute
        # After a restart, or a step of the wall clock, it may have a row.
        self._row = Row.of(self._rows[minute]) if minute in self._rows else Row()
        self.closed.set()

    def _put(self, gauges: Gauges) -> None:
        delay = max(self._row.gauges.get("delay", 0), gauges.get("delay", 0))
        self._row.gauges = {**gauges, "delay": delay}
        self._set(self._minute, self._row)
        if not self._row.sent:
            self._unsent.add(self._minute)

    def _set(self, minute: int, row: Row) -> None:
        text = self._rows[minute] = row.text()
        self._table.put(minute, text)

    def _fold(self, now: int) -> None:
        """Merge old minutes into hours, and forget old hours."""
        self._unsent = {minute for minute in self._unsent if minute >= now - _MINUTES}
        for minute in [minute for minute in self._rows if minute and minute < now - _MINUTES]:
            hour = minute - minute % 60
            if minute != hour:
                row, whole = Row.of(self._rows[minute]), Row.of(self._rows.get(hour, _EMPTY))
                whole.add(row.counts.items())
                whole.ms += row.ms
                whole.gauges, whole.sent = {}, True
                self._set(hour, whole)
            if minute != hour or minute < now - _KEPT:
                del self._rows[minute]
                self._table.delete(minute)
