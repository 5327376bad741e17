"""The spool: documents that Elasticsearch refused for what they are, kept on disk until somebody looks.

A directory of files, each a document a line with the reason of the refusal; their names sort by age. It never grows
beyond its limit: the oldest file makes room. One process adds (the collector), another may send again meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

# Bytes of all files together.
SIZE = 64 << 20

# A file takes this part of the limit: what is lost at once when the spool is full.
_FILES = 16

# Seconds to wait for another process that holds the spool.
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
    """The files of one directory, together at most limit bytes."""

    def __init__(self, directory: Path, limit: int = SIZE) -> None:
        """Nothing is made before the first document."""
        self._directory = directory
        self._limit = limit
        self._current: Path | None = None
        # Why documents could not be kept the last time; None: they could.
        self.fault: OSError | None = None

    def add(self, documents: Iterable[Refused]) -> int:
        """Keep the documents. Return how many were lost: oldest ones for want of room, or these, see fault."""
        lost = 0
        lines = [json.dumps(dataclasses.asdict(document)).encode() + b"\n" for document in documents]
        self.fault = None
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._lock():
                while lines:
                    lost += self._write(lines[0])
                    del lines[0]
        except OSError as error:
            # What is at the end of the file may be half a line: nothing is written behind it.
            self._current = None
            self.fault = error
        return lost + len(lines)

    def documents(self) -> Iterator[Refused]:
        """Go through all that is kept, oldest first."""
        for path in self._files():
            yield from read(path)

    def size(self) -> tuple[int, int]:
        """How much is kept: documents, bytes."""
        files = self._files()
        return sum(map(_count, files, files.values())), sum(files.values())

    def claim(self) -> list[Path]:
        """Take away all files there are, for sending again: each is the caller's, to delete when it is through.

        One that isn't deleted stays part of the spool and is among the next claim's. OSError: none could be taken.
        """
        if not self._directory.is_dir():
            return []
        with self._lock():
            for path in self._files():
                path.rename(path.with_suffix(".claimed"))
        return list(self._files())

    def _files(self) -> dict[Path, int]:
        """Return the files and their bytes, oldest first."""
        files = {}
        for path in sorted(self._directory.glob("*.*")):
            with contextlib.suppress(OSError):
                if path.suffix in {".jsonl", ".claimed"} and path.is_file():
                    files[path] = path.stat().st_size
        return files

    def _write(self, line: bytes) -> int:
        """Append the line. Return how many were lost: the oldest, to make room, or this one where it is too large."""
        most = self._limit // _FILES
        if len(line) > most:
            return 1
        files = self._files()
        taken = files.get(self._current, 0) if self._current else 0
        room = self._limit - len(line) - sum(files.values())
        lost = 0
        for oldest, size in files.items():
            if room >= 0:
                break
            lost += _count(oldest, size)
            room += size
            oldest.unlink(missing_ok=True)
        # A file of another process is never appended to: its last line may be torn. Nor is a name used twice: what
        # was claimed under it may still be there.
        if self._current is None or not taken or taken + len(line) > most:
            self._current = self._directory / f"{time.time_ns():020d}.jsonl"
        # Opened each time: another process may have claimed the file.
        with open(self._current, "ab", opener=_private) as file:
            file.write(line)
        return lost

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        until = time.monotonic() + _LOCKED
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.05)
            yield
        finally:
            os.close(descriptor)


def read(path: Path) -> Iterator[Refused]:
    """Go through the documents of one file; a torn or foreign line is passed over."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                refused = Refused(**json.loads(line))
                types = [type(value) for value in vars(refused).values()]
                if types == _TYPES and 0 <= refused.when < _LATEST:
                    yield refused


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@functools.lru_cache(maxsize=1000)
def _count(path: Path, size: int) -> int:
    """Count the lines of a file of this size; it is read only when it has grown."""
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0
