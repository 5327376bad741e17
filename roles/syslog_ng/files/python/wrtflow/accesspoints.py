"""Access points: which routers are one, and whose the flows are that another router sees behind their NAT.

What an access point's REPLY says, turned round, is what the next router's ORIG will say of the same flow.
"""

from __future__ import annotations

import collections
import hashlib
import ipaddress

from wrtflow.clock import Clock
from wrtflow.parse import Flow, Refused, protocol
from wrtflow.state import State

# Access points. Flows of theirs that are remembered: the oldest go first, of the open ones or of the ended, whichever
# are more. Flows of one device: its next ones are the access point's own.
_ROUTERS = 64
_FLOWS = 50_000
_OF_ONE = 10_000

# ms that a flow is remembered after its end at the access point: the other router may end it a little later.
_AFTER = 600_000

# In place of a device: one that is left out, and several that can't be told apart (a ping has no ports).
LEFT_OUT = ""
_SEVERAL = "several"

# A device's address, and until when its flow is remembered (ms, steady): None while it is open.
_Device = tuple[str, int | None]


class AccessPoints:
    """The routers that are access points, and the devices behind them."""

    def __init__(self, state: State, clock: Clock) -> None:
        """Know none."""
        self._clock = clock
        # host@sender of those that are access points.
        self.routers: set[str] = set()
        # By the flow as the other router sees it: open ones, and ended ones in the order of their ends.
        self._open: collections.OrderedDict[str, _Device] = collections.OrderedDict()
        self._ended: collections.OrderedDict[str, _Device] = collections.OrderedDict()
        # Flows of each device; those beyond its limit.
        self._of: collections.Counter[str] = collections.Counter()
        self.beyond = 0
        self._roles = state.table("roles", lambda: [(name, "ap") for name in list(self.routers)])
        self._table = state.table("behind", lambda: [*self._open.items(), *self._ended.items()])

    def load(self) -> None:
        """Read what was known before."""
        self.routers.update(self._roles.load(lambda name, _: name))
        latest = self._clock.now() + _AFTER
        for flow, device, until in self._table.load(
            lambda flow, row: (flow, _known(row[0]), None if row[1] is None else int(row[1]))
        ):
            self._put(flow, device, until and min(until, latest))

    def tell(self, router: str, role: str) -> None:
        """Take a router's role: ap, or edge. Refused where it is none of these, or there are too many."""
        if role not in ("ap", "edge"):
            raise Refused("not a role")
        if (role == "ap") == (router in self.routers):
            return
        if role == "edge":
            self.routers.discard(router)
            self._roles.delete(router)
            return
        if len(self.routers) >= _ROUTERS:
            raise Refused("too many access points")
        self.routers.add(router)
        self._roles.put(router, "ap")

    def saw(self, read: Flow, device: str) -> None:
        """Take an access point's NEW or DESTROY; device is the address of whose flow it is, or LEFT_OUT."""
        if read.reply_destination == read.source:
            return
        flow = _name(
            read,
            (read.reply_destination, read.reply_destination_port, read.reply_source, read.reply_source_port),
        )
        known = self._find(flow, device)[0]
        if known != device and not read.distinct:
            device = LEFT_OUT if LEFT_OUT in (known, device) else _SEVERAL
        self._put(flow, device, None if read.event == "NEW" else self._clock.now() + _AFTER)

    def device(self, read: Flow) -> str | None:
        """Tell whose a flow is that another router saw: an address, or LEFT_OUT; None where its source is right."""
        flow = _name(read, (read.source, read.source_port, read.destination, read.destination_port))
        device, until = self._find(flow, _SEVERAL)
        return None if device == _SEVERAL or (until or self._clock.now()) < self._clock.now() else device

    def _find(self, flow: str, otherwise: str) -> _Device:
        return self._open.get(flow) or self._ended.get(flow) or (otherwise, None)

    def _put(self, flow: str, device: str, until: int | None) -> None:
        now = self._clock.now()
        if not self._forget(flow) and device != LEFT_OUT and self._of[device] >= _OF_ONE:
            self.beyond += 1
            return
        self._of[device] += 1
        (self._open if until is None else self._ended)[flow] = device, until
        self._table.put(flow, (device, until))
        while self._ended and (next(iter(self._ended.values()))[1] or 0) <= now:
            self._forget(next(iter(self._ended)))
        if len(self._open) + len(self._ended) > _FLOWS:
            more = self._open if len(self._open) > len(self._ended) else self._ended
            self._forget(next(iter(more)))

    def _forget(self, flow: str) -> bool:
        """Return whether it was known."""
        known = self._open.pop(flow, None) or self._ended.pop(flow, None)
        if known is None:
            return False
        self._table.delete(flow)
        self._of[known[0]] -= 1
        if not self._of[known[0]]:
            del self._of[known[0]]
        return True


def _known(device: str) -> str:
    """Return a device as it is kept; ValueError where it is none."""
    return device if device in (LEFT_OUT, _SEVERAL) else str(ipaddress.ip_address(str(device)))


def _name(read: Flow, ends: tuple[str | None, ...]) -> str:
    """Name a flow by its protocol and ends; by a digest, because those of a device that is left out are kept too."""
    whole = f"{protocol(read.protocol)[0]} {ends}"
    return hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()
