"""One fault after another under real traffic; the router's kernel says which flows had to arrive."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import faults
import lab
import pytest

#: Seconds without a DESTROY after which the kernel has ended all flows, and that documents may take then.
SILENCE, PATIENCE = 4, 90

#: Seconds that a document's time may be ahead of this machine's clock.
AHEAD = 40

#: One round of the client: short flows of every kind, and one with a name.
ROUND = [
    {"device": lab.LAPTOP, "transport": "tcp", "family": 4, "site": "198.18.1.80", "port": 443, "down": 5_000},
    {"device": lab.LAPTOP, "transport": "tcp", "family": 6, "site": "fd77:0:0:2:3::80", "port": 80, "down": 700},
    {"device": lab.CAMERA, "transport": "udp", "family": 4, "site": "198.18.2.80", "port": 5000, "up": 300},
    {"device": lab.CAMERA, "transport": "tcp", "family": 4, "site": "198.18.2.80", "port": 8080, "up": 2_000},
    {"device": lab.LAPTOP, "transport": "tcp", "family": 4, "site": "news.example", "port": 80, "down": 900},
]  # fmt: skip


@dataclass
class Row:
    """What one fault did to the flows that the kernel has ended meanwhile."""

    fault: str
    seconds: float
    expected: int
    lost: int
    doubled: int
    without_start: int


class Traffic:
    """A context in which the lab's client makes flows without a pause."""

    def __enter__(self) -> Traffic:
        """Begin, and come back after the first round."""
        self.rounds = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.another_round()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop after the round that is under way."""
        self._stop.set()
        self._thread.join()

    def another_round(self) -> None:
        """Wait until two more rounds have ended, the second of them begun after this call."""
        until = self.rounds + 2
        lab.wait_for("traffic", lambda: self.rounds >= until, 120)

    def _run(self) -> None:
        while not self._stop.is_set():
            # A round that a fault has cut off is no fault of its own: the kernel says what has been.
            with contextlib.suppress(lab.LabError):
                lab.send_traffic(ROUND * 4)
                self.rounds += 1


def silent(events: lab.KernelEvents, mended: float) -> None:
    """Wait until the kernel has ended flows after the mend, and then all of them."""
    lab.wait_for(
        "the kernel to end all flows",
        lambda: events.flows and mended < events.flows[-1].seen < time.time() - SILENCE,
        120,
    )


@dataclass
class Weighed:
    """What became of the flows that the kernel has ended."""

    expected: int
    lost: list[lab.KernelFlow]
    doubled: int
    without_start: int


def documents(since: float) -> Iterator[dict]:
    """Return all documents since a time. One search returns 10,000 of them at most, so each asks for ten seconds."""
    # Longer than until now: a fault steps the collector's clock.
    while since < time.time() + AHEAD:
        begin, since = since, since + 10
        window = {"gte": int(begin * 1000), "lt": int(since * 1000), "format": "epoch_millis"}
        yield from lab.documents({"range": {"@timestamp": window}})


def weigh(events: lab.KernelEvents, since: float, unheard: tuple[float, float]) -> Weighed:
    """Compare the documents since a time with the kernel's events. unheard: when nobody listened to the kernel."""
    lost: dict[tuple, list[lab.KernelFlow]] = collections.defaultdict(list)
    for flow in events.flows:
        lost[(*flow.key, flow.source_bytes, flow.destination_bytes)].append(flow)
    doubled = without_start = 0
    for document in documents(since):
        if document["event"]["action"] != "flow-end":
            continue
        without_start += "start" not in document["event"]
        octets = document["source"]["bytes"], document["destination"]["bytes"]
        alike = lost[(*lab.document_key(document), *octets)]
        end = datetime.fromisoformat(document["@timestamp"]).timestamp()
        if alike:
            # Ports are used again within seconds. The document belongs to the flow whose end is nearest.
            alike.remove(min(alike, key=lambda flow: abs(flow.seen - end)))
        elif not unheard[0] <= end <= unheard[1]:
            doubled += 1
    missing = [flow for flows in lost.values() for flow in flows]
    return Weighed(len(events.flows), missing, doubled, without_start)


@pytest.fixture(scope="module")
def table(request):
    rows: list[Row] = []
    yield rows
    request.config.stash[faults.TABLE] = rows


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=pytest.mark.long if fault.long else (), id=fault.name)
        for fault in faults.FAULTS
    ],
)
def test_every_flow_is_there_once(fault, table):
    with fault.around(), lab.KernelEvents() as events:
        began = time.time()
        with Traffic() as traffic:
            broken = time.time()
            happening = fault.happen()
            next(happening)
            traffic.another_round()
            next(happening, None)
            if fault.unheard:
                events.listen()
            mended = time.time()
            traffic.another_round()
        silent(events, mended)
        unheard = (broken, mended) if fault.unheard else (0.0, 0.0)
        end = time.monotonic() + PATIENCE

        def missing() -> list[lab.KernelFlow]:
            # What a fault may cost is what ended while it lasted.
            return [flow for flow in weighed.lost if not (fault.why and broken <= flow.seen <= mended)]

        while (weighed := weigh(events, began, unheard)) and missing() and time.monotonic() < end:
            time.sleep(0.5)
    lost, twice = len(weighed.lost), weighed.doubled
    table.append(Row(fault.name, time.time() - began, weighed.expected, lost, twice, weighed.without_start))
    assert weighed.expected > 0
    assert twice == 0, lab.health()
    assert missing() == [], lab.health()
