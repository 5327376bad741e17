"""Access points: which routers are one, and whose the flows are that another router sees behind their NAT.

An access point's REPLY, turned round, is what the next router's ORIG says of the same flow.
"""

from __future__ import annotations

import hashlib
import ipaddress
import typing

from wrtflow.clock import Clock
from wrtflow.parse import Flow, Refused, protocol
from wrtflow.state import Rows, State

# Access points.
_ROUTERS = 64
# Flows that are remembered. The one that was silent longest makes room.
_FLOWS = 50_000
# Flows of one device. Its next ones count as the access point's own.
_OF_ONE = 10_000
# ms to remember a flow after its end at the access point: the other router may end it a little later.
_AFTER = 600_000
# ms between two looks for flows that are to be forgotten.
_SWEEP = 60_000
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
        # By host@sender; by the flow as the other router sees it.
        self.routers: Rows[str] = Rows(state, "roles")
        self._flows: Rows[_Device] = Rows(state, "behind", owner=lambda _, known: known[0])
        self.beyond = 0  # flows beyond the limit of a device
        self._swept = 0

    def load(self) -> None:
        """Read what was known before."""
        latest = self._clock.now() + _AFTER

        def decode(_: str, row: typing.Any) -> _Device:
            device, until = row
            if device not in (LEFT_OUT, _SEVERAL):
                device = str(ipaddress.ip_address(str(device)))
            return device, None if until is None else min(int(until), latest)

        self.routers.load(lambda *_: "ap")
        self._flows.load(decode)

    def tell(self, router: str, role: str) -> None:
        """Take a router's role: ap, or edge. Refused where it is none of these, or there are too many."""
        if role == "edge":
            self.routers.drop(router)
        elif role != "ap":
            raise Refused("not a role")
        elif router not in self.routers:
            if len(self.routers) >= _ROUTERS:
                raise Refused("too many access points")
            self.routers[router] = role

    def saw(self, read: Flow, device: str) -> None:
        """Take an access point's NEW or DESTROY; device: the address whose flow it is, or LEFT_OUT."""
        if read.reply_destination == read.source:
            return
        ends = read.reply_destination, read.reply_destination_port, read.reply_source, read.reply_source_port
        flow, now = _name(read, *ends), self._clock.now()
        if now - self._swept >= _SWEEP:
            self._swept = now
            for each in [
                each for each, (_, until) in self._flows.items() if until is not None and until <= now
            ]:
                del self._flows[each]
        known = self._find(flow)[0]
        if known is None and device != LEFT_OUT and self._flows.of[device] >= _OF_ONE:
            self.beyond += 1
            return
        if known not in (None, device) and not read.distinct:
            device = LEFT_OUT if LEFT_OUT in (known, device) else _SEVERAL
        self._flows[flow] = device, None if read.event == "NEW" else now + _AFTER
        if len(self._flows) > _FLOWS:
            # Those of devices left out go last, as long as they are the fewer.
            while (
                self._flows.of[LEFT_OUT] < _FLOWS // 2 and self._find(next(iter(self._flows)))[0] == LEFT_OUT
            ):
                self._flows.move_to_end(next(iter(self._flows)))
            del self._flows[next(iter(self._flows))]

    def device(self, read: Flow) -> str | None:
        """Tell whose a flow is that another router saw: an address, or LEFT_OUT; None where its source is right."""
        flow = _name(read, read.source, read.source_port, read.destination, read.destination_port)
        device, until = self._find(flow)
        return None if device == _SEVERAL or (until or self._clock.now()) < self._clock.now() else device

    def _find(self, flow: str) -> tuple[str | None, int | None]:
        return self._flows.get(flow) or (None, None)


def _name(read: Flow, *ends: str | None) -> str:
    """Name a flow by its protocol and ends: by a digest, because flows of devices left out are kept too."""
    whole = f"{protocol(read.protocol)[0]} {ends}"
    return hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()
