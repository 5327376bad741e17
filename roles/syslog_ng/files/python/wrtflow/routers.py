"""Who sends: routers, by the name and the address of their lines, and which of them are access points."""

from __future__ import annotations

import collections
import hashlib
import ipaddress
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field

from wrtflow.clock import Clock
from wrtflow.parse import Flow, Refused, protocol
from wrtflow.state import Rows, State

if typing.TYPE_CHECKING:
    from wrtflow.correlate import Open

# Routers, and names of routers at one address (a relay's). Of those without open flows the one that was silent longest
# makes room.
_MOST = 256
_OF_ONE_SENDER = 16
# What the ledger counts of each. lines: those that were understood; starts and ends: of flows, among these lines.
# flows: documents; without_start and without_end: among these documents. kernel_starts and kernel_overruns: flows that
# began in the router's kernel, and events that it dropped. marked: starts that came between two tellings of its count.
_COUNTED = (
    "lines", "starts", "ends", "flows", "without_start", "without_end", "kernel_starts", "kernel_overruns", "marked",
)  # fmt: skip
# Beside what tells a boot: what the kernel counts.
_COUNTS = "counts"
# ms of silence after which a router counts as one that has just begun.
_SILENT = 60_000

# Access points.
_ACCESS_POINTS = 64
# Flows that are remembered. The one that was silent longest makes room.
_FLOWS = 50_000
# Flows of one device. Its next ones count as the access point's own.
_FLOWS_OF_ONE = 10_000
# ms to remember a flow after its end at the access point: the other router may end it a little later.
_AFTER = 600_000
# ms between two looks for flows that are to be forgotten.
_SWEEP = 60_000
# In place of a device: one that is left out, and several that can't be told apart (a ping has no ports).
LEFT_OUT = ""
_SEVERAL = "several"
# A device's address, and until when its flow is remembered (ms, steady): None while it is open.
_Device = tuple[str, int | None]


@dataclass(slots=True, eq=False)
class Router:
    """A name at an address."""

    host: str  # what it calls itself
    sender: str  # the address that its lines come from
    id: str  # host@sender
    began: int = 0  # number of its first line after a silence
    heard: int = 0  # number of its last line
    heard_at: int = 0  # ms, steady: when that came
    # Its open flows by number, which rises with their starts, and by tuple: several where one is not a flow's alone.
    open: dict[int, Open] = field(default_factory=dict)
    tuples: dict[str, Open | collections.OrderedDict[int, Open]] = field(default_factory=dict)
    started: int = 0  # ms, steady: when it booted, where that was told
    # Its boot ended the flows up to this number, and those that began before (ms, steady).
    gone: int = 0
    gone_before: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))
    # Starts since the kernel's count was told last.
    unmarked: int = 0


class Routers:
    """All routers that are known."""

    def __init__(self, state: State) -> None:
        """Know none."""
        self._known: dict[tuple[str, str], Router] = {}
        self._called: dict[str, str] = {}  # by address: the last name
        self._lines = 0
        # By router and by who told it: what tells its boot from others.
        self._boots: Rows[dict[str, str]] = Rows(state, "boots")

    def __iter__(self) -> Iterator[Router]:
        """Go through the routers. They may change meanwhile."""
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        """Count the routers."""
        return len(self._known)

    def load(self) -> None:
        """Read what routers told of their boots."""

        def decode(router: str, row: typing.Any) -> dict[str, str]:
            self.named(router)
            return {str(teller): str(boot) for teller, boot in row.items()}

        self._boots.load(decode)

    def named(self, name: str) -> Router:
        """Return the router of this id. ValueError where it is none, or there are too many."""
        host, _, sender = name.rpartition("@")
        if not (host and sender):
            raise ValueError(f"{name!r} is no router")
        return self._known.get((host, sender)) or self._add(host, sender)

    def spoke(self, host: str | None, sender: str, now: int) -> Router:
        """Return the router of a line that came now (ms, steady). Refused where there are too many.

        A line without a host name is that of the name the address had last, or of the address.
        """
        if not host:
            host = self._called.get(sender, sender)
        router = self._known.get((host, sender)) or self._add(host, sender)
        self._lines += 1
        if now - router.heard_at > _SILENT or not router.began:
            router.began = self._lines
        router.heard, router.heard_at = self._lines, now
        return router

    def called(self, router: Router) -> None:
        """Remember a router's name for lines of its address that have none."""
        self._called[router.sender] = router.host

    def earlier(self, router: Router) -> Iterator[Router]:
        """Go through those that this router was: of its name or its address, and silent since it began to speak.

        So a router that is renamed, or that sends from another address, goes on with its open flows. Two live routers
        of one name or one address are told apart, because both are heard.
        """
        for other in self._known.values():
            if other.heard < router.began and (other.sender == router.sender or other.host == router.host):
                yield other

    def booted(self, router: Router, teller: str, boot: str) -> str | None:
        """Note a boot. Returns what the same teller told of the boot before, or None."""
        told = self._boots.get(router.id, {})
        if told.get(teller) != boot:
            self._boots[router.id] = {**told, teller: boot}
        return told.get(teller)

    def counted(self, router: Router, starts: str, overruns: str) -> None:
        """Take the kernel's counts, as the router's wrtflow-net tells them: digits, or "-" for a count it has not."""
        before, unmarked, router.unmarked = self.kernel(router), router.unmarked, 0
        self.booted(router, _COUNTS, f"{starts} {overruns}")
        for name, count in self.kernel(router).items():
            if name not in before:
                continue
            # One that has fallen has begun again, with the router or with ulogd.
            again = count < before[name]
            since = count if again else count - before[name]
            router.counts[f"kernel_{name}"] += since
            if name == "starts":
                router.counts["marked"] += min(unmarked, since) if again else unmarked

    def kernel(self, router: Router) -> dict[str, int]:
        """Return the kernel's counts as they were told last: starts, overruns. What is not told is left out."""
        told = zip(
            ("starts", "overruns"), self._boots.get(router.id, {}).get(_COUNTS, "").split(), strict=False
        )
        return {name: int(count) for name, count in told if count.isdecimal()}

    def _add(self, host: str, sender: str) -> Router:
        for most, of in (_OF_ONE_SENDER, sender), (_MOST, None):
            known = [one for one in self if of in (None, one.sender)]
            if len(known) >= most:
                idle = min((one for one in known if not one.open), key=lambda one: one.heard, default=None)
                if idle is None:
                    raise Refused("too many names of routers")
                del self._known[idle.host, idle.sender]
                if self._called.get(idle.sender) == idle.host:
                    del self._called[idle.sender]
                self._boots.drop(idle.id)
        router = self._known[host, sender] = Router(host, sender, f"{host}@{sender}")
        return router


class AccessPoints:
    """Which routers are access points, and whose the flows are that another router sees behind their NAT.

    An access point's REPLY, turned round, is what the next router's ORIG says of the same flow.
    """

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
            if len(self.routers) >= _ACCESS_POINTS:
                raise Refused("too many access points")
            self.routers[router] = role

    def saw(self, read: Flow, device: str) -> None:
        """Take an access point's NEW or DESTROY; device: the address whose flow it is, or LEFT_OUT."""
        if read.reply_destination == read.source:
            return
        ends = read.reply_destination, read.reply_destination_port, read.reply_source, read.reply_source_port
        flow, now = _flow(read, *ends), self._clock.now()
        if now - self._swept >= _SWEEP:
            self._swept = now
            ended = [each for each, (_, until) in self._flows.items() if until is not None and until <= now]
            for each in ended:
                del self._flows[each]
        known = self._find(flow)[0]
        if known is None and device != LEFT_OUT and self._flows.of[device] >= _FLOWS_OF_ONE:
            self.beyond += 1
            return
        if known not in (None, device) and not read.distinct:
            device = LEFT_OUT if LEFT_OUT in (known, device) else _SEVERAL
        self._flows[flow] = device, None if read.event == "NEW" else now + _AFTER
        if len(self._flows) > _FLOWS:
            # Those of devices left out go last, as long as they are the fewer.
            few = self._flows.of[LEFT_OUT] < _FLOWS // 2
            while few and next(iter(self._flows.values()))[0] == LEFT_OUT:
                self._flows.move_to_end(next(iter(self._flows)))
            del self._flows[next(iter(self._flows))]

    def device(self, read: Flow) -> str | None:
        """Tell whose a flow is that another router saw: an address, or LEFT_OUT; None where its source is right."""
        flow = _flow(read, read.source, read.source_port, read.destination, read.destination_port)
        device, until = self._find(flow)
        return None if device == _SEVERAL or (until or self._clock.now()) < self._clock.now() else device

    def _find(self, flow: str) -> tuple[str | None, int | None]:
        return self._flows.get(flow) or (None, None)


def _flow(read: Flow, *ends: str | None) -> str:
    """Name a flow by its protocol and ends: by a digest, because flows of devices left out are kept too."""
    whole = f"{protocol(read.protocol)[0]} {ends}"
    return hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()
