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
        # START TAB KEY TAB LINE, and START TAB SUM of the key. Never replaced: other threads add to them at any time.
        self._opened: collections.deque[str] = collections.deque(maxlen=_WAITING)
        self._closed: collections.deque[str] = collections.deque(maxlen=_WAITING)
        # By second: flows opened, flows ended.
        self._sizes: dict[int, tuple[int, int]] = {}
        # Of before the last start, which grouping-by() does not know.
        self._before: dict[str, list[int]] = {}
        self._database: sqlite3.Connection | None = None
        self._saves = 0

    def load(self) -> None:
        """Open the file and read the flows that were open when it was last written."""
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
            for (second,) in database.execute(
                "SELECT DISTINCT second FROM opened ORDER BY second"
            ).fetchall():
                for flow in self._tidy(database, second):
                    self._before.setdefault(flow.key, []).append(flow.start)

    def opened(self, key: str, start: int, line: str) -> None:
        """A flow begins."""
        self._opened.append(f"{start}\t{key}\t{line}")
        if len(self._opened) > _MANY:
            self.due.set()

    def closed(self, key: str, start: int) -> None:
        """A flow has its end."""
        self._closed.append(f"{start}\t{zlib.crc32(key.encode())}")
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
            opened = [self._opened.popleft() for _ in range(len(self._opened))]
            closed = [self._closed.popleft() for _ in range(len(self._closed))]
            try:
                if opened or closed:
                    self._write(self._database, _by_second(opened), _by_second(closed))
            except sqlite3.Error:
                self._opened.extendleft(reversed(opened))
                self._closed.extendleft(reversed(closed))
                raise
            self._saves += 1
            if self._saves % _TIDY == 0:
                for second in [second for second, (size, ended) in self._sizes.items() if ended * 2 > size]:
                    self._tidy(self._database, second)

    def _write(
        self, database: sqlite3.Connection, opened: dict[int, list[str]], closed: dict[int, list[str]]
    ) -> None:
        sizes: dict[int, tuple[int, int]] = {}
        for second in opened.keys() | closed.keys():
            size, ended = self._sizes.get(second, (0, 0))
            sizes[second] = size + len(opened.get(second, ())), ended + len(closed.get(second, ()))
        with _transaction(database):
            for table, flows in (("opened", opened), ("closed", closed)):
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
                texts = (f"{flow.start}\t{flow.key}\t{flow.line}" for flow in flows)
                database.execute("INSERT INTO opened VALUES (?, ?)", (second, "\n".join(texts)))
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


def _by_second(texts: list[str]) -> dict[int, list[str]]:
    """Sort what begins with a time in ms by its second."""
    found: dict[int, list[str]] = {}
    for text in texts:
        found.setdefault(int(text[: text.index("\t") - 3] or 0), []).append(text)
    return found


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
            if f"{start}\t{zlib.crc32(key.encode())}" not in ended:
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
