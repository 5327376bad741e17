"""The way of finished documents into syslog-ng's disk buffer: those of 50 ms go together, as one message.

Sent one by one, delivery would cost as much CPU as everything before it. The first document goes at once, those of the
pause after it follow together. Until then they are only in memory: a stop and a reload wait for them, a kill -9 loses
them.
"""

from __future__ import annotations

import collections
import queue
import threading
import time
from collections.abc import Callable

from wrtflow import health
from wrtflow.state import Rows, State

# Seconds in which documents gather.
_PAUSE = 0.05
# Documents of a message. Few, because of the smallest buffer (1 MiB): a message without room is dropped as a whole.
TOGETHER = 100
# Messages whose size is remembered: those of several seconds.
_LATELY = 10_000
# The counters that the ledger has of each document.
KEPT = ("indexed", "duplicates", "refused", "lost", "dropped", "failed_requests")


class Numbers:
    """The store's counters by name. Any thread may add."""

    def __init__(self, counts: dict[str, int] | None = None) -> None:
        """counts: the counters now; a State's Rows, if they have to outlive a restart."""
        self._counts = {} if counts is None else counts
        self._lock = threading.Lock()
        # ms from a flow's end to Elasticsearch's answer, the longest since somebody set it to 0.
        self.delay = 0

    def add(self, name: str, count: int = 1) -> None:
        """Count. No number becomes less than 0."""
        with self._lock:
            self._counts[name] = max(0, self[name] + count)

    def __getitem__(self, name: str) -> int:
        """Return one number."""
        return self._counts.get(name, 0)

    def under(self, prefix: str) -> dict[str, int]:
        """Return the numbers whose names begin so, by the rest of their names."""
        counts = list(self._counts.items())
        return {name.removeprefix(prefix): count for name, count in counts if name.startswith(prefix)}


def _count(_: str, count: object) -> int:
    if type(count) is not int or not 0 <= count < 1 << 63:
        raise ValueError(count)
    return count


class Outbox:
    """Takes documents from any thread, hands them on in one, and counts those in the disk buffer.

    syslog-ng counts messages, and what it drops since its start; here documents are counted.
    """

    def __init__(self, state: State, before: Outbox | None = None) -> None:
        """before: the outbox that this one replaces, in the same process."""
        self._kept: Rows[int] = Rows(state, "store")
        self.numbers = Numbers(self._kept)
        self._documents: queue.SimpleQueue[str] = queue.SimpleQueue()
        # Documents since the start, each counted by one thread.
        self._taken = self._posted = 0
        self.dropped: int = before.dropped if before else 0
        # How many messages syslog-ng has dropped, and how many documents the last messages had.
        self._messages_dropped: int = before._messages_dropped if before else 0
        self._lately: collections.deque[int] = before._lately if before else collections.deque(maxlen=_LATELY)

    def load(self) -> None:
        """Go on counting from what the state has."""
        self._kept.load(_count)

    def put(self, document: str) -> None:
        """Take a document: the two lines that _bulk takes."""
        self._taken += 1
        self._documents.put(document)

    def waiting(self) -> int:
        """Count the documents that were put here and are neither settled nor dropped."""
        return self.numbers["waiting"] + self._taken - self._posted

    def stop(self) -> None:
        """End run(), when all that was put before has been handed on."""
        self._documents.put("")

    def run(self, post: Callable[[str], None]) -> None:
        """Hand documents on to post() until stop()."""
        going = True
        while going:
            taken = [self._documents.get()]
            taken += [self._documents.get() for _ in range(self._documents.qsize())]
            going = "" not in taken
            documents = list(filter(None, taken))
            for begin in range(0, len(documents), TOGETHER):
                together = documents[begin : begin + TOGETHER]
                # Counted before: else it could leave before it was there.
                self.numbers.add("waiting", len(together))
                self._posted += len(together)
                self._lately.append(len(together))
                post("\n".join(together))
            if going:
                time.sleep(_PAUSE)

    def report(self, in_hand: bool = False) -> health.Report:
        """Return the disk buffer's numbers for the health record; none if syslog-ng does not answer.

        in_hand: documents have left the buffer that are not settled. waiting, dropped (since syslog-ng's start) and
        dropped_ever: documents; bytes and capacity: of the buffer's file.
        """
        before = self.numbers["waiting"]
        said = health.queue()
        if not said:
            return {}
        if said.get("waiting") == 0 and not in_hand and self.numbers["waiting"] == before:
            # Whatever was counted: after a kill -9 it may be wrong.
            self.numbers.add("waiting", -before)
        messages = said.get("dropped", 0) - self._messages_dropped
        if messages > 0:
            # Most likely these were the last ones.
            count = sum(list(self._lately)[-messages:])
            self.dropped += count
            self.numbers.add("waiting", -count)
            self.numbers.add("dropped", count)
            self._messages_dropped += messages
            sentence = f"{self.dropped} documents have been dropped since syslog-ng's start."
            health.rarely("dropped", health.ERROR, f"The disk buffer is full: {sentence}")
        # Each message has at least one document.
        waiting = max(said.get("waiting", 0), self.numbers["waiting"])
        ever = self.numbers["dropped"]
        return {**said, "waiting": waiting, "dropped": self.dropped, "dropped_ever": ever}
