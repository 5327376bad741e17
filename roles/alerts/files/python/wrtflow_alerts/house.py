"""The house's events: a new device, a first contact to a country, flows to suspicious ports.

Each look reads the flows since the last look, and those of the hour before it. Events are remembered, so that each is
reported once. Elasticsearch, which has all flows of the last year, is asked whether something is new.
"""

from __future__ import annotations

import ipaddress
import typing
from dataclasses import dataclass, replace

from wrtflow_alerts.rules import Rule
from wrtflow_alerts.settings import iso
from wrtflow_alerts.storage import Json, Storage

# Seconds by which a look overlaps the last one: flows are stored a little after their end.
OVERLAP = 3600

# At most so many devices, countries of a device, and values in a text.
_DEVICES, _COUNTRIES, NAMED = 2000, 250, 3

# Questions about the past in one request.
_ASKED = 100

# Seconds within which a router reports the device of a new address.
_UNNAMED = 600

# Seconds to remember that a device is known. After that, Elasticsearch is asked again.
_KNOWN = 35 * 86400

# Query clauses: flows that the edge saw; flows that a device of the house opened.
EDGE: Json = {"term": {"observer.type": "router"}}
OPENED: Json = {"terms": {"network.direction": ["outbound", "internal"]}}
OUTBOUND: Json = {"term": {"network.direction": "outbound"}}

_FIRST: Json = {"min": {"field": "@timestamp"}}


@dataclass(frozen=True)
class Event:
    """An event: something that has happened for the first time."""

    rule: str
    device: str
    what: str
    at: float  # seconds since 1970
    key: str  # the event's identity
    macs: tuple[str, ...]
    addresses: tuple[str, ...]
    manufacturer: str
    country: str | None = None
    port: str | None = None


@dataclass(frozen=True)
class Device:
    """A device in some flows."""

    name: str
    first: float
    macs: tuple[str, ...]
    maker: str
    addresses: tuple[str, ...]

    @property
    def id(self) -> str:
        """Return an identity that survives another name: the first MAC, if there is one."""
        return self.macs[0] if self.macs else self.name

    def event(self, rule: str, what: str, at: float, **more: str) -> Event:
        """Return an event of this device. more: its country or port."""
        key = "/".join([rule, self.id, *([more["country"]] if "country" in more else [])])
        return Event(rule, self.name, what, at, key, self.macs, self.addresses, self.maker, **more)

    @property
    def clauses(self) -> Json:
        """Return the query for its flows: by its name or by its MAC."""
        known: list[Json] = [{"term": {"wrtflow.device": self.name}}]
        known += [{"terms": {"source.mac": list(self.macs)}}] if self.macs else []
        return {"bool": {"should": known, "minimum_should_match": 1}}


def look(
    rules: dict[str, Rule], storage: Storage, known: dict[str, float], since: float, now: float
) -> list[Event]:
    """Return the events since a time, oldest first. Raise StorageError if Elasticsearch does not answer.

    known: names and MACs of devices, with the time they were last seen; it is updated. Times in seconds since 1970.
    """
    window: list[Json] = [EDGE, {"range": {"@timestamp": {"gte": iso(since - OVERLAP)}}}]
    events: list[Event] = []
    if rule := rules.get("new-device"):
        events += _new_devices(rule, storage, window, known, now)
    if rule := rules.get("first-country"):
        events += _first_countries(rule, storage, window)
    events += _ports([rule for rule in rules.values() if rule.ports], storage, window)
    return sorted(events, key=lambda event: event.at)


def devices(storage: Storage, clauses: list[Json], aggs: Json) -> typing.Iterator[tuple[Device, Json]]:
    """Yield each device in the flows that match the clauses, with its bucket."""
    inner = {
        "first": _FIRST,
        "macs": {"terms": {"field": "source.mac", "size": NAMED}},
        "makers": {"terms": {"field": "device.manufacturer", "size": 1}},
        "addresses": {"terms": {"field": "source.ip", "size": NAMED}},
        **aggs,
    }
    by_device = {"devices": {"terms": {"field": "wrtflow.device", "size": _DEVICES}, "aggs": inner}}
    for bucket in storage.search(clauses, by_device).get("devices", {}).get("buckets", []):
        device = Device(
            bucket["key"], first_of(bucket), keys(bucket["macs"]),
            "".join(keys(bucket["makers"])), keys(bucket["addresses"]),
        )  # fmt: skip
        yield device, bucket


def _new_devices(
    rule: Rule, storage: Storage, window: list[Json], known: dict[str, float], now: float
) -> list[Event]:
    candidates = []
    for device, _ in devices(storage, [*window, OPENED], {}):
        names = {device.name, *device.macs}
        if names & known.keys():
            known.update(dict.fromkeys(names, now))
        elif not device.macs and (ip := address_of(device.name)):
            # The router has not reported its device. IPv6 addresses change often, so they are no new devices.
            if ip.version == 4 and now - device.first >= _UNNAMED:
                candidates.append(device)
        else:
            candidates.append(device)
    for name in [name for name, seen in known.items() if now - seen > _KNOWN]:
        del known[name]
    candidates = grouped(candidates)
    counts = counts_of(storage, [[_earlier(each)] for each in candidates])
    # At the very beginning, every device is new.
    began = first_of(storage.search([EDGE], {"first": _FIRST})) if candidates else 0
    events = []
    for device, met in zip(candidates, counts, strict=True):
        known.update(dict.fromkeys({device.name, *device.macs}, now))
        if not met and device.first - began >= rule.first_day * 3600:
            what = ", ".join(filter(None, [device.maker, *device.macs, *device.addresses]))
            events.append(device.event(rule.name, what, device.first))
    return events


def grouped(devices: list[Device]) -> list[Device]:
    """Return each device once. A device whose name came a moment later is in the list under its MAC, too."""
    groups: dict[str, Device] = {}
    # Those with a name come first.
    for device in sorted(devices, key=lambda each: each.name in each.macs):
        other = groups.get(device.id)
        groups[device.id] = replace(other, first=min(other.first, device.first)) if other else device
    return list(groups.values())


def _earlier(device: Device) -> Json:
    """Return the query for earlier flows of a device, which show that it is not new."""
    seen: Json = {"bool": {"filter": [device.clauses, before(device.first)]}}
    if not address_of(device.name):
        return seen
    # For an address without a name, later flows with a MAC count as well: that device is checked by its MAC.
    later = {"range": {"@timestamp": {"gte": iso(device.first)}}}
    named = {
        "bool": {"filter": [{"term": {"source.ip": device.name}}, {"exists": {"field": "source.mac"}}, later]}
    }
    return {"bool": {"should": [seen, named], "minimum_should_match": 1}}


def _first_countries(rule: Rule, storage: Storage, window: list[Json]) -> list[Event]:
    # The collector marks first contacts to a country or to a network. Earlier flows show whether the country is new.
    first: list[Json] = [
        *window,
        OUTBOUND,
        {"term": {"wrtflow.first_seen": True}},
        {"exists": {"field": "destination.geo.country_iso_code"}},
    ]
    inner = {
        "first": _FIRST,
        "names": {"terms": {"field": "destination.geo.country_name", "size": 1}},
        "sites": {"terms": {"field": "destination.domain", "size": NAMED}},
        "owners": {"terms": {"field": "destination.as.organization.name", "size": NAMED}},
    }
    countries = {
        "countries": {
            "terms": {"field": "destination.geo.country_iso_code", "size": _COUNTRIES},
            "aggs": inner,
        }
    }
    contacts = [
        (device, bucket)
        for device, whole in devices(storage, first, countries)
        for bucket in whole["countries"]["buckets"]
    ]
    asked: list[list[Json]] = []
    for device, bucket in contacts:
        at = first_of(bucket)
        here = {"term": {"destination.geo.country_iso_code": bucket["key"]}}
        asked.append([EDGE, OUTBOUND, device.clauses, here, before(at)])
        asked.append([EDGE, OPENED, device.clauses, before(at - rule.first_day * 3600)])
    counts = counts_of(storage, asked)
    events = []
    for (device, bucket), met, old in zip(contacts, counts[0::2], counts[1::2], strict=True):
        if old and not met:
            country = bucket["key"]
            name = "".join(keys(bucket["names"])) or country
            whom = ", ".join(keys(bucket["sites"]) or keys(bucket["owners"]))
            what = f"{name} ({whom})" if whom else name
            events.append(device.event(rule.name, what, first_of(bucket), country=country))
    return events


def _ports(rules: list[Rule], storage: Storage, window: list[Json]) -> typing.Iterator[Event]:
    for rule in rules:
        clauses = [*window, OUTBOUND, {"terms": {"destination.port": list(rule.ports)}}]
        inner = {
            "ports": {"terms": {"field": "destination.port", "size": len(rule.ports)}},
            "sites": {"terms": {"field": "destination.domain", "size": NAMED}},
            "servers": {"terms": {"field": "destination.ip", "size": NAMED}},
        }
        for device, bucket in devices(storage, clauses, inner):
            ports = keys(bucket["ports"])
            whom = ", ".join(keys(bucket["sites"]) or keys(bucket["servers"]))
            what = f"port {' and '.join(ports)} of {whom}"
            yield device.event(rule.name, what, device.first, port=ports[0])


def counts_of(storage: Storage, questions: list[list[Json]]) -> list[int]:
    """Return, for each list of clauses, the number of flows that match all of them."""
    counts = []
    for begin in range(0, len(questions), _ASKED):
        some = questions[begin : begin + _ASKED]
        filters = {str(number): {"bool": {"filter": clauses}} for number, clauses in enumerate(some)}
        answer = storage.search([], {"asked": {"filters": {"filters": filters}}})
        buckets = answer.get("asked", {}).get("buckets", {})
        counts += [buckets.get(str(number), {}).get("doc_count", 0) for number in range(len(some))]
    return counts


def before(seconds: float) -> Json:
    """Return the query for flows that ended before a time."""
    return {"range": {"@timestamp": {"lt": iso(seconds)}}}


def first_of(bucket: Json) -> float:
    """Return a bucket's first time in seconds since 1970, 0 if it has none."""
    return float(bucket.get("first", {}).get("value") or 0) / 1000


def keys(terms: Json) -> tuple[str, ...]:
    """Return the keys of a terms aggregation as text."""
    return tuple(str(bucket["key"]) for bucket in terms["buckets"])


def address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address if a name is one, else None."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
