"""Access points: which routers are one, and whose the flows are that another router sees behind their NAT.

An access point's REPLY, turned round, is what the next router's ORIG says of the same flow.
"""

from __future__ import annotations

import collections
import hashlib
import ipaddress
import typing

from wrtflow.clock import Clock
from wrtflow.parse import Flow, Refused, protocol
from wrtflow.state import State

# Access points.
_ROUTERS = 64
# Flows that are remembered. The oldest go first, of the open or of the ended ones, whichever are more.
_FLOWS = 50_000
# Flows of one device. Its next ones count as the access point's own.
_OF_ONE = 10_000
# ms to remember a flow after its end at the access point: the other router may end it a little later.
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
        self.routers: set[str] = set()  # host@sender of the access points
        # By the flow as the other router sees it: open ones, and ended ones in the order of their ends.
        self._open: collections.OrderedDict[str, _Device] = collections.OrderedDict()
        self._ended: collections.OrderedDict[str, _Device] = collections.OrderedDict()
        self._of: collections.Counter[str] = collections.Counter()  # flows of each device
        self.beyond = 0  # flows beyond the limit of a device
        self._roles = state.table("roles", lambda: [(name, "ap") for name in list(self.routers)])
        self._table = state.table("behind", lambda: [*self._open.items(), *self._ended.items()])

    def load(self) -> None:
        """Read what was known before."""
        self.routers.update(self._roles.load(lambda name, _: name))
        latest = self._clock.now() + _AFTER

        def decode(flow: str, row: list[typing.Any]) -> tuple[str, str, int | None]:
            device, until = row
            if device not in (LEFT_OUT, _SEVERAL):
                device = str(ipaddress.ip_address(str(device)))
            return flow, device, None if until is None else min(int(until), latest)

        for row in self._table.load(decode):
            self._put(*row)

    def tell(self, router: str, role: str) -> None:
        """Take a router's role: ap, or edge. Refused where it is none of these, or there are too many."""
        if role not in ("ap", "edge"):
            raise Refused("not a role")
        known = router in self.routers
        if role == "edge" and known:
            self.routers.remove(router)
            self._roles.delete(router)
        elif role == "ap" and not known:
            if len(self.routers) >= _ROUTERS:
                raise Refused("too many access points")
            self.routers.add(router)
            self._roles.put(router, "ap")

    def saw(self, read: Flow, device: str) -> None:
        """Take an access point's NEW or DESTROY; device: the address whose flow it is, or LEFT_OUT."""
        if read.reply_destination == read.source:
            return
        ends = read.reply_destination, read.reply_destination_port, read.reply_source, read.reply_source_port
        flow = _name(read, *ends)
        known = self._find(flow, device)[0]
        if known != device and not read.distinct:
            device = LEFT_OUT if LEFT_OUT in (known, device) else _SEVERAL
        self._put(flow, device, None if read.event == "NEW" else self._clock.now() + _AFTER)

    def device(self, read: Flow) -> str | None:
        """Tell whose a flow is that another router saw: an address, or LEFT_OUT; None where its source is right."""
        flow = _name(read, read.source, read.source_port, read.destination, read.destination_port)
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


def _name(read: Flow, *ends: str | None) -> str:
    """Name a flow by its protocol and ends: by a digest, because flows of devices left out are kept too."""
    whole = f"{protocol(read.protocol)[0]} {ends}"
    return hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()
