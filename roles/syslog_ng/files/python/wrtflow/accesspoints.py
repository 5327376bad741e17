"""Access points: which routers are one, and whose the flows are that another router sees behind their NAT.

What an access point's REPLY says, turned round, is what the next router's ORIG will say of the same flow.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from pathlib import Path

from cachetools import FIFOCache, TTLCache

from wrtflow.flow import Flow, Refused, protocol

# A router that tells of its role; and flows that access points have open.
_ROUTERS = 1000
_FLOWS = 50_000

# Seconds that a flow is remembered after its end at the access point: the other router may end it a little later.
_AFTER = 600

# In place of a device: one that is left out, and several that can't be told apart (a ping has no ports).
LEFT_OUT = ""
_SEVERAL = "several"


class AccessPoints:
    """Any thread may call. Outlives a restart; after a kill -9 only the routers are known."""

    def __init__(self, file: Path) -> None:
        """Read what was kept."""
        self._file = file
        self._lock = threading.Lock()
        # host@sender of those that are access points.
        self.routers: set[str] = set()
        # The flow as the other router sees it -> the device's address.
        self._open: FIFOCache[str, str] = FIFOCache(_FLOWS)
        self._ended: TTLCache[str, str] = TTLCache(_FLOWS, _AFTER)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            kept = json.loads(file.read_text(encoding="utf-8"))
            self.routers.update(kept["routers"])
            self._open.update(kept["open"])
            self._ended.update(kept["ended"])

    def told(self, router: str, role: str) -> None:
        """Take a router's role: ap, or edge. Refused where it is none of these."""
        if role not in ("ap", "edge"):
            raise Refused("not a role")
        before = len(self.routers)
        if role == "edge":
            self.routers.discard(router)
        elif before < _ROUTERS:
            self.routers.add(router)
        if len(self.routers) != before:
            self.save()

    def saw(self, read: Flow, device: str) -> None:
        """Take an access point's NEW or DESTROY; device is the address of whose flow it is, or LEFT_OUT."""
        if read.reply_destination == read.source:
            return
        flow = _name(
            read,
            (read.reply_destination, read.reply_destination_port, read.reply_source, read.reply_source_port),
        )
        with self._lock:
            known = self._open.get(flow, self._ended.get(flow, device))
            if known != device and not read.distinct:
                device = LEFT_OUT if LEFT_OUT in (known, device) else _SEVERAL
            self._open.pop(flow, None)
            self._ended.pop(flow, None)
            (self._open if read.event == "NEW" else self._ended)[flow] = device

    def device(self, read: Flow) -> str | None:
        """Tell whose a flow is that another router saw: an address, or LEFT_OUT; None where its source is right."""
        flow = _name(read, (read.source, read.source_port, read.destination, read.destination_port))
        with self._lock:
            device = self._open.get(flow, self._ended.get(flow))
        return None if device == _SEVERAL else device

    def save(self) -> None:
        """Write what has to outlive a restart."""
        with self._lock:
            kept = {"routers": sorted(self.routers), "open": dict(self._open), "ended": dict(self._ended)}
        new = self._file.with_name(f"{self._file.name}.new")
        with contextlib.suppress(OSError):
            new.write_text(json.dumps(kept), encoding="utf-8")
            new.replace(self._file)


def _name(read: Flow, ends: tuple[str | None, ...]) -> str:
    """Name a flow by its protocol and ends; by a digest, because those of a device that is left out are kept too."""
    whole = f"{protocol(read.protocol)[0]} {ends}"
    return hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()
