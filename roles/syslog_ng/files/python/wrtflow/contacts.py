"""First contacts: which countries and autonomous systems each device has met."""

from __future__ import annotations

from wrtflow.clock import Clock
from wrtflow.places import Place
from wrtflow.state import Rows, State

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
        # "device place" -> the day of the last contact, the oldest first.
        self.met: Rows[int] = Rows(state, "met", owner=lambda contact, _: contact.rpartition(" ")[0])
        self._asked: set[tuple[str | None, str, str | None, int | None]] = set()
        self._today = 0
        self._behind = 0  # days that these days are behind the clock's
        self.beyond = 0  # contacts beyond the limits

    def load(self) -> None:
        """Read what was met before."""
        self.met.load(lambda _, day: int(day))
        # No contact grows older by a long time without a collector, or by a wrong clock.
        away = self._clock.now() // _DAY - max(self.met.values(), default=0)
        if self.met and not 0 <= away <= _AWAY:
            self._behind = away

    def meets(self, mac: str | None, address: str, place: Place, now: int) -> bool:
        """Tell whether a device is new to the place's country or system. A device is its MAC, else its address."""
        today = now // _DAY - self._behind
        if today != self._today:
            self._today = today
            self._asked.clear()
            while self.met and next(iter(self.met.values())) < today - _DAYS:
                del self.met[next(iter(self.met))]
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
        # What it met before its MAC was known is the address's. The MAC takes it over.
        taken = mac and self.met.drop(f"{address} {where}")
        first = known not in self.met and not taken
        if known not in self.met and (self.met.of[device] >= _OF_ONE or len(self.met) >= _MOST):
            self.beyond += 1
            return False
        if self.met.get(known) != today:
            self.met[known] = today
        return first
