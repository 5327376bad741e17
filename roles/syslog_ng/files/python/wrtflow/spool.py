"""The spool: documents that Elasticsearch refused for what they are, kept on disk until somebody looks.

A directory of files, each a document a line with the reason of the refusal; their names sort by age. It never grows
beyond its limit: the oldest file makes room. One process adds (the collector), another may send again meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

# A file takes this part of the limit: what is lost at once when the spool is full.
_FILES = 16


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


class Spool:
    """The files of one directory, together at most limit bytes."""

    def __init__(self, directory: Path, limit: int) -> None:
        """Nothing is made before the first document."""
        self._directory = directory
        self._limit = limit
        self._current: Path | None = None
        self._lines: dict[str, tuple[int, int]] = {}

    def add(self, documents: Iterable[Refused]) -> int:
        """Keep the documents. Return how many, of these or of the oldest, had to be dropped.

        OSError: none of these could be kept.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        dropped = 0
        with self._lock():
            for document in documents:
                line = json.dumps(dataclasses.asdict(document)).encode() + b"\n"
                if len(line) > self._limit // _FILES:
                    dropped += 1
                    continue
                dropped += self._make_room(len(line))
                # Opened each time: another process may have claimed the file.
                with open(self._file_for(len(line)), "ab", opener=_private) as file:
                    file.write(line)
        return dropped

    def documents(self) -> Iterator[Refused]:
        """Go through all that is kept, oldest first."""
        for path in self._files():
            yield from read(path)

    def size(self) -> tuple[int, int]:
        """How much is kept: documents, bytes."""
        sizes = {path: _bytes(path) for path in self._files()}
        return sum(self._count(path, size) for path, size in sizes.items()), sum(sizes.values())

    def claim(self) -> list[Path]:
        """Take away all files there are, for sending again: each is the caller's, to delete when it is through.

        One that isn't deleted stays part of the spool and is among the next claim's.
        """
        if not self._directory.is_dir():
            return []
        with self._lock():
            for path in self._directory.glob("*.jsonl"):
                path.rename(path.with_suffix(".claimed"))
        return self._files()

    def _files(self) -> list[Path]:
        return sorted(path for path in self._directory.glob("*") if path.suffix in {".jsonl", ".claimed"})

    def _file_for(self, size: int) -> Path:
        # A file of another process is never appended to: its last line may be torn. Nor is a name used twice: what
        # was claimed under it may still be there.
        taken = _bytes(self._current) if self._current else 0
        if self._current is None or not taken or taken + size > self._limit // _FILES:
            self._current = self._directory / f"{time.time_ns():020d}.jsonl"
        return self._current

    def _make_room(self, size: int) -> int:
        dropped = 0
        files = self._files()
        total = size + sum(map(_bytes, files))
        while total > self._limit and files:
            oldest = files.pop(0)
            total -= _bytes(oldest)
            dropped += self._count(oldest, _bytes(oldest))
            self._lines.pop(oldest.stem, None)
            oldest.unlink(missing_ok=True)
        return dropped

    def _count(self, path: Path, size: int) -> int:
        """Lines of a file of this size; read only when it has grown."""
        known = self._lines.get(path.stem)
        if known is None or known[0] != size:
            with contextlib.suppress(FileNotFoundError):
                self._lines[path.stem] = (size, path.read_bytes().count(b"\n"))
        return self._lines.get(path.stem, (0, 0))[1]

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def read(path: Path) -> Iterator[Refused]:
    """Go through the documents of one file; a torn or foreign line is passed over."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError, TypeError):
                yield Refused(**json.loads(line))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
