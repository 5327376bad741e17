"""First contacts: which countries and autonomous systems each device has met since the collector was installed."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

# Enough for a thousand devices in a thousand systems; what comes later is written down but not called first.
_SIZE = 1_000_000
_ASKED = 100_000


class FirstSeen:
    """Asked for every flow, written in the background."""

    def __init__(self, file: Path) -> None:
        """Name the file; nothing is read yet."""
        self._file = file
        self._met: set[str] = set()
        # Short cut: what has just been asked is not new.
        self._asked: set[tuple[str | None, ...]] = set()
        self._new: list[str] = []
        self._lock = threading.Lock()

    def load(self) -> None:
        """Read what was met before."""
        with contextlib.closing(self._open()) as database:
            self._met = {row[0] for row in database.execute("SELECT contact FROM met LIMIT ?", (_SIZE,))}

    def meets(self, mac: str | None, address: str, country: str | None, system: str | None) -> bool:
        """Tell whether a device, known by its address and perhaps its MAC, is new to the country or the system."""
        contact = (mac, address, country, system)
        if contact in self._asked:
            return False
        if len(self._asked) >= _ASKED:
            self._asked.clear()
        self._asked.add(contact)
        first = False
        for where in (country, system and f"AS{system}"):
            if where is None:
                continue
            contacts = [f"{device} {where}" for device in (mac, address) if device]
            unknown = [name for name in contacts if name not in self._met]
            # A device that gets a new address, or whose MAC becomes known, is no new device.
            first |= len(unknown) == len(contacts)
            with self._lock:
                if len(self._met) < _SIZE:
                    self._met.update(unknown)
                    self._new.extend(unknown)
        return first

    def save(self) -> None:
        """Write what is new. sqlite3.Error where that fails; it is tried again with the next save."""
        with self._lock:
            new, self._new = self._new, []
        if not new:
            return
        try:
            with contextlib.closing(self._open()) as database, database:
                database.executemany("INSERT OR IGNORE INTO met VALUES (?)", ((name,) for name in new))
        except sqlite3.Error:
            with self._lock:
                self._new = new + self._new
            raise

    def __len__(self) -> int:
        """Count the contacts."""
        return len(self._met)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._file, timeout=10)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute("CREATE TABLE IF NOT EXISTS met (contact TEXT PRIMARY KEY) WITHOUT ROWID")
        return database
