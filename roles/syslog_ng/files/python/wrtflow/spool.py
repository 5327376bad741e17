"""The spool: documents that Elasticsearch refused for what they are, kept on disk until somebody looks.

One SQLite file that never grows much beyond its limit: the oldest documents make room. One process adds (the
collector), another may send them again meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from wrtflow import state

# Bytes of all documents together, and the largest part of it that one may take.
SIZE = 64 << 20
_PART = 16

# Documents that go at once where there is no room.
_OLDEST = 100

# Seconds to wait for another process that holds the file.
_LOCKED = 2.0

# The year 5138, in seconds since 1970.
_LATEST = 1e11


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
    """The documents of one file."""

    def __init__(self, file: Path, limit: int = SIZE) -> None:
        """Nothing is made before the first document."""
        self._file = file
        self._limit = limit
        # Why documents could not be kept the last time; None: they could.
        self.fault: Exception | None = None

    def add(self, documents: Iterable[Refused]) -> int:
        """Keep the documents. Return how many were lost: oldest ones for want of room, or these, see fault."""
        records = [json.dumps(dataclasses.asdict(document)).encode() for document in documents]
        rows = [(record,) for record in records if len(record) <= self._limit // _PART]
        too_large = len(records) - len(rows)
        try:
            lost = self._add(rows)
        except (sqlite3.Error, OSError) as error:
            self.fault = error
            return len(records)
        self.fault = None
        return too_large + lost

    def batches(self, most: int) -> Iterator[tuple[int, list[Refused]]]:
        """Go through what is kept now, oldest first: so many documents at most, and the number of the last one.

        What can't be read is passed over.
        """
        done, last = 0, self._ids()[1]
        while done < last:
            with self._open("ro") as database:
                rows = database.execute(
                    "SELECT id, record FROM refused WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
                    (done, last, most),
                ).fetchall()
            done = rows[-1][0] if rows else last
            yield done, [document for _, record in rows if (document := _read(record))]

    def documents(self) -> Iterator[Refused]:
        """Go through what is kept now, oldest first."""
        return (document for _, documents in self.batches(_OLDEST) for document in documents)

    def forget(self, number: int) -> None:
        """Forget the documents up to this one."""
        with self._open("rw") as database:
            database.execute("DELETE FROM refused WHERE id <= ?", (number,))

    def size(self) -> tuple[int, int]:
        """How much is kept: documents, bytes. None go but the oldest, so their numbers have no gaps."""
        first, last = self._ids()
        with contextlib.suppress(sqlite3.Error), self._open("ro") as database:
            return last - first, _bytes(database) if last else 0
        return 0, 0

    def _ids(self) -> tuple[int, int]:
        """Return the number before the first document's, and the last one's."""
        with contextlib.suppress(sqlite3.Error), self._open("ro") as database:
            first, last = database.execute("SELECT min(id), max(id) FROM refused").fetchone()
            return (first - 1, last) if last else (0, 0)
        return 0, 0

    def _add(self, rows: list[tuple[bytes]], *, again: bool = False) -> int:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
        lost = 0
        try:
            with self._open("rw") as database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS refused (id INTEGER PRIMARY KEY, record BLOB NOT NULL)"
                )
                database.executemany("INSERT INTO refused (record) VALUES (?)", rows)
                while _bytes(database) > self._limit:
                    oldest = "SELECT id FROM refused ORDER BY id LIMIT ?"
                    lost += database.execute(
                        f"DELETE FROM refused WHERE id IN ({oldest})", (_OLDEST,)
                    ).rowcount
        except sqlite3.DatabaseError as error:
            if again or not state.damaged(error):
                raise
            state.set_aside(self._file, error)
            return self._add(rows, again=True)
        return lost

    @contextlib.contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction. mode: ro, or rw."""
        name = f"{self._file.absolute().as_uri()}?mode={mode}"
        with contextlib.closing(sqlite3.connect(name, uri=True, timeout=_LOCKED)) as database, database:
            yield database


def _bytes(database: sqlite3.Connection) -> int:
    """Return the bytes of the pages in use."""
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _read(record: object) -> Refused | None:
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        refused = Refused(**json.loads(record))  # type: ignore[arg-type]
        types = [type(value) for value in vars(refused).values()]
        if types == _TYPES and 0 <= refused.when < _LATEST:
            return refused
    return None
