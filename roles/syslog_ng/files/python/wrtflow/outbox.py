"""The way of finished documents into syslog-ng's disk buffer: those of a moment go together, as one message.

Sent one by one, delivery would cost as much CPU as everything before it. The first document goes at once; what is
finished in the pause after it follows together. Until then it is in memory alone: a stop and a reload wait for it, a
kill -9 loses it.
"""

from __future__ import annotations

import collections
import queue
import threading
import time
from collections.abc import Callable, Iterable

from wrtflow import health
from wrtflow.state import State

# Seconds in which documents gather.
_PAUSE = 0.05

# Documents of a message. Few, against the smallest buffer (1 MiB): what finds no room is dropped as a whole.
TOGETHER = 100

# While this many bytes of the buffer are free, no message is dropped.
_ROOM = 1 << 20


class Numbers:
    """The store's counters by name. With a state they outlive a restart: after a kill -9, but for the last second."""

    def __init__(self, state: State | None = None) -> None:
        """Count from 0; load() adds what was counted before."""
        self._counts: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self._table = state.table("store", self._rows) if state else None

    def load(self) -> None:
        """Go on counting from what the state has."""
        if self._table:
            for name, count in self._table.load(_row):
                self.add(name, count)

    def add(self, name: str, count: int = 1) -> None:
        """Count. No number becomes less than 0."""
        with self._lock:
            self._counts[name] = number = max(0, self._counts[name] + count)
        if self._table:
            self._table.put(name, number)

    def __getitem__(self, name: str) -> int:
        """Return one number."""
        return self._counts[name]

    def under(self, prefix: str) -> dict[str, int]:
        """Return the numbers whose names begin so, by the rest of their names."""
        return {name.removeprefix(prefix): count for name, count in self._rows() if name.startswith(prefix)}

    def _rows(self) -> Iterable[tuple[str, int]]:
        with self._lock:
            return list(self._counts.items())


def _row(name: str, count: object) -> tuple[str, int]:
    if type(count) is not int or not 0 <= count < 1 << 63:
        raise ValueError(count)
    return name, count


class Outbox:
    """Takes documents from any thread, hands them on in one, and counts those in the disk buffer.

    syslog-ng counts messages, and what it drops since its start; here documents are counted.
    """

    def __init__(self, state: State | None = None, before: Outbox | None = None) -> None:
        """before: the outbox that this one replaces, in the same process."""
        self.numbers = Numbers(state)
        self._documents: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.dropped: int = before.dropped if before else 0
        # What syslog-ng said last: messages dropped, and room. And documents of the messages since.
        self._messages_dropped: int = before._messages_dropped if before else 0
        self._room = 0
        self._unsure: list[int] = []
        self._asks_again = 0.0
        self._rarely: health.Rarely = before._rarely if before else health.Rarely()

    def load(self) -> None:
        """Go on counting from what the state has."""
        self.numbers.load()

    def put(self, index: str, identity: str, document: str) -> None:
        """Take a document. It becomes the two lines that _bulk wants."""
        self._documents.put(f'{{"create":{{"_index":"{index}","_id":"{identity}"}}}}\n{document}')

    def stop(self) -> None:
        """End run(), when all that was put before has been handed on."""
        self._documents.put(None)

    def run(self, post: Callable[[str], None]) -> None:
        """Hand documents on to post() until stop()."""
        going = True
        while going:
            taken = [self._documents.get()]
            while not self._documents.empty():
                taken.append(self._documents.get())
            going = None not in taken
            documents = [document for document in taken if document is not None]
            for begin in range(0, len(documents), TOGETHER):
                together = documents[begin : begin + TOGETHER]
                self._post(post, "\n".join(together), len(together))
            if going:
                time.sleep(_PAUSE)

    def report(self, in_hand: bool = False) -> health.Report:
        """Return the disk buffer's numbers for the health record; none where syslog-ng does not answer.

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
        if self.dropped:
            self._rarely.say(
                "dropped",
                health.ERROR,
                f"The disk buffer is full: {self.dropped} documents have been dropped since syslog-ng's start.",
            )
        return {
            **said,
            # Each message has at least one document.
            "waiting": max(said.get("waiting", 0), self.numbers["waiting"]),
            "dropped": self.dropped,
            "dropped_ever": self.numbers["dropped"],
        }

    def _post(self, post: Callable[[str], None], text: str, count: int) -> None:
        # Counted before: else it could leave before it was there.
        self.numbers.add("waiting", count)
        post(text)
        # A character takes four bytes at most.
        self._room -= 4 * len(text) + 4096
        if self._room < _ROOM:
            self._unsure.append(count)
            if time.monotonic() >= self._asks_again:
                self._look()

    def _look(self) -> None:
        """Ask syslog-ng whether the last messages were dropped."""
        said = health.queue()
        if not said.keys() >= {"dropped", "bytes", "capacity"}:
            # To wait for its answer with each message would hold up the documents.
            self._asks_again = time.monotonic() + 1
            return
        messages = said["dropped"] - self._messages_dropped
        if messages > 0:
            count = sum(self._unsure[-messages:])
            self.dropped += count
            self.numbers.add("waiting", -count)
            self.numbers.add("dropped", count)
        self._messages_dropped = said["dropped"]
        self._room = said["capacity"] - said["bytes"]
        self._unsure = []
