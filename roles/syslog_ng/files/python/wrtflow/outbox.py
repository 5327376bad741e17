"""The way of finished documents into syslog-ng's disk buffer: those of a moment go together, as one message.

Document by document the buffer, its thread and the hand-over to Python would cost as much as all that comes before.
The first document goes at once; what is finished in the pause after it follows together. Until then it is in memory
alone: a stop and a reload wait for it, a kill -9 loses it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import queue
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from wrtflow import health

# Seconds in which documents gather.
_PAUSE = 0.05

# Documents of a message. Few, against the smallest buffer (1 MiB): what finds no room is dropped as a whole.
TOGETHER = 100

# Bytes of room in the buffer as long as which no message is dropped.
_ROOM = 1 << 20

# Tally.report().
_NUMBERS = struct.Struct("=3Q")


class Tally:
    """How many documents the disk buffer holds and has refused: syslog-ng counts messages.

    The file has the numbers at any time: they outlive a restart, and a kill -9 all but exactly.
    """

    def __init__(self, file: Path) -> None:
        """Go on with the numbers in the file; OSError where it can't be used."""
        before = read(file)
        self.waiting = before.get("waiting", 0)
        self.dropped = 0
        self._dropped_before = before.get("dropped_ever", 0)
        self._lock = threading.Lock()
        # Mapped: a system call would let go of Python's lock, and to get it back costs more than the call.
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Written, not only made longer: a page without a block on a full disk would end the process.
            os.pwrite(descriptor, _NUMBERS.pack(*self.report().values()), 0)
            os.ftruncate(descriptor, _NUMBERS.size)
            self._map = mmap.mmap(descriptor, _NUMBERS.size)
        finally:
            os.close(descriptor)
        # What syslog-ng said last: messages dropped, and room. And documents of the messages since.
        self._messages_dropped = 0
        self._room = 0
        self._unsure: list[int] = []
        self._asks_again = 0.0

    def post(self, post: Callable[[str], None], text: str, count: int) -> None:
        """Post a message of so many documents. Counted before: if a kill -9 comes between, it is found out."""
        self._change(waiting=count)
        post(text)
        # A character takes four bytes at most.
        self._room -= 4 * len(text) + 4096
        if self._room < _ROOM:
            self._unsure.append(count)
            if time.monotonic() >= self._asks_again:
                self._look()

    def settled(self, count: int) -> None:
        """Documents have left the buffer."""
        self._change(waiting=-count)

    def empty(self) -> None:
        """There is nothing in the buffer, whatever the numbers say (after a kill -9)."""
        if self.waiting:
            self._change(waiting=-self.waiting)

    def report(self) -> dict[str, int]:
        """Return the numbers. dropped counts from syslog-ng's start on, dropped_ever from the first."""
        return {
            "waiting": self.waiting,
            "dropped": self.dropped,
            "dropped_ever": self._dropped_before + self.dropped,
        }

    def _look(self) -> None:
        """Ask syslog-ng whether the last messages were dropped. It drops none while there is room."""
        said = health.queue()
        if not said.keys() >= {"dropped", "bytes", "capacity"}:
            # To wait for its answer with each message would hold up the documents.
            self._asks_again = time.monotonic() + 1
            return
        messages = said["dropped"] - self._messages_dropped
        if messages > 0:
            count = sum(self._unsure[-messages:])
            self._change(waiting=-count, dropped=count)
        self._messages_dropped = said["dropped"]
        self._room = said["capacity"] - said["bytes"]
        self._unsure = []

    def _change(self, waiting: int, dropped: int = 0) -> None:
        with self._lock:
            self.waiting = max(0, self.waiting + waiting)
            self.dropped += dropped
            _NUMBERS.pack_into(self._map, 0, *self.report().values())


_tallies: dict[Path, Tally] = {}


def tally(file: Path) -> Tally:
    """Return this process's only tally of the file. It outlives a reload, as syslog-ng's own numbers do."""
    if file not in _tallies:
        _tallies[file] = Tally(file)
    return _tallies[file]


def read(file: Path) -> dict[str, int]:
    """Return the numbers in a tally's file; empty where there are none."""
    try:
        return dict(
            zip(("waiting", "dropped", "dropped_ever"), _NUMBERS.unpack(file.read_bytes()), strict=True)
        )
    except (OSError, struct.error):
        return {}


class Outbox:
    """Takes documents from any thread, and hands them on in one."""

    def __init__(self, counted: Tally, together: int = TOGETHER) -> None:
        """Counted: where the documents are counted from now on; together: how many a message has at most."""
        self._tally = counted
        self._together = min(together, TOGETHER)
        self._documents: queue.SimpleQueue[str | None] = queue.SimpleQueue()

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
            with contextlib.suppress(queue.Empty):
                while True:
                    taken.append(self._documents.get_nowait())
            going = None not in taken
            documents = [document for document in taken if document is not None]
            for begin in range(0, len(documents), self._together):
                together = documents[begin : begin + self._together]
                self._tally.post(post, "\n".join(together), len(together))
            if going:
                time.sleep(_PAUSE)
