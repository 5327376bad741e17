"""First contacts: which countries and autonomous systems each device has met."""

from __future__ import annotations

import collections

from wrtflow.clock import Clock
from wrtflow.state import State

# Contacts of one device, and of all; what is beyond is never called first.
_OF_ONE = 10_000
_MOST = 500_000

# Days that a contact is remembered which does not happen again, and days that nothing was met before they don't count.
_DAYS = 400
_AWAY = 60
_DAY = 86_400_000

# What was asked today: a short cut.
_ASKED = 100_000


class Contacts:
    """Asked for every flow that a device opens. One thread at a time."""

    def __init__(self, state: State, clock: Clock) -> None:
        """Know none."""
        self._clock = clock
        # "device place" -> the day of the last contact, the oldest first.
        self._met: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._of: collections.Counter[str] = collections.Counter()
        self._asked: set[tuple[str | None, ...]] = set()
        self._today = 0
        # Days that these days are behind the clock's.
        self._behind = 0
        self._table = state.table("met", lambda: list(self._met.items()))
        # Contacts beyond the limits.
        self.beyond = 0

    def __len__(self) -> int:
        """Count the contacts."""
        return len(self._met)

    def load(self) -> None:
        """Read what was met before."""
        rows = sorted(self._table.load(lambda contact, day: (int(day), contact)))
        for day, contact in rows:
            self._put(contact, day)
        # A long time without a collector, or a clock that is or was wrong, makes no contact older.
        if rows and not 0 <= self._day() - rows[-1][0] <= _AWAY:
            self._behind = self._day() - rows[-1][0]

    def meets(self, mac: str | None, address: str, country: str | None, system: int | None) -> bool:
        """Tell whether a device is new to the country or to the system. It is its MAC, else its address."""
        today = self._day()
        if today != self._today:
            self._today = today
            self._asked.clear()
            while self._met and next(iter(self._met.values())) < today - _DAYS:
                self._drop(next(iter(self._met)))
        contact = (mac, address, country, str(system))
        if contact in self._asked:
            return False
        if len(self._asked) >= _ASKED:
            self._asked.clear()
        self._asked.add(contact)
        # Of both, before either is written down.
        first = [
            self._meet(mac, address, where, today) for where in (country, system and f"AS{system}") if where
        ]
        return any(first)

    def _day(self) -> int:
        return self._clock.now() // _DAY - self._behind

    def _meet(self, mac: str | None, address: str, where: str, today: int) -> bool:
        device = mac or address
        known = f"{device} {where}"
        first = known not in self._met
        # What it met before its MAC was known is the address's, until the MAC takes it over.
        if mac and self._drop(f"{address} {where}"):
            first = False
        if known not in self._met and (self._of[device] >= _OF_ONE or len(self._met) >= _MOST):
            self.beyond += 1
            return False
        if self._met.get(known) != today:
            self._put(known, today)
            self._table.put(known, today)
        return first

    def _put(self, contact: str, day: int) -> None:
        if contact not in self._met:
            self._of[contact.rpartition(" ")[0]] += 1
        self._met[contact] = day
        self._met.move_to_end(contact)

    def _drop(self, contact: str) -> bool:
        """Return whether it was known."""
        if self._met.pop(contact, None) is None:
            return False
        self._table.delete(contact)
        device = contact.rpartition(" ")[0]
        self._of[device] -= 1
        if not self._of[device]:
            del self._of[device]
        return True
