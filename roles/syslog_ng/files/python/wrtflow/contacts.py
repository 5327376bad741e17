"""First contacts: which countries and autonomous systems each device has met."""

from __future__ import annotations

import collections

from wrtflow.clock import Clock
from wrtflow.places import Place
from wrtflow.state import State

# Contacts of one device, and of all; what is beyond is never called first.
_OF_ONE = 10_000
_MOST = 500_000
# Days to remember a contact after its last time, and days without any contact after which days don't count.
_DAYS = 400
_AWAY = 60
_DAY = 86_400_000
# Entries of the short cut for what was asked today.
_ASKED = 100_000


class Contacts:
    """Asked for every flow that a device opens. One thread at a time."""

    def __init__(self, state: State, clock: Clock) -> None:
        """Know none."""
        self._clock = clock
        # "device place" -> the day of the last contact, the oldest first; and how many contacts a device has.
        self._met: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._of: collections.Counter[str] = collections.Counter()
        self._asked: set[tuple[str | None, str, str | None, int | None]] = set()
        self._today = 0
        self._behind = 0  # days that these days are behind the clock's
        self._table = state.table("met", lambda: list(self._met.items()))
        self.beyond = 0  # contacts beyond the limits

    def __len__(self) -> int:
        """Count the contacts."""
        return len(self._met)

    def load(self) -> None:
        """Read what was met before."""
        rows = sorted(self._table.load(lambda contact, day: (int(day), contact)))
        for day, contact in rows:
            self._put(contact, day)
        # No contact grows older by a long time without a collector, or by a wrong clock.
        today = self._clock.now() // _DAY
        if rows and not 0 <= today - rows[-1][0] <= _AWAY:
            self._behind = today - rows[-1][0]

    def meets(self, mac: str | None, address: str, place: Place, now: int) -> bool:
        """Tell whether a device is new to the place's country or system. A device is its MAC, else its address."""
        today = now // _DAY - self._behind
        if today != self._today:
            self._today = today
            self._asked.clear()
            while self._met and next(iter(self._met.values())) < today - _DAYS:
                self._drop(next(iter(self._met)))
        contact = mac, address, place.country, place.system
        if contact in self._asked:
            return False
        if len(self._asked) >= _ASKED:
            self._asked.clear()
        self._asked.add(contact)
        places = place.country, place.system and f"AS{place.system}"
        # Both are noted, also where the first of them is new.
        first = [self._meet(mac, address, where) for where in places if where]
        return any(first)

    def _meet(self, mac: str | None, address: str, where: str) -> bool:
        device, today = mac or address, self._today
        known = f"{device} {where}"
        first = known not in self._met
        # What it met before its MAC was known is the address's. The MAC takes it over.
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
