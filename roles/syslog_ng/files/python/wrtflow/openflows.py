"""Open flows on disk: what grouping-by() has in memory is here as well, and outlives a restart.

A thread writes once a second. A stop and a reload write everything; a kill -9 or a crash loses the flows that were
opened in the last second, and a power cut those that the file system had not yet written.

The flows of one second are one piece of text, and so are those of them that have ended: a row for each flow would cost
more than the whole way of its two lines. A second whose flows have all ended is deleted.
"""

from __future__ import annotations

import collections
import contextlib
import sqlite3
import threading
import typing
import zlib
from collections.abc import Iterator
from pathlib import Path

# Kept in memory while the disk refuses to take them; what is older is given up.
_WAITING = 200_000

# So many flows are saved without waiting for the second to end: what waits is memory.
_MANY = 5_000

# Saves between two looks for seconds that hold more ended flows than open ones.
_TIDY = 60


class Open(typing.NamedTuple):
    """A flow without its end."""

    key: str  # router and tuple, as 20-parse.conf makes it
    start: int  # ms since 1970
    line: str  # the router's NEW line


class OpenFlows:
    """One process writes; any thread may call."""

    def __init__(self, file: Path) -> None:
        """Name the file; nothing is read yet."""
        self._file = file
        # Set when a save is due before its time.
        self.due = threading.Event()
        self._saving = threading.Lock()
        # Not yet on disk: (key, start) -> line, and (key, start). Never replaced: other threads add at any time.
        self._opened: dict[tuple[str, int], str] = {}
        self._closed: collections.deque[tuple[str, int]] = collections.deque(maxlen=_WAITING)
        # By second: flows opened, flows ended.
        self._sizes: dict[int, tuple[int, int]] = {}
        # Of before the last start, which grouping-by() does not know.
        self._before: dict[str, list[int]] = {}
        self._database: sqlite3.Connection | None = None
        self._saves = 0

    def load(self) -> set[str]:
        """Open the file and read the flows that were open when it was last written.

        Returns the routers whose lines end with a space.
        """
        with self._saving:
            # One connection for all threads: each use holds self._saving.
            database = sqlite3.connect(self._file, timeout=10, check_same_thread=False, isolation_level=None)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            for name in ("opened", "closed"):
                database.execute(f"CREATE TABLE IF NOT EXISTS {name} (second INTEGER, flows TEXT)")
                database.execute(f"CREATE INDEX IF NOT EXISTS {name}_second ON {name} (second)")
            self._database = database
            self._sizes = {}
            self._before = {}
            spaced = set()
            for (second,) in database.execute(
                "SELECT DISTINCT second FROM opened ORDER BY second"
            ).fetchall():
                for flow in self._tidy(database, second):
                    self._before.setdefault(flow.key, []).append(flow.start)
                    if flow.line.endswith(" "):
                        spaced.add(flow.key.partition(" ")[0])
            return spaced

    def opened(self, key: str, start: int, line: str) -> int:
        """A flow begins. Returns its start: a moment later where another of that key has begun at the same time."""
        while (key, start) in self._opened:
            start += 1
        waiting = len(self._opened)
        if waiting < _WAITING:
            self._opened[key, start] = line
        if waiting > _MANY:
            self.due.set()
        return start

    def closed(self, key: str, start: int) -> None:
        """A flow has its end."""
        # A flow that was shorter than the pause between two saves never reaches the disk.
        if self._opened.pop((key, start), None) is None:
            self._closed.append((key, start))
        if key in self._before:
            with contextlib.suppress(KeyError, ValueError):
                self._before[key].remove(start)
                if not self._before[key]:
                    del self._before[key]

    def before(self, key: str) -> list[int]:
        """Return when flows of this key began, in their order, that were open at the last start and still are."""
        return self._before.get(key, [])

    def save(self) -> None:
        """Write what has changed. sqlite3.Error where that fails; it is tried again with the next save."""
        with self._saving:
            if self._database is None:
                return
            self.due.clear()
            opened: list[Open] = []
            # Another thread may end them meanwhile.
            with contextlib.suppress(KeyError):
                for _ in range(len(self._opened)):
                    (key, start), line = self._opened.popitem()
                    opened.append(Open(key, start, line))
            opened.reverse()
            closed = [self._closed.popleft() for _ in range(len(self._closed))]
            try:
                if opened or closed:
                    self._write(self._database, opened, closed)
            except sqlite3.Error:
                self._opened.update(((key, start), line) for key, start, line in opened)
                self._closed.extendleft(reversed(closed))
                raise
            self._saves += 1
            if self._saves % _TIDY == 0:
                for second in [second for second, (size, ended) in self._sizes.items() if ended * 2 > size]:
                    self._tidy(self._database, second)

    def _write(self, database: sqlite3.Connection, opened: list[Open], closed: list[tuple[str, int]]) -> None:
        begun: dict[int, list[str]] = {}
        over: dict[int, list[str]] = {}
        for flow in opened:
            begun.setdefault(flow.start // 1000, []).append(_row(flow))
        for key, start in closed:
            over.setdefault(start // 1000, []).append(_end(key, start))
        sizes: dict[int, tuple[int, int]] = {}
        for second in begun.keys() | over.keys():
            size, ended = self._sizes.get(second, (0, 0))
            sizes[second] = size + len(begun.get(second, ())), ended + len(over.get(second, ()))
        with _transaction(database):
            for table, flows in (("opened", begun), ("closed", over)):
                for second, texts in flows.items():
                    database.execute(f"INSERT INTO {table} VALUES (?, ?)", (second, "\n".join(texts)))
            for second, (size, ended) in sizes.items():
                if ended >= size:
                    _delete(database, second)
        for second, (size, ended) in sizes.items():
            if ended >= size:
                self._sizes.pop(second, None)
            else:
                self._sizes[second] = size, ended

    def _tidy(self, database: sqlite3.Connection, second: int) -> list[Open]:
        """Write a second's open flows anew, without those that have ended; return them."""
        flows = _read(database, second)
        with _transaction(database):
            _delete(database, second)
            if flows:
                database.execute("INSERT INTO opened VALUES (?, ?)", (second, "\n".join(map(_row, flows))))
        if flows:
            self._sizes[second] = len(flows), 0
        else:
            self._sizes.pop(second, None)
        return flows

    def older(self, before: int, router: str = "") -> list[Open]:
        """Return the flows that began before a time (ms since 1970), of one router or of all."""
        self.save()
        with self._saving:
            if self._database is None:
                return []
            return [
                flow
                for second in sorted(self._sizes)
                if second * 1000 < before
                for flow in _read(self._database, second)
                if flow.start < before and (not router or flow.key.startswith(f"{router} "))
            ]

    def __len__(self) -> int:
        """Count the open flows."""
        written = sum(size - ended for size, ended in list(self._sizes.values()))
        return max(0, written + len(self._opened) - len(self._closed))

    def close(self) -> None:
        """Write everything and close the file."""
        try:
            self.save()
        finally:
            with self._saving:
                if self._database is not None:
                    self._database.close()
                    self._database = None


def _row(flow: Open) -> str:
    return f"{flow.start}\t{flow.key}\t{flow.line}"


def _end(key: str, start: int) -> str:
    return f"{start}\t{zlib.crc32(key.encode())}"


def _read(database: sqlite3.Connection, second: int) -> list[Open]:
    ended = {
        text
        for (flows,) in database.execute("SELECT flows FROM closed WHERE second = ?", (second,))
        for text in flows.split("\n")
    }
    found = {}
    for (flows,) in database.execute("SELECT flows FROM opened WHERE second = ?", (second,)):
        for text in flows.split("\n"):
            start, key, line = text.split("\t", 2)
            if _end(key, int(start)) not in ended:
                found[start, key] = Open(key, int(start), line)
    return list(found.values())


def _delete(database: sqlite3.Connection, second: int) -> None:
    database.execute("DELETE FROM opened WHERE second = ?", (second,))
    database.execute("DELETE FROM closed WHERE second = ?", (second,))


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
