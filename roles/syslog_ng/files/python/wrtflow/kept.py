"""Caches that are bounded, safe between threads, and kept over a restart.

A Kept is a cache in memory; a KeptFile writes what changed in some of them to one SQLite file and reads it back.
"""

from __future__ import annotations

import collections
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

_log = logging.getLogger(__name__)

V = TypeVar("V")


class Kept(Generic[V]):
    """A cache of at most `size` entries; what was put longest ago goes first.

    Values have to be what JSON can hold (tuples come back as lists); `decode` makes the value again and
    raises ValueError, TypeError, KeyError or IndexError for what is none.
    """

    def __init__(self, part: str, size: int, decode: Callable[[Any], V]) -> None:
        """Make an empty one; `part` is its name in the file."""
        self.part = part
        self.size = size
        self._decode = decode
        # Not cachetools' FIFOCache: a look-up there costs five times as much, and each flow has three of them.
        self._cache: collections.OrderedDict[str, V] = collections.OrderedDict()
        # Return the entry, or None.
        self.get: Callable[[str], V | None] = self._cache.get
        self._lock = threading.Lock()
        self._changed: set[str] = set()

    def __len__(self) -> int:
        """Count the entries."""
        return len(self._cache)

    def put(self, key: str, value: V) -> None:
        """Put or replace an entry."""
        with self._lock:
            self._put(key, value)
            self._changed.add(key)

    def remove(self, chosen: Callable[[str], bool]) -> None:
        """Remove the entries whose key is chosen. Looks at every one: for rare events."""
        with self._lock:
            for key in [key for key in self._cache if chosen(key)]:
                del self._cache[key]
                self._changed.add(key)

    def changes(self) -> list[str]:
        """Return the keys that changed since the last call."""
        with self._lock:
            changed, self._changed = self._changed, set()
        return list(changed)

    def unsaved(self, keys: Iterable[str]) -> None:
        """Take back keys of changes() that could not be written."""
        with self._lock:
            # What has left the cache meanwhile leaves the file by its age.
            self._changed.update(key for key in keys if key in self._cache)

    def fill(self, rows: Iterable[tuple[str, str]]) -> int:
        """Take rows of the file, oldest first; return how many were no good."""
        bad = 0
        with self._lock:
            for key, text in rows:
                try:
                    self._put(key, self._decode(json.loads(text)))
                except (ValueError, TypeError, KeyError, IndexError):
                    bad += 1
        return bad

    def _put(self, key: str, value: V) -> None:
        self._cache[key] = value
        self._cache.move_to_end(key)
        if len(self._cache) > self.size:
            self._cache.popitem(last=False)


class KeptFile:
    """The SQLite file of some caches. No method raises for a file that can't be used: it counts in `errors`."""

    BATCH = 1000

    def __init__(self, path: Path) -> None:
        """Name the file; open() opens it."""
        self.path = path
        self.errors = 0
        self.set_aside = 0
        self._database: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open or make the file. A damaged one is set aside under the name *.corrupt, one is kept."""
        try:
            self._open()
        except sqlite3.OperationalError as error:  # no such directory, not ours to write
            self._fault(error)
        except sqlite3.DatabaseError as error:
            self._start_over(error)
        except OSError as error:
            self._fault(error)

    def load(self, caches: Iterable[Kept[Any]]) -> None:
        """Fill the caches with what the file has."""
        for cache in caches:
            try:
                self.errors += cache.fill(self._rows(cache))
            except sqlite3.Error as error:
                self._fault(error)

    def save(self, caches: Iterable[Kept[Any]]) -> None:
        """Write what changed, BATCH rows a transaction, and drop the oldest rows beyond each cache's size."""
        if self._database is None:
            self.open()
        for cache in caches:
            keys = iter(cache.changes())
            changed = False
            while batch := list(islice(keys, self.BATCH)):
                changed = True
                if not self._write(cache, batch):
                    cache.unsaved([*batch, *keys])
                    return
            if changed:
                self._trim(cache)

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Which device asked for what is nobody else's business.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        self._database = sqlite3.connect(self.path, timeout=5, isolation_level=None, check_same_thread=False)
        if self._database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("quick_check finds it damaged")
        self._database.execute("PRAGMA journal_mode=WAL")
        # A power cut may cost the last transactions of a cache, never the file.
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS kept (part TEXT, key TEXT, value TEXT NOT NULL, at REAL NOT NULL,"
            " PRIMARY KEY (part, key)) WITHOUT ROWID"
        )
        self._database.execute("CREATE INDEX IF NOT EXISTS kept_at ON kept (part, at)")

    def _rows(self, cache: Kept[Any]) -> Iterator[tuple[str, str]]:
        if self._database is not None:
            yield from self._database.execute(
                "SELECT key, value FROM (SELECT key, value, at FROM kept WHERE part = ? ORDER BY at DESC LIMIT ?)"
                " ORDER BY at",
                (cache.part, cache.size),
            )

    def _write(self, cache: Kept[Any], keys: list[str]) -> bool:
        """Write these entries in one transaction; return whether it worked."""
        if self._database is None:
            return False
        at = time.time()
        values = [(key, cache.get(key)) for key in keys]
        try:
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?)",
                [(cache.part, key, json.dumps(value), at) for key, value in values if value is not None],
            )
            self._database.executemany(
                "DELETE FROM kept WHERE part = ? AND key = ?",
                [(cache.part, key) for key, value in values if value is None],
            )
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:  # full, locked, read-only: later
            self._fault(error)
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            return False
        except sqlite3.DatabaseError as error:
            self._start_over(error)
            return False
        return True

    def _trim(self, cache: Kept[Any]) -> None:
        if self._database is None:
            return
        try:
            self._database.execute(
                "DELETE FROM kept WHERE part = ?1 AND key IN (SELECT key FROM kept WHERE part = ?1 ORDER BY at"
                " LIMIT max(0, (SELECT count(*) FROM kept WHERE part = ?1) - ?2))",
                (cache.part, cache.size),
            )
        except sqlite3.Error as error:
            self._fault(error)

    def _start_over(self, error: Exception) -> None:
        self._fault(error)
        self.set_aside += 1
        try:
            self.close()
            self.path.replace(self.path.with_name(self.path.name + ".corrupt"))
            for rest in ("-wal", "-shm"):
                self.path.with_name(self.path.name + rest).unlink(missing_ok=True)
            self._open()
        except (OSError, sqlite3.Error) as again:
            self._fault(again)

    def _fault(self, error: Exception) -> None:
        self.errors += 1
        _log.warning("%s: %s", self.path, error)
