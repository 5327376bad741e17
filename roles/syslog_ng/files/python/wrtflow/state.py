"""What outlives a restart: one SQLite file, with a table for each concern, and another one with refused documents.

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
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from wrtflow import health

# Version of the file's tables and of their rows. A file of another version is set aside.
SCHEMA = 1
# Changes of a table that wait for the disk. Beyond that they are forgotten, and the next save writes the whole table.
_WAITING = 200_000
# Seconds to wait for somebody else's lock on a file.
_LOCKED = 2.0

# An SQLite file begins with this; two bytes later comes its format for writers and readers.
_HEADER = b"SQLite format 3\0"
_FORMATS = (b"\1\1", b"\2\2")

# SQLite's errors that are not the file's fault.
_DISK = {
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS,
}  # fmt: skip

# Bytes of all refused documents together, and the largest part of it for one.
SPOOL = 64 << 20
_PART = 16
# Refused documents that are deleted at once when there is no room.
_OLDEST = 100
# The year 5138, in seconds since 1970.
_LATEST = 1e11
# Bytes of the pages in use.
_USED = """SELECT (page_count - freelist_count) * page_size
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size"""

_UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError)

K = TypeVar("K", bound="int | str")
V = TypeVar("V")


class _Damaged(Exception):  # noqa: N818 (what the file is)
    pass


def _damaged(error: Exception) -> bool:
    """Return whether an error is the file's fault, not the disk's or the folder's."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, _Damaged) if code is None else code & 0xFF not in _DISK


def _set_aside(file: Path, error: Exception) -> None:
    """Rename a damaged SQLite file to *.damaged. OSError: it can't be renamed."""
    aside = file.with_name(f"{file.name}.damaged")
    file.replace(aside)
    for rest in ("-wal", "-shm", "-journal"):
        file.with_name(file.name + rest).unlink(missing_ok=True)
    health.say(health.ERROR, f"{file} can't be read ({error}): it is set aside as {aside}.")


def connect(file: Path, mode: str, wait: float = 0, **options: Any) -> sqlite3.Connection:
    """Open an SQLite file. mode: ro or rw; wait: seconds for a lock (0: _LOCKED); options: sqlite3.connect()'s."""
    name = f"{file.absolute().as_uri()}?mode={mode}"
    database: sqlite3.Connection = sqlite3.connect(name, wait or _LOCKED, uri=True, **options)
    return database


def _inode(file: Path) -> int:
    """Return what distinguishes the file from another of its name; 0 if there is none."""
    with contextlib.suppress(OSError):
        return file.stat().st_ino
    return 0


@dataclass
class Table(Generic[K]):
    """Rows of one concern on disk: key -> what JSON can hold. Any thread may put and delete."""

    state: State
    name: str
    dump: Callable[[], Iterable[tuple[K, Any]]]  # returns all rows that memory has
    once: bool = False  # a row never changes: deleting it before it is on disk costs nothing
    numbered: bool = False  # keys are int, else str
    whole: bool = False  # the next save writes all rows of memory
    # Only single operations, which other threads can't interrupt: a flow never waits for a lock.
    _changed: dict[K, Any] = field(default_factory=dict)

    def load(self, decode: Callable[[K, Any], V]) -> Iterator[V]:
        """Go through the file's rows, in the order in which they were written.

        A row that decode() refuses (ValueError, TypeError, AttributeError, LookupError, OverflowError) is skipped,
        counted and deleted.
        """
        for rowid, key, text in self.state.rows(self.name):
            try:
                row = decode(key.decode() if isinstance(key, bytes) else key, json.loads(text))  # type: ignore[arg-type]
            except _UNREADABLE:
                self.state.skip(self.name, rowid)
            else:
                yield row

    def put(self, key: K, value: Any) -> None:
        """Add or replace a row. The value must not change afterwards."""
        self._changed[key] = value

    def delete(self, key: K) -> None:
        """Delete a row."""
        if self._changed.pop(key, None) is None or not self.once:
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
        self.whole = self.whole or len(self._changed) + len(changes) > _WAITING
        if self.whole:
            self._changed.clear()
            return
        for key, value in changes.items():
            self._changed.setdefault(key, value)


class Rows(OrderedDict[str, V]):
    """A table whose rows are in memory here, the one that was set last at the end. The file follows.

    Rows are set by [], and deleted by del and drop(): dict's other methods would not reach the file.
    """

    def __init__(
        self,
        state: State,
        name: str,
        encode: Callable[[V], Any] = lambda value: value,
        owner: Callable[[str, V], str] = lambda key, value: "",
    ) -> None:
        """encode: returns what JSON can hold of a value. owner: returns who has a row."""
        super().__init__()
        self._encode, self._owner = encode, owner
        # How many rows each owner has.
        self.of: Counter[str] = Counter()
        self.table = state.table(name, lambda: [(key, encode(value)) for key, value in list(self.items())])

    def load(self, decode: Callable[[str, Any], V]) -> None:
        """Take the file's rows, as Table.load() does."""
        for key, value in self.table.load(lambda key, row: (key, decode(key, row))):
            super().__setitem__(key, value)
            self.of[self._owner(key, value)] += 1

    def __setitem__(self, key: str, value: V) -> None:
        """Add or replace a row, and put it at the end."""
        if key in self:
            self._less(key)
        super().__setitem__(key, value)
        self.move_to_end(key)
        self.of[self._owner(key, value)] += 1
        self.table.put(key, self._encode(value))

    def __delitem__(self, key: str) -> None:
        """Delete a row."""
        self._less(key)
        super().__delitem__(key)
        self.table.delete(key)

    def drop(self, key: str) -> V | None:
        """Delete a row if it is there, and return it."""
        value = self.get(key)
        if value is not None:
            del self[key]
        return value

    def _less(self, key: str) -> None:
        owner = self._owner(key, self[key])
        self.of[owner] -= 1
        if not self.of[owner]:
            del self.of[owner]


class State:
    """The file and its tables."""

    def __init__(self, file: Path, before: State | None = None) -> None:
        """Name the file; open() opens it. before: this one's tables load its memory in place of the file."""
        self._file = file
        self._before = before
        self._tables: dict[str, Table[Any]] = {}
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        # Of the file that is open to be written; 0 if none is.
        self._inode = 0
        self._condition = health.Condition("What has to outlive a restart is written again")
        self._skipped = self._aside = 0

    def table(self, name: str, dump: Callable[[], Iterable[tuple[K, Any]]], **kind: Any) -> Table[K]:
        """Make a table, before open(). kind: once and numbered of Table."""
        made = self._tables[name] = Table(self, name, dump, **kind)
        return made

    def open(self) -> None:
        """Open or make the file. One that is damaged or of another version is set aside as *.damaged."""
        with self._lock:
            if self._before is not None:
                self._whole()
            try:
                self._open()
            except (_Damaged, sqlite3.DatabaseError, OSError) as error:
                self._fault(error)
            if not self._inode:
                # A read-only folder or a full disk: load what the file has. The second mode needs no file beside it.
                self.close()
                for mode in ("rw", "ro&immutable=1"):
                    with contextlib.suppress(sqlite3.Error):
                        self._database = self._connect(mode)
                        self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
                        break
                    self.close()

    def save(self) -> None:
        """Write what has changed since the last save."""
        with self._lock:
            # All is loaded by now.
            self._before = None
            # A second time into a new file, if the first finds the old one damaged.
            if not self._save():
                self._save()

    def _save(self) -> bool:
        """Return whether there is nothing more to do now."""
        changed: dict[str, dict[Any, Any]] = {}
        try:
            now = _inode(self._file)
            if not self._inode or now != self._inode:
                # Another file, or none, has nothing of what memory has.
                if self._inode or not now:
                    self._whole()
                self.close()
                self._open()
            # SQLite has its first page in memory, and would not notice.
            self._look()
            changed = {name: changes for name, table in self._tables.items() if (changes := table.changes())}
            if changed:
                self._write(changed)
        except Exception as error:
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
                self._database.close()
            self._database = None
            self._inode = 0

    def report(self) -> health.Report:
        """Return the numbers for the health record."""
        return {"rows_skipped": self._skipped, "set_aside": self._aside, **self._condition.report()}

    def rows(self, table: str) -> Iterator[tuple[int, Any, Any]]:
        """Go through a table: rowid, key and value, as SQLite has them."""
        with self._lock:
            if self._before is not None:
                memory = self._before._tables[table].dump()
                yield from ((0, key, json.dumps(value)) for key, value in memory)
                return
            if self._database is None:
                return
            try:
                yield from self._database.execute(f"SELECT rowid, key, value FROM {table} ORDER BY rowid")
            except sqlite3.Error as error:
                # A file that is open only to be read may be whole but for its journal.
                if self._inode:
                    self._fault(error)

    def skip(self, table: str, rowid: int) -> None:
        """Count and delete a row that can't be read."""
        self._skipped += 1
        with self._lock, contextlib.suppress(sqlite3.Error):
            if self._database is not None:
                self._database.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))

    def _open(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # Which device asked for what is nobody else's business.
        os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
        if self._file.stat().st_size:
            self._look()
        database = self._database = self._connect("rw")
        if database.execute("PRAGMA quick_check(1)").fetchone() != (b"ok",):
            raise _Damaged("SQLite finds it damaged")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        known = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if version > SCHEMA or (known and version < 1):
            raise _Damaged(f"its schema is version {version}, and {SCHEMA} is known here")
        # Not a write-ahead log: who writes over its index while it is mapped ends the process.
        database.execute("PRAGMA journal_mode=TRUNCATE")
        # In rare cases a power cut damages the file; FULL would cost several writes more a second.
        database.execute("PRAGMA synchronous=NORMAL")
        for table in self._tables.values():
            kind = "INTEGER" if table.numbered else "TEXT"
            row = f"key {kind} PRIMARY KEY NOT NULL, value TEXT NOT NULL"
            database.execute(f"CREATE TABLE IF NOT EXISTS {table.name} ({row})")
            columns = [each[1] for each in database.execute(f"PRAGMA table_info({table.name})")]
            if columns != [b"key", b"value"]:
                raise _Damaged(f"its table {table.name} has other columns")
        database.execute(f"PRAGMA user_version={SCHEMA}")
        self._inode = _inode(self._file)

    def _look(self) -> None:
        with self._file.open("rb") as file:
            head = file.read(20)
        if head[:16] != _HEADER or head[18:] not in _FORMATS:
            raise _Damaged("somebody has written over it")

    def _connect(self, mode: str) -> sqlite3.Connection:
        # One connection for all threads: each use holds the lock.
        database = connect(self._file, mode, isolation_level=None, check_same_thread=False)
        # Text that is not UTF-8 is the row's fault, not the table's.
        database.text_factory = bytes
        return database

    def _write(self, changed: dict[str, dict[Any, Any]]) -> None:
        database = self._database
        assert database is not None
        # It ends the transaction, whatever happens.
        with database:
            database.execute("BEGIN IMMEDIATE")
            for name, changes in changed.items():
                if self._tables[name].whole:
                    database.execute(f"DELETE FROM {name}")
                rows = [(key, json.dumps(value)) for key, value in changes.items() if value is not None]
                database.executemany(f"INSERT OR REPLACE INTO {name} VALUES (?, ?)", rows)
                gone = [(key,) for key, value in changes.items() if value is None]
                database.executemany(f"DELETE FROM {name} WHERE key = ?", gone)

    def _fault(self, error: Exception) -> bool:
        """Set a damaged file aside; say anything else, to be tried again. Return whether a new file is there."""
        if _damaged(error):
            try:
                self.close()
                _set_aside(self._file, error)
                self._aside += 1
                self._whole()
                self._open()
                return True
            except (_Damaged, sqlite3.Error, OSError) as again:
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


@dataclass(frozen=True)
class Refused:
    """A document and why it was refused. when: seconds since 1970; status and kind: Elasticsearch's."""

    when: float
    index: str
    id: str
    status: int
    kind: str
    reason: str
    document: str


_TYPES = [float, str, str, int, str, str, str]


class Spool:
    """The documents that Elasticsearch refused, kept until somebody looks: one SQLite file of limited size.

    The oldest documents make room. The collector adds documents, and another process may send them again meanwhile.
    """

    def __init__(self, file: Path, limit: int = SPOOL) -> None:
        """limit: bytes of all documents."""
        self._file = file
        self._limit = limit
        # Why the last documents could not be kept; None: they could.
        self.fault: Exception | None = None

    def add(self, documents: Iterable[Refused]) -> int:
        """Keep the documents. Return how many were lost: the oldest ones for want of room, or these, see fault."""
        records = [json.dumps(vars(document)).encode() for document in documents]
        rows = [(record,) for record in records if len(record) <= self._limit // _PART]
        try:
            try:
                lost = self._add(rows)
            except sqlite3.DatabaseError as error:
                if not _damaged(error):
                    raise
                _set_aside(self._file, error)
                lost = self._add(rows)
        except (sqlite3.Error, OSError) as error:
            self.fault = error
            return len(records)
        self.fault = None
        return len(records) - len(rows) + lost

    def batches(self, most: int) -> Iterator[tuple[int, list[Refused]]]:
        """Go through what is kept now, oldest first: at most so many documents, and the number of the last one.

        Damaged rows are left out.
        """
        query = "SELECT id, record FROM refused WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
        done, last, _ = self._kept()
        while rows := self._read(query, done, last, most):
            done = rows[-1][0]
            yield done, [document for _, record in rows if (document := _refused(record))]

    def documents(self) -> Iterator[Refused]:
        """Go through what is kept now, oldest first."""
        return (document for _, documents in self.batches(_OLDEST) for document in documents)

    def forget(self, number: int) -> None:
        """Delete the documents up to this one."""
        with self._open("rw") as database:
            database.execute("DELETE FROM refused WHERE id <= ?", (number,))

    def size(self) -> tuple[int, int]:
        """Return what is kept: documents, bytes."""
        before, last, used = self._kept()
        # The oldest go first, so the numbers have no gaps.
        return last - before, used

    def _kept(self) -> tuple[int, int, int]:
        """Return the number before the first document's, the last one's, and the bytes; 0 if there is none."""
        ends = "(SELECT min(id) - 1 FROM refused), (SELECT max(id) FROM refused)"
        found = self._read(f"SELECT {ends}, ({_USED})")
        return found[0] if found and found[0][1] else (0, 0, 0)

    def _read(self, query: str, *values: int) -> list[tuple[Any, ...]]:
        with contextlib.suppress(sqlite3.Error), self._open("ro") as database:
            return database.execute(query, values).fetchall()
        return []

    def _add(self, rows: list[tuple[bytes]]) -> int:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
        lost = 0
        with self._open("rw") as database:
            table = "refused (id INTEGER PRIMARY KEY, record BLOB NOT NULL)"
            database.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            database.executemany("INSERT INTO refused (record) VALUES (?)", rows)
            while database.execute(_USED).fetchone()[0] > self._limit:
                oldest = f"SELECT id FROM refused ORDER BY id LIMIT {_OLDEST}"
                lost += database.execute(f"DELETE FROM refused WHERE id IN ({oldest})").rowcount
        return lost

    @contextlib.contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction. mode: ro, or rw."""
        with contextlib.closing(connect(self._file, mode)) as database, database:
            yield database


def _refused(record: object) -> Refused | None:
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        refused = Refused(**json.loads(record))  # type: ignore[arg-type]
        if [type(value) for value in vars(refused).values()] == _TYPES and 0 <= refused.when < _LATEST:
            return refused
    return None
