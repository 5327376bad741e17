"""The spool: documents that Elasticsearch refused, kept on disk until somebody looks.

It is one SQLite file of limited size: the oldest documents make room. The collector adds documents, and another process
may send them again meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wrtflow import state

# Bytes of all documents together, and the largest part of it for one.
SIZE = 64 << 20
_PART = 16
# Documents that are deleted at once when there is no room.
_OLDEST = 100
# The year 5138, in seconds since 1970.
_LATEST = 1e11

# Bytes of the pages in use.
_USED = """SELECT (page_count - freelist_count) * page_size
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size"""


@dataclasses.dataclass(frozen=True)
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
    """The documents of one file, which is made with the first one."""

    def __init__(self, file: Path, limit: int = SIZE) -> None:
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
                if not state.damaged(error):
                    raise
                state.set_aside(self._file, error)
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
        done, last = 0, self._ends()[1]
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
        first, last = self._ends()
        # The oldest go first, so the numbers have no gaps.
        return (last - first + 1, self._read(_USED)[0][0]) if last else (0, 0)

    def _ends(self) -> tuple[int, int]:
        """Return the numbers of the first and of the last document; 0 if there is none."""
        found = self._read("SELECT (SELECT min(id) FROM refused), (SELECT max(id) FROM refused)")
        return found[0] if found and found[0][0] else (0, 0)

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
        with contextlib.closing(state.connect(self._file, mode)) as database, database:
            yield database


def _refused(record: object) -> Refused | None:
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        refused = Refused(**json.loads(record))  # type: ignore[arg-type]
        if [type(value) for value in vars(refused).values()] == _TYPES and 0 <= refused.when < _LATEST:
            return refused
    return None
