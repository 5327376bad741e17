"""What outlives a restart: one SQLite file, with a table for each concern.

Memory is the truth and the file follows it: each part puts its changes here, and save() writes them all in one
transaction. Nothing that is wrong with the file or the disk is raised: the collector runs on from memory, says so in
the health record and tries again with the next save.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from wrtflow import health

# Of the file's tables and of what stands in them. A file of a later version is set aside, an earlier one is converted.
SCHEMA = 1

# Changes that wait for the disk, by table. Beyond that they are forgotten, and the next save writes the whole table.
_WAITING = 200_000

# Seconds to wait for somebody else's lock on the file.
_LOCKED = 2

_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError)

K = TypeVar("K", bound="int | str")
V = TypeVar("V")


class Damaged(Exception):  # noqa: N818 (what the file is)
    """The file is no state file of this version."""


def _inode(file: Path) -> int:
    """Return what tells a file from another of its name; 0 where there is none."""
    try:
        return os.stat(file).st_ino
    except OSError:
        return 0


class Table(Generic[K]):
    """Rows of one concern: key -> what JSON can hold. Any thread may put and delete."""

    def __init__(
        self, state: State, name: str, dump: Callable[[], Iterable[tuple[K, Any]]], once: bool, numbered: bool
    ) -> None:
        """See State.table()."""
        self.name = name
        self.dump = dump
        self.type = "INTEGER" if numbered else "TEXT"
        self._key: type = int if numbered else str
        self._once = once
        self._state = state
        # Only single operations, which other threads can't interrupt: no lock on the way of a flow.
        self._changed: dict[K, Any] = {}
        # Write all rows of memory with the next save.
        self.whole = False

    def load(self, decode: Callable[[K, Any], V]) -> Iterator[V]:
        """Go through the file's rows, in the order in which they were written.

        A row that decode() refuses (ValueError, TypeError, KeyError, IndexError, OverflowError) is skipped, counted and
        deleted.
        """
        for rowid, key, text in self._state.rows(self.name):
            try:
                name = key.decode() if isinstance(key, bytes) else key
                if type(name) is not self._key:
                    raise TypeError(name)
                row = decode(cast("K", name), json.loads(text))
            except _UNREADABLE:
                self._state.skip(self.name, rowid)
            else:
                yield row

    def put(self, key: K, value: Any) -> None:
        """Add or replace a row. The value must not change afterwards."""
        self._changed[key] = value

    def delete(self, key: K) -> None:
        """Delete a row."""
        if self._changed.pop(key, None) is None or not self._once:
            self._changed[key] = None

    def changes(self) -> dict[K, Any]:
        """Take what is to be written: None in place of a value deletes."""
        if self.whole:
            self._changed.clear()
            return dict(self.dump())
        taken: list[tuple[K, Any]] = []
        # Another thread may take a change back meanwhile.
        with contextlib.suppress(KeyError):
            taken.extend(self._changed.popitem() for _ in range(len(self._changed)))
        return dict(reversed(taken))

    def failed(self, changes: dict[K, Any]) -> None:
        """Take back what could not be written."""
        if self.whole:
            return
        if len(self._changed) + len(changes) > _WAITING:
            self.whole = True
            self._changed.clear()
            return
        for key, value in changes.items():
            self._changed.setdefault(key, value)


class State:
    """The file and its tables."""

    def __init__(self, file: Path, before: State | None = None) -> None:
        """Name the file; open() opens it. before: whose memory this one's tables load, in place of the file."""
        self._file = file
        self._before = before
        self._tables: dict[str, Table[Any]] = {}
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._writable = False
        self._inode = 0
        self._condition = health.Condition("What has to outlive a restart is written again")
        self._skipped = 0
        self._set_aside = 0

    def table(
        self,
        name: str,
        dump: Callable[[], Iterable[tuple[K, Any]]],
        *,
        once: bool = False,
        numbered: bool = False,
    ) -> Table[K]:
        """Make a table, before open().

        dump() gives all rows that memory has. once: a row never changes, so deleting it before it is on disk costs
        nothing. numbered: keys are int, else str.
        """
        made = self._tables[name] = Table(self, name, dump, once, numbered)
        return made

    def open(self) -> None:
        """Open or make the file. One that is damaged or of a later version is set aside as *.damaged."""
        with self._lock:
            if self._before is not None:
                self._whole()
            try:
                self._open()
            except (Damaged, sqlite3.DatabaseError, OSError) as error:
                self._fault(error)
            if not self._writable:
                self._open_to_read()

    def save(self) -> None:
        """Write what has changed since the last save."""
        with self._lock:
            # A second time into a new file, where the first finds the old one damaged.
            if not self._save():
                self._save()

    def _save(self) -> bool:
        """Return whether there is nothing more to do now."""
        changed: dict[str, dict[Any, Any]] = {}
        try:
            if not self._writable or _inode(self._file) != self._inode:
                self._reopen()
            changed = {name: changes for name, table in self._tables.items() if (changes := table.changes())}
            if changed:
                self._write(changed)
        except (Damaged, sqlite3.Error, OSError) as error:
            for name, changes in changed.items():
                self._tables[name].failed(changes)
            return not self._fault(error)
        for table in self._tables.values():
            table.whole = False
        self._condition.right()
        return True

    def close(self) -> None:
        """Close the file; open() opens it again."""
        with self._lock:
            if self._database is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._database.close()
            self._database = None
            self._writable = False

    def report(self) -> dict[str, object]:
        """Return the numbers for the health record; fault: the sentence of what is wrong now."""
        fault = {"fault": self._condition.sentence} if self._condition.sentence else {}
        return {"rows_skipped": self._skipped, "set_aside": self._set_aside, **fault}

    def rows(self, table: str) -> Iterator[tuple[int, Any, Any]]:
        """Go through a table: rowid, key and value, as SQLite has them."""
        with self._lock:
            if self._before is not None:
                yield from ((0, key, json.dumps(value)) for key, value in self._before.dump(table))
                return
            if self._database is None:
                return
            try:
                yield from self._database.execute(f"SELECT rowid, key, value FROM {table} ORDER BY rowid")
            except sqlite3.Error as error:
                self._fault(error)

    def dump(self, table: str) -> Iterable[tuple[Any, Any]]:
        """Return what memory has of a table."""
        return self._tables[table].dump() if table in self._tables else ()

    def skip(self, table: str, rowid: int) -> None:
        """Count and delete a row that can't be read."""
        self._skipped += 1
        with self._lock, contextlib.suppress(sqlite3.Error):
            if self._database is not None and self._writable:
                self._database.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))

    def _reopen(self) -> None:
        """Open the file again to write, which was closed, read-only or has been taken away."""
        self.close()
        gone = not _inode(self._file)
        self._open()
        if gone:
            self._whole()

    def _open(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # Which device asked for what is nobody else's business.
        os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
        database = self._connect(str(self._file))
        try:
            if database.execute("PRAGMA quick_check(1)").fetchone() != (b"ok",):
                raise Damaged("SQLite finds it damaged")
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        self._database = database
        self._writable = True
        self._inode = _inode(self._file)

    def _prepare(self, database: sqlite3.Connection) -> None:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        known = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if version > SCHEMA or (known and version < 1):
            raise Damaged(f"its schema is version {version}, and {SCHEMA} is known here")
        database.execute("PRAGMA journal_mode=WAL")
        # A power cut may cost the last transactions, never the file.
        database.execute("PRAGMA synchronous=NORMAL")
        for table in self._tables.values():
            database.execute(
                f"CREATE TABLE IF NOT EXISTS {table.name} (key {table.type} PRIMARY KEY NOT NULL, value TEXT NOT NULL)"
            )
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table.name})")]
            if columns != [b"key", b"value"]:
                raise Damaged(f"its table {table.name} is another one")
        database.execute(f"PRAGMA user_version={SCHEMA}")

    def _open_to_read(self) -> None:
        """Open a file that can't be written (a read-only folder, a full disk), to load what it has."""
        with contextlib.suppress(sqlite3.Error):
            self._database = self._connect(f"{self._file.absolute().as_uri()}?mode=ro&immutable=1")

    def _connect(self, name: str) -> sqlite3.Connection:
        # One connection for all threads: each use holds the lock.
        database = sqlite3.connect(
            name, timeout=_LOCKED, isolation_level=None, check_same_thread=False, uri=name.startswith("file:")
        )
        # What is no UTF-8 is the row's fault, not the table's.
        database.text_factory = bytes
        return database

    def _write(self, changed: dict[str, dict[Any, Any]]) -> None:
        database = self._database
        if database is None:
            return
        database.execute("BEGIN IMMEDIATE")
        try:
            for name, changes in changed.items():
                if self._tables[name].whole:
                    database.execute(f"DELETE FROM {name}")
                database.executemany(
                    f"INSERT OR REPLACE INTO {name} VALUES (?, ?)",
                    [(key, json.dumps(value)) for key, value in changes.items() if value is not None],
                )
                database.executemany(
                    f"DELETE FROM {name} WHERE key = ?",
                    [(key,) for key, value in changes.items() if value is None],
                )
            database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise

    def _fault(self, error: Exception) -> bool:
        """Set a damaged file aside; say anything else, to be tried again. Returns whether a new file is there."""
        # An OperationalError is the disk's or the folder's fault; any other of SQLite's is the file's.
        if isinstance(error, Damaged) or (
            isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        ):
            aside = self._file.with_name(f"{self._file.name}.damaged")
            try:
                self.close()
                self._file.replace(aside)
                for rest in ("-wal", "-shm"):
                    self._file.with_name(self._file.name + rest).unlink(missing_ok=True)
                self._set_aside += 1
                health.say(health.ERROR, f"{self._file} can't be read ({error}): it is set aside as {aside}.")
                self._whole()
                self._open()
                return True
            except (Damaged, sqlite3.Error, OSError) as again:
                error = again
        self._condition.wrong(
            type(error).__name__,
            f"{self._file} can't be written ({error}):"
            " open flows, names and first contacts would not outlive a restart.",
        )
        return False

    def _whole(self) -> None:
        for table in self._tables.values():
            table.whole = True
