"""What the ledger adds up to in a time window, and where a difference lies: for `wrtflow ledger`."""

from __future__ import annotations

import collections
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from wrtflow.ledger import Row

# Starts that are told and not received, as long as they may be on their way: so many, or this share of all.
_ON_ITS_WAY, _SHARE = 10, 0.001

Counts = collections.Counter[str]


@dataclass
class Balance:
    """The sums of a window. since, until: its minutes that the ledger has, since 1970."""

    since: int = 0
    until: int = 0
    ms: int = 0
    counts: Counts = field(default_factory=collections.Counter)
    routers: dict[str, Counts] = field(default_factory=dict)

    @property
    def settled(self) -> int:
        """Count the documents that need no more care: stored, refused or dropped."""
        return sum(self.counts[name] for name in ("indexed", "duplicates", "refused", "dropped"))

    def differences(self) -> Iterator[tuple[bool, str]]:
        """Go through what is not even: whether flows are lost with it, and a sentence."""
        for router, counts in sorted(self.routers.items()):
            yield from self._on_the_way(router, counts)
        counts = self.counts
        if counts["unparsed"]:
            yield True, f"{counts['unparsed']} lines were refused: see /var/log/wrtflow/unparsed.log"
        nowhere = counts["flows"] - self.settled - counts["waiting"]
        if nowhere > 0:
            yield (
                True,
                f"{nowhere} documents were made, and it is not known that they were stored:"
                " a crash, a kill -9 or a power cut leaves the last second uncounted",
            )
        elif nowhere < 0:
            yield (
                False,
                f"{-nowhere} documents were sent twice, and stored once: a request was repeated after a fault",
            )
        if counts["dropped"]:
            yield True, f"{counts['dropped']} documents were dropped: the disk buffer was full"
        if counts["refused"]:
            yield (
                True,
                f"{counts['refused']} documents were refused by Elasticsearch: see `wrtflow spool list`",
            )
        if counts["lost"]:
            yield (
                True,
                f"{counts['lost']} refused documents could not be kept: the spool was full or its disk was",
            )
        away = (self.until - self.since) - round(self.ms / 60_000)
        # The first and the last minute may not be whole.
        if away > 2:
            yield False, f"syslog-ng did not run for {away} of {self.until - self.since} minutes"

    @staticmethod
    def _on_the_way(router: str, counts: Counts) -> Iterator[tuple[bool, str]]:
        missing = counts["kernel_starts"] - counts["marked"]
        overruns = counts["kernel_overruns"]
        if overruns:
            yield (
                True,
                f"{router}: the kernel dropped {overruns} events (starts and ends) because ulogd was too slow:"
                " raise openwrt_netlink_buffer",
            )
        # How many of the dropped events were starts, nobody knows.
        behind = missing - overruns
        if behind > max(_ON_ITS_WAY, _SHARE * counts["kernel_starts"]):
            yield (
                True,
                f"{router}: {behind} starts were lost between ulogd and the collector, and likely as many ends:"
                " the router's log, the network, or a collector that was away",
            )


def read(file: Path, since: float, until: float) -> Balance:
    """Add up the rows of a state file. since, until: seconds since 1970. OSError: the file can't be read."""
    try:
        database = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        with database:
            found = database.execute(
                "SELECT key, value FROM ledger WHERE key >= ? AND key < ? ORDER BY key",
                (max(1, int(since // 60)), int(-(-until // 60))),
            ).fetchall()
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
            if router:
                balance.routers.setdefault(router, collections.Counter())[what] += count
            else:
                balance.counts[what] += count
    return balance


def show(balance: Balance) -> Iterator[str]:
    """Write the ledger for people, line by line."""
    if not balance.until:
        yield "The ledger has nothing of this time."
        return
    begin, end = (datetime.fromtimestamp(each * 60).astimezone() for each in (balance.since, balance.until))
    yield f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M %Z}"
    yield ""
    columns = {
        "kernel starts": "kernel_starts", "dropped by kernel": "kernel_overruns", "lines": "lines",
        "starts": "starts", "ends": "ends", "flows": "flows", "without start": "without_start",
        "without end": "without_end",
    }  # fmt: skip
    width = max(6, *(len(router) for router in balance.routers), 0) if balance.routers else 6
    yield f"{'router':<{width}}  " + "  ".join(columns)
    for router, counts in sorted(balance.routers.items()):
        cells = (f"{counts[name]:>{len(title)}}" for title, name in columns.items())
        yield f"{router:<{width}}  " + "  ".join(cells)
    counts = balance.counts
    yield ""
    for title, count in (
        ("flow documents made", counts["flows"]),
        ("  stored", counts["indexed"]),
        ("  there already", counts["duplicates"]),
        ("  refused, in the spool", counts["refused"]),
        ("  dropped", counts["dropped"]),
        ("  more in the disk buffer than before", counts["waiting"]),
        ("lines refused", counts["unparsed"]),
        ("lines of strangers", counts["strangers"]),
        ("flows left out", counts["left_out"]),
    ):
        yield f"{title:<38} {count:>10}"
    yield ""
    told = [sentence for _, sentence in balance.differences()]
    yield from told or ["The ledger is even: nothing is missing."]
