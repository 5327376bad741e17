"""The ledger: what came in, what was made of it and what became of that, in a row for each minute.

Each second the collector's counters are compared with what they were the second before, and the differences are added
to the row of this minute. The rows are part of the one state: they are written in the same transaction as the counters.
Rows of minutes become rows of hours after _MINUTES, and are deleted after _KEPT. `wrtflow ledger` reads their sums.

Once a minute the rows also go to Elasticsearch as health documents (files/health-document.yml), with a key of their own
and not through the disk buffer: a fault with them never holds up a flow. Rows that can't be sent wait in the ledger.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import socket
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from wrtflow import health, settings, store
from wrtflow.clock import Clock
from wrtflow.document import timestamp
from wrtflow.state import State, connect

# Minutes for which each minute has a row, and for which there are rows at all.
_MINUTES, _KEPT = 3 * 1440, 90 * 1440
# This row has the counters that outlive a restart, as noted last. Other keys are minutes since 1970.
_NOTED = 0
# The one number that falls as well: documents in the disk buffer.
_WAITING = "waiting"
# So many starts, or this share of all, may be on their way from the router to the collector.
_ON_ITS_WAY, _SHARE = 10, 0.001

# Seconds between two tries to send health documents, and minutes of one request.
_PAUSE, _TOGETHER = 30, 60
# Counters of a health document, by their names in the ledger.
_ROUTER = ("lines", "starts", "ends", "flows", "without_start", "without_end")
_KERNEL = {"kernel_starts": "starts", "kernel_overruns": "overruns"}
_COLLECTOR = ("indexed", "duplicates", "refused", "dropped", "failed_requests", "strangers", "unparsed")
_SITES = ("dns", "ptr", "ptr_unconfirmed", "none")


@dataclass
class Row:
    """A minute, or an hour. Counters of a router are called NAME ROUTER; those that are 0 are left out."""

    ms: int = 0  # how much of the time a collector was running
    counts: Counter[str] = field(default_factory=Counter)
    gauges: dict[str, Any] = field(default_factory=dict)  # as they were last; a row of an hour has none
    sent: bool = False  # its health documents are in Elasticsearch

    @classmethod
    def of(cls, text: str) -> Row:
        """Read what text() has written. ValueError, TypeError, AttributeError: it has not."""
        ms, counts, gauges, sent = json.loads(text)
        counts = Counter({str(name): int(count) for name, count in counts.items()})
        return cls(int(ms), counts, dict(gauges), bool(sent))

    def text(self) -> str:
        """Write it down."""
        return json.dumps([self.ms, self.counts, self.gauges, self.sent], separators=(",", ":"))


class Ledger:
    """The rows. note() is called by one thread, unsent() and sent() by another."""

    def __init__(self, state: State, clock: Clock, before: Ledger | None = None) -> None:
        """before: the ledger that this one replaces, in the same process."""
        self._clock = clock
        # Each as text: thousands of dicts would take ten times the memory.
        self._rows: dict[int, str] = {}
        self._table = state.table("ledger", lambda: list(self._rows.items()), numbered=True)
        self._unsent: set[int] = set()
        # All counters as they were noted last. Those of routers begin with 0 again.
        carried = before._last if before else {}
        self._last: dict[str, int] = {name: count for name, count in carried.items() if " " not in name}
        # The minute that is counted now, and when the last count was (ms, steady).
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
        for minute, text, row in self._table.load(lambda minute, text: (minute, text, Row.of(text))):
            self._rows[minute] = text
            if minute and not row.sent:
                self._unsent.add(minute)
        noted = dict(self._row_of(_NOTED).counts if _NOTED in self._rows else kept)
        self._last = noted | self._last
        self._noted_at = self._clock.now()
        self._turn(self._clock.wall() // 60_000)
        return noted

    def note(self, counts: Mapping[str, int], kept: Mapping[str, int], gauges: Mapping[str, Any]) -> None:
        """Add what has happened since the last call.

        counts: all counters; kept: those of them that outlive a restart, and what else load() shall return.
        """
        with self._lock:
            now = self._clock.now()
            self._row.ms += now - self._noted_at
            self._noted_at = now
            changed = [(name, count) for name, count in counts.items() if count != self._last.get(name, 0)]
            for name, count in changed:
                before = self._last.get(name, 0)
                # A counter that has fallen has begun again.
                goes_on = count > before or name == _WAITING
                self._row.counts[name] += count - before if goes_on else count
            self._last.update(changed)
            minute = self._clock.wall() // 60_000
            # At its end also a minute in which nothing has happened.
            if changed or minute != self._minute:
                delay = max(self._row.gauges.get("delay", 0), gauges.get("delay", 0))
                self._row.gauges = {**gauges, "delay": delay}
                self._set(self._minute, self._row)
                if not self._row.sent:
                    self._unsent.add(self._minute)
            if changed:
                self._set(_NOTED, Row(counts=Counter(kept)))
            if minute != self._minute:
                self._turn(minute)

    def unsent(self) -> list[tuple[int, Row]]:
        """Return the oldest minutes that are over and whose health documents are not sent: those of a request."""
        with self._lock:
            over = sorted(minute for minute in self._unsent if minute != self._minute)
            return [(minute, self._row_of(minute)) for minute in over[:_TOGETHER]]

    def sent(self, minutes: Iterable[int]) -> None:
        """Note that the health documents of these minutes need not be sent again."""
        with self._lock:
            for minute in minutes:
                self._unsent.discard(minute)
                if minute in self._rows:
                    row = self._row_of(minute)
                    row.sent = True
                    self._set(minute, row)

    def __len__(self) -> int:
        """Count the minutes whose health documents wait."""
        return len(self._unsent)

    def _turn(self, minute: int) -> None:
        """Go on with the row of another minute."""
        if minute // 60 != self._minute // 60:
            self._fold(minute)
        self._minute = minute
        # After a restart, or a step of the wall clock, it may have a row.
        self._row = self._row_of(minute)
        self.closed.set()

    def _row_of(self, minute: int) -> Row:
        return Row.of(self._rows[minute]) if minute in self._rows else Row()

    def _set(self, minute: int, row: Row) -> None:
        text = self._rows[minute] = row.text()
        self._table.put(minute, text)

    def _fold(self, now: int) -> None:
        """Merge old minutes into hours, and delete old hours."""
        self._unsent = {minute for minute in self._unsent if minute >= now - _MINUTES}
        for minute in [minute for minute in self._rows if minute and minute < now - _MINUTES]:
            hour = minute - minute % 60
            if minute != hour:
                row, whole = self._row_of(minute), self._row_of(hour)
                # Not +, which would drop what has fallen.
                whole.counts.update(row.counts)
                self._set(hour, Row(whole.ms + row.ms, whole.counts, sent=True))
            if minute != hour or minute < now - _KEPT:
                del self._rows[minute]
                self._table.delete(minute)


class Monitor:
    """Sends the health documents of the ledger's minutes, in a thread of its own."""

    def __init__(self, chosen: settings.Delivery, ledger: Ledger) -> None:
        """Nothing is read or connected before it is needed."""
        self._ledger = ledger
        self._key = Path(chosen.health_key_file)
        self._client = store.Client(dataclasses.replace(chosen, api_key_file=chosen.health_key_file))
        self._condition = health.Condition("Health documents are sent again")
        self._stopped = False

    def start(self) -> None:
        """Send until stop()."""
        self._stopped = False
        threading.Thread(target=self._run, name="wrtflow-monitor", daemon=True).start()

    def stop(self) -> None:
        """End soon. Nobody waits for a request in flight: if it is sent twice, it is stored once."""
        self._stopped = True
        self._ledger.closed.set()

    def report(self) -> health.Report:
        """Return how many minutes wait, for the health record."""
        return {"minutes_waiting": len(self._ledger), **self._condition.report()}

    def send(self) -> None:
        """Send all minutes that are over."""
        # If the role has put no key, nobody wants them.
        while self._key.exists() and (minutes := self._ledger.unsent()):
            host = socket.gethostname()
            sent = [each for minute, row in minutes for each in documents(minute, row, host)]
            answers = self._client.bulk(store.Batch.of(sent))
            if not isinstance(answers, list):
                raise store.Unavailable(answers.name, f"Elasticsearch refuses the request ({answers}).")
            for each, answer in zip(sent, answers, strict=True):
                if answer.status not in (201, 409):
                    what = f"them for {each.target} ({answer}): run playbooks/storage.yml."
                    raise store.Unavailable(answer.name, f"Elasticsearch refuses {what}")
            self._ledger.sent(minute for minute, _ in minutes)
        self._condition.right()

    def _run(self) -> None:
        while not self._stopped:
            try:
                self.send()
            except Exception as error:
                # This thread must not end, and whatever it is, the next try may be better.
                fault = error.fault if isinstance(error, store.Unavailable) else repr(error)
                self._condition.wrong(fault, f"Health documents wait: {error or repr(error)}")
            self._ledger.closed.wait(_PAUSE if self._condition.fault else None)
            self._ledger.closed.clear()
        self._client.close()


def documents(minute: int, row: Row, host: str) -> Iterator[store.Document]:
    """Make the health documents of a minute (since 1970). host: the collector's name."""
    end = timestamp((minute + 1) * 60_000)
    gauges = row.gauges

    def document(kind: str, who: str, numbers: dict[str, Any], **own: Any) -> store.Document:
        event = {"kind": "metric", "dataset": f"wrtflow.{kind}", "duration": row.ms * 1_000_000}
        whole = {
            "@timestamp": end, "ecs": {"version": "8.17.0"}, "host": {"hostname": host}, "event": event, **own,
            "wrtflow": numbers,
        }  # fmt: skip
        which = hashlib.blake2b(f"{host} {who}".encode(), digest_size=6).hexdigest()
        return store.Document(
            f"wrtflow-health-{end[:4]}.{end[5:7]}", f"{minute:x}-{which}", json.dumps(whole)
        )

    for router, about in gauges.get("routers", {}).items():
        name, _, address = router.rpartition("@")
        numbers: dict[str, Any] = {each: row.counts[f"{each} {router}"] for each in _ROUTER}
        numbers["silence"] = about["silence"]
        kernel = {name: row.counts[f"{each} {router}"] for each, name in _KERNEL.items()}
        # A count that the kernel does not tell is left out: it is not 0.
        if told := {name: count for name, count in kernel.items() if name in about["kernel"]}:
            numbers["kernel"] = told
        yield document("router", router, numbers, observer={"hostname": name, "ip": address})
    numbers = {each: row.counts[each] for each in _COLLECTOR}
    numbers |= {each: gauges[each] for each in ("delay", "database_age") if gauges.get(each)}
    numbers |= {each: gauges.get(each, 0) for each in ("open", "waiting")}
    numbers["sites"] = {via: row.counts[f"sites_{via}"] for via in _SITES}
    faults = gauges.get("faults", [])
    numbers["faults"] = len(faults)
    yield document("collector", "", numbers, **({"error": {"message": faults}} if faults else {}))


@dataclass
class Balance:
    """The sums of a window. since, until: its minutes that the ledger has, since 1970."""

    since: int = 0
    until: int = 0
    ms: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    routers: dict[str, Counter[str]] = field(default_factory=dict)

    def differences(self) -> Iterator[tuple[bool, str]]:
        """Go through what is not even: whether flows are lost with it, and a sentence."""
        for router, counts in sorted(self.routers.items()):
            overruns = counts["kernel_overruns"]
            if overruns:
                dropped = f"{router}: the kernel dropped {overruns} events (starts and ends)"
                yield True, f"{dropped} because ulogd was too slow: raise openwrt_netlink_buffer"
            # How many of the dropped events were starts, nobody knows.
            behind = counts["kernel_starts"] - counts["marked"] - overruns
            if behind > max(_ON_ITS_WAY, _SHARE * counts["kernel_starts"]):
                lost = f"{router}: {behind} starts were lost between ulogd and the collector"
                where = "the router's log, the network, or a collector that was away"
                yield True, f"{lost}, and likely as many ends: {where}"
        counts = self.counts
        settled = sum(counts[name] for name in ("indexed", "duplicates", "refused", "dropped"))
        nowhere = counts["flows"] - settled - counts["waiting"]
        for count, is_lost, what in (
            (counts["unparsed"], True, "lines were refused: see /var/log/wrtflow/unparsed.log"),
            (nowhere, True, "documents were made, and it is not known that they were stored:"
             " a crash, a kill -9 or a power cut leaves the last second uncounted"),
            (-nowhere, False, "documents were sent twice, and stored once: a request was repeated after a fault"),
            (counts["dropped"], True, "documents were dropped: the disk buffer was full"),
            (counts["refused"], True, "documents were refused by Elasticsearch: see `wrtflow spool list`"),
            (counts["lost"], True, "refused documents could not be kept: the spool was full or its disk was"),
        ):  # fmt: skip
            if count > 0:
                yield is_lost, f"{count} {what}"
        away = (self.until - self.since) - round(self.ms / 60_000)
        # The first and the last minute may not be whole.
        if away > 2:
            yield False, f"syslog-ng did not run for {away} of {self.until - self.since} minutes"

    def lines(self) -> Iterator[str]:
        """Write the sums for people, line by line."""
        if not self.until:
            yield "The ledger has nothing of this time."
            return
        begin, end = (datetime.fromtimestamp(each * 60).astimezone() for each in (self.since, self.until))
        yield f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M %Z}\n"
        columns = {
            "kernel starts": "kernel_starts", "dropped by kernel": "kernel_overruns", "lines": "lines",
            "starts": "starts", "ends": "ends", "flows": "flows", "without start": "without_start",
            "without end": "without_end",
        }  # fmt: skip
        width = max(map(len, ("router", *self.routers)))
        yield f"{'router':<{width}}  " + "  ".join(columns)
        for router, counts in sorted(self.routers.items()):
            cells = (f"{counts[name]:>{len(title)}}" for title, name in columns.items())
            yield f"{router:<{width}}  " + "  ".join(cells)
        yield ""
        for title, name in (
            ("flow documents made", "flows"),
            ("  stored", "indexed"),
            ("  there already", "duplicates"),
            ("  refused, in the spool", "refused"),
            ("  dropped", "dropped"),
            ("  more in the disk buffer than before", "waiting"),
            ("lines refused", "unparsed"),
            ("lines of strangers", "strangers"),
            ("flows left out", "left_out"),
        ):
            yield f"{title:<38} {self.counts[name]:>10}"
        yield ""
        told = [sentence for _, sentence in self.differences()]
        yield from told or ["The ledger is even: nothing is missing."]


def read(file: Path, since: float, until: float) -> Balance:
    """Add up the rows of a state file. since, until: seconds since 1970. OSError: the file can't be read."""
    window = max(1, int(since // 60)), int(-(-until // 60))
    query = "SELECT key, value FROM ledger WHERE key >= ? AND key < ? ORDER BY key"
    try:
        with contextlib.closing(connect(file, "ro", wait=10)) as database:
            found = database.execute(query, window).fetchall()
    except sqlite3.Error as error:
        raise OSError(f"{file} can't be read: {error}") from error
    balance = Balance()
    for minute, value in found:
        row = Row.of(json.loads(value))
        balance.since = balance.since or minute
        balance.until = minute + 1
        balance.ms += row.ms
        for name, count in row.counts.items():
            what, _, router = name.partition(" ")
            sums = balance.routers.setdefault(router, Counter()) if router else balance.counts
            sums[what] += count
    return balance
