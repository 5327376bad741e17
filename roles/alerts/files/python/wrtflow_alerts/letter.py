"""The letter's figures: those of a week, and those of the weeks before."""

from __future__ import annotations

from dataclasses import dataclass, field

from wrtflow_alerts import house
from wrtflow_alerts.house import EDGE, OPENED, OUTBOUND
from wrtflow_alerts.settings import iso
from wrtflow_alerts.storage import Json, Storage

_DAY = 86400

# "Usual" is the mean of this many weeks before, or of the whole weeks since a device's first flow.
WEEKS = 4

# The night ends at this hour of the house's time zone; it begins at 0.
NIGHT = 6

# An upload is large if it has more than TIMES the usual bytes, and at least LEAST bytes.
TIMES, LEAST = 3, 1_000_000

# At most so many devices, sites named for a device, and sites in one request.
_DEVICES, _LARGEST, _ASKED = 1000, 3, 10_000

_INBOUND: Json = {"term": {"network.direction": "inbound"}}


@dataclass
class Traffic:
    """A device's bytes with the internet. The usual ones are None if it was not there for a whole week before."""

    device: str
    up: float = 0
    down: float = 0
    night: float = 0
    usual_up: float | None = None
    usual_down: float | None = None
    usual_night: float | None = None

    @property
    def large(self) -> bool:
        """Tell whether the device has sent much more than usual."""
        return self.usual_up is not None and self.up >= LEAST and self.up > TIMES * self.usual_up


@dataclass
class NewDevice:
    """A new device."""

    device: str
    manufacturer: str
    macs: list[str]
    addresses: list[str]
    first: float  # seconds since 1970


@dataclass
class Sites:
    """The sites that a device has visited for the first time."""

    count: int
    largest: list[str]


@dataclass
class Figures:
    """All figures of a letter. Times in seconds since 1970."""

    begin: float
    end: float
    began: float | None = None  # the house's first flow; None: there is none
    flows: int = 0
    traffic: list[Traffic] = field(default_factory=list)  # the most bytes first
    new_devices: list[NewDevice] = field(default_factory=list)
    new_countries: dict[str, list[str]] = field(default_factory=dict)
    new_sites: dict[str, Sites] = field(default_factory=dict)
    outbound: int = 0
    unnamed: int = 0  # outbound flows to a site without a name
    timeouts: int = 0  # flows whose end, and so whose bytes, are missing
    losses: list[str] = field(default_factory=list)  # the ledger's losses, one sentence each

    @property
    def whole(self) -> bool:
        """Tell whether there are flows from before this time. Without them, everything would be new."""
        return self.began is not None and self.began < self.begin


def figures(storage: Storage, now: float, days: float) -> Figures:
    """Return the figures of the last `days` days. Raise StorageError if Elasticsearch does not answer."""
    found = Figures(now - days * _DAY, now)
    this = _between(found.begin, now)
    _totals(found, storage, this)
    found.traffic = _traffic(storage, now, days * _DAY)
    if found.whole:
        found.new_devices = _new_devices(storage, this)
        strangers = {new.device for new in found.new_devices}
        for device, country in sorted(_first(storage, found.begin, this, "destination.geo.country_name")):
            if device not in strangers:
                found.new_countries.setdefault(device, []).append(country)
        _sites(found, _first(storage, found.begin, this, "destination.registered_domain"), strangers)
    return found


def _between(begin: float, end: float) -> Json:
    return {"range": {"@timestamp": {"gte": iso(begin), "lt": iso(end)}}}


def _totals(found: Figures, storage: Storage, this: Json) -> None:
    first = storage.search([EDGE], {"first": {"min": {"field": "@timestamp"}}})
    found.began = house.first_of(first) or None
    kinds: dict[str, list[Json]] = {
        "flows": [],
        "outbound": [OUTBOUND],
        "unnamed": [OUTBOUND, {"term": {"wrtflow.domain_source": "none"}}],
        "timeouts": [{"term": {"event.action": "flow-timeout"}}],
    }
    counts = house.counts_of(storage, [[EDGE, this, *clauses] for clauses in kinds.values()])
    found.flows, found.outbound, found.unnamed, found.timeouts = counts


def _traffic(storage: Storage, now: float, length: float) -> list[Traffic]:
    """Return each device's bytes in the last length seconds, and its mean of the WEEKS such times before."""
    begins = [now - (number + 1) * length for number in range(WEEKS + 1)]
    sums = {
        "outbound": _sums(OUTBOUND, up="source.bytes", down="destination.bytes"),
        # Flows opened from outside: the device sends the destination's bytes.
        "inbound": _sums(_INBOUND, up="destination.bytes", down="source.bytes"),
        "night": _sums(
            {
                "bool": {
                    "filter": [
                        {"terms": {"network.direction": ["outbound", "inbound"]}},
                        {"range": {"wrtflow.hour": {"lt": NIGHT}}},
                    ]
                }
            },
            all="network.bytes",
        ),
    }
    windows = {str(number): _between(begin, begin + length) for number, begin in enumerate(begins)}
    by_window = {
        "windows": {"filters": {"filters": windows}, "aggs": sums},
        "first": {"min": {"field": "@timestamp"}},
    }
    by_device = {"terms": {"field": "wrtflow.device", "size": _DEVICES}, "aggs": by_window}
    answer = storage.search([EDGE, _between(begins[-1], now)], {"devices": by_device})
    traffic = []
    for bucket in answer.get("devices", {}).get("buckets", []):
        weeks = [bucket["windows"]["buckets"][name] for name in windows]
        first = house.first_of(bucket)
        before = [_bytes(week) for week, begin in zip(weeks[1:], begins[1:], strict=True) if begin >= first]
        up, down, night = _bytes(weeks[0])
        one = Traffic(bucket["key"], up, down, night)
        if before:
            one.usual_up, one.usual_down, one.usual_night = (
                sum(column) / len(before) for column in zip(*before, strict=True)
            )
        if weeks[0]["doc_count"]:
            traffic.append(one)
    return sorted(traffic, key=lambda one: (-one.up - one.down, one.device))


def _sums(clause: Json, **fields: str) -> Json:
    return {"filter": clause, "aggs": {name: {"sum": {"field": path}} for name, path in fields.items()}}


def _bytes(week: Json) -> tuple[float, float, float]:
    """Return the bytes sent, received, and moved at night."""
    out, into = week["outbound"], week["inbound"]
    return (
        out["up"]["value"] + into["up"]["value"],
        out["down"]["value"] + into["down"]["value"],
        week["night"]["all"]["value"],
    )


def _new_devices(storage: Storage, this: Json) -> list[NewDevice]:
    # An address without a name or a MAC says nothing about a device.
    here = house.grouped(
        [
            device
            for device, _ in house.devices(storage, [EDGE, OPENED, this], {})
            if device.macs or not house.address_of(device.name)
        ]
    )
    met = house.counts_of(storage, [[device.clauses, house.before(device.first)] for device in here])
    return [
        NewDevice(device.name, device.maker, list(device.macs), list(device.addresses), device.first)
        for device, before in sorted(zip(here, met, strict=True), key=lambda each: each[0].first)
        if not before
    ]


def _first(storage: Storage, begin: float, this: Json, path: str) -> dict[tuple[str, str], float]:
    """Return (device, value) and its bytes, for values of a field that the device has now and never had before."""
    fields = {"device": "wrtflow.device", "value": path}
    sums = {"bytes": {"sum": {"field": "network.bytes"}}}
    here = {
        (bucket["key"]["device"], bucket["key"]["value"]): float(bucket["bytes"]["value"])
        for bucket in storage.pairs([EDGE, OUTBOUND, this], fields, sums)
    }
    values = sorted({value for _, value in here})
    for start in range(0, len(values), _ASKED):
        some: Json = {"terms": {path: values[start : start + _ASKED]}}
        for bucket in storage.pairs([EDGE, OUTBOUND, some, house.before(begin)], fields, {}):
            here.pop((bucket["key"]["device"], bucket["key"]["value"]), None)
    return here


def _sites(found: Figures, first: dict[tuple[str, str], float], strangers: set[str]) -> None:
    by_device: dict[str, list[tuple[float, str]]] = {}
    for (device, site), size in first.items():
        if device not in strangers:
            by_device.setdefault(device, []).append((-size, site))
    for device, sites in sorted(by_device.items(), key=lambda each: (-len(each[1]), each[0])):
        found.new_sites[device] = Sites(len(sites), [site for _, site in sorted(sites)[:_LARGEST]])
