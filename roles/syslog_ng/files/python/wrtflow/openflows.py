"""Open flows on disk: what grouping-by() has in memory is here as well, and outlives a restart.

A thread writes once a second. A stop and a reload write everything; a kill -9 or a crash loses the flows that were
opened in the last second, and a power cut those of the last minutes that the file system had not yet written.
"""

from __future__ import annotations

import collections
import contextlib
import json
import sqlite3
import threading
import typing
from collections.abc import Iterator
from pathlib import Path

# Kept in memory while the disk refuses to take them; what is older is given up.
_WAITING = 200_000


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
        self._saving = threading.Lock()
        self._opened: collections.deque[Open] = collections.deque(maxlen=_WAITING)
        self._closed: collections.deque[tuple[str, int]] = collections.deque(maxlen=_WAITING)
        # Open at the last save.
        self._stored = 0
        self._database: sqlite3.Connection | None = None

    def load(self) -> None:
        """Open the file, and find how many flows are open."""
        # One connection for all threads: each use holds self._saving.
        database = sqlite3.connect(self._file, timeout=10, check_same_thread=False, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS open"
            " (key TEXT, start INTEGER, line TEXT, PRIMARY KEY (key, start)) WITHOUT ROWID"
        )
        self._stored = database.execute("SELECT count(*) FROM open").fetchone()[0]
        self._database = database

    def opened(self, key: str, start: int, line: str) -> None:
        """A flow begins."""
        self._opened.append(Open(key, start, line))

    def closed(self, key: str, start: int) -> None:
        """A flow has its end."""
        self._closed.append((key, start))

    def started(self, key: str) -> int | None:
        """Return when the flow began, of which no NEW is in memory: it was opened before a restart."""
        with self._saving:
            if self._database is None:
                return None
            row = self._database.execute("SELECT min(start) FROM open WHERE key = ?", (key,)).fetchone()
        return typing.cast("int | None", row[0])

    def save(self) -> None:
        """Write what has changed. sqlite3.Error where that fails; it is tried again with the next save."""
        with self._saving:
            if self._database is None:
                return
            # Deques are never replaced: what another thread adds meanwhile stays for the next time.
            opened = [self._opened.popleft() for _ in range(len(self._opened))]
            closed = {self._closed.popleft() for _ in range(len(self._closed))}
            short = {flow[:2] for flow in opened} & closed
            new = [flow for flow in opened if flow[:2] not in short]
            ended = list(closed - short)
            if not (new or ended):
                return
            # One statement each, so that the interpreter is free meanwhile (and the parsers run).
            try:
                self._database.execute("BEGIN IMMEDIATE")
                added = self._database.execute(
                    "INSERT OR IGNORE INTO open SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'),"
                    " json_extract(value, '$[2]') FROM json_each(?)",
                    (json.dumps(new),),
                ).rowcount
                removed = self._database.execute(
                    "DELETE FROM open WHERE (key, start) IN"
                    " (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))",
                    (json.dumps(ended),),
                ).rowcount
                self._database.execute("COMMIT")
                self._stored += added - removed
            except sqlite3.Error:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                self._opened.extendleft(reversed(new))
                self._closed.extendleft(ended)
                raise

    def older(self, before: int, router: str = "") -> Iterator[Open]:
        """Yield the flows that began before a time (ms since 1970), of one router or of all."""
        self.save()
        with self._saving:
            if self._database is None:
                return
            rows = self._database.execute(
                "SELECT key, start, line FROM open WHERE start < ? AND key >= ? AND key < ?",
                (before, f"{router} " if router else "", f"{router}!" if router else "\U0010ffff"),
            ).fetchall()
        yield from map(Open._make, rows)

    def __len__(self) -> int:
        """Count the open flows."""
        return self._stored + len(self._opened) - len(self._closed)

    def close(self) -> None:
        """Write everything and close the file."""
        try:
            self.save()
        finally:
            with self._saving:
                if self._database is not None:
                    self._database.close()
                    self._database = None
