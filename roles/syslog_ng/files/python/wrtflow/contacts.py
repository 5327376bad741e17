"""First contacts: which countries and autonomous systems each device has met."""

from __future__ import annotations

import ipaddress

from wrtflow.clock import Clock
from wrtflow.places import LeftOut, Place
from wrtflow.state import Rows, State

# Contacts of one device, and of all; what is beyond is never called first.
_OF_ONE = 10_000
_MOST = 500_000
# Days to remember a contact after its last time.
_DAYS = 400
_DAY = 86_400_000
# Entries of the short cut for what was asked today.
_ASKED = 100_000


class Contacts:
    """Asked for every flow that a device opens. One thread at a time."""

    def __init__(self, state: State, clock: Clock, left_out: LeftOut) -> None:
        """Know none."""
        self._clock, self._left_out = clock, left_out
        # "device place" -> the day of the last contact, the oldest first.
        self.met: Rows[int] = Rows(state, "met", owner=_host)
        self._asked: set[tuple[str | None, str, str | None, int | None]] = set()
        self._today = 0
        self.beyond = 0  # contacts beyond the limits

    def load(self) -> None:
        """Read what was met before, but by devices left out."""

        today = self._clock.now() // _DAY

        def decode(contact: str, day: int) -> int:
            _host(contact)
            if not 0 <= day <= today:
                raise ValueError(day)
            return int(day)

        self.met.load(decode)
        for contact in list(self.met):
            device = contact.rpartition(" ")[0]
            if self._left_out.mac(device) or self._left_out.address(device):
                del self.met[contact]

    def meets(self, mac: str | None, address: str, place: Place, now: int) -> bool:
        """Tell whether a device is new to the place's country or system. A device is its MAC, else its address."""
        today = now // _DAY
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
        taken = self.met.drop(f"{address} {where}") if mac else None
        # But not what another one met that had the address long ago.
        first = known not in self.met and (taken is None or taken < today - 1)
        if known not in self.met and (self.met.of[_host(known)] >= _OF_ONE or len(self.met) >= _MOST):
            self.beyond += 1
            return False
        if self.met.get(known) != today:
            self.met[known] = today
        return first


def _host(contact: str, _: int = 0) -> str:
    """Return whose a contact is: a host may take any address of its /64."""
    device = contact.rpartition(" ")[0]
    return str(ipaddress.IPv6Network(f"{device}/64", strict=False)) if ":" in device else device
