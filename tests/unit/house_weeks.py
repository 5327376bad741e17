"""Six weeks of a made-up house, and the letter's figures of it as plain Python has them from the documents."""

import random
from collections import defaultdict
from typing import Any

from elastic import Document, seconds, value
from wrtflow_alerts.settings import iso

DAY, WEEK = 86_400, 7 * 86_400

COUNTRIES = {"DE": "Germany", "CN": "China", "HU": "Hungary", "US": "United States"}


def flow(device: str, at: float, mac: str | None = None, country: str | None = None, **more: Any) -> Document:
    """Return a flow document that ended at a time (seconds since 1970); more: dotted fields with __ for the dots."""
    document: Document = {
        "@timestamp": iso(at),
        "ecs": {"version": "8.17.0"},
        "event": {
            "kind": "event",
            "category": ["network"],
            "type": ["connection", "end"],
            "action": "flow-end",
        },
        "observer": {"type": "router", "hostname": "attic"},
        "network": {"direction": "outbound", "transport": "tcp", "type": "ipv4", "bytes": 0},
        "source": {"ip": "192.168.1.20", "bytes": 0},
        "destination": {"ip": "198.51.100.7", "port": 443, "bytes": 0},
        "wrtflow": {"device": device, "domain_source": "none", "hour": 12},
    }
    if mac:
        document["source"]["mac"] = mac
        document["device"] = {"manufacturer": "Espressif Inc."}
    if country:
        document["destination"]["geo"] = {"country_iso_code": country, "country_name": COUNTRIES[country]}
    for name, one in more.items():
        *path, last = name.split("__")
        inner = document
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = one
    document["network"]["bytes"] = document["source"]["bytes"] + document["destination"]["bytes"]
    return document


def weeks(now: float) -> list[Document]:
    """Return flows of six weeks until now: old devices, one that came a fortnight ago, and two that are new."""
    dice = random.Random(7)
    documents = []
    devices = {"laptop": 42, "camera": 42, "tv": 16, "esp": 3, "192.168.1.99": 2}
    for number, (device, days) in enumerate(devices.items()):
        mac = None if device[0] == "1" else f"AA-BB-CC-00-00-0{number}"
        for _ in range(days * 6):
            at = now - dice.uniform(0, days * DAY)
            last = now - at < WEEK
            sites = ["news", "photo", "bank", *(["shop", "game"] if last else [])]
            site = dice.choice([None, *sites])
            direction = dice.choice(["outbound"] * 6 + ["inbound", "internal", "external"])
            up = dice.randrange(1_000_000) * (6 if device == "camera" and last else 1)
            documents.append(
                flow(
                    device, at, mac, dice.choice([None, "DE", "US", *(["CN"] if last else [])]),
                    network__direction=direction, source__bytes=up, destination__bytes=dice.randrange(9_000_000),
                    source__ip=f"192.168.1.{20 + number}", wrtflow__hour=dice.randrange(24),
                    wrtflow__domain_source="dns" if site else "none",
                    observer__type=dice.choice(["router"] * 9 + ["access_point"]),
                    event__action=dice.choice(["flow-end"] * 19 + ["flow-timeout"]),
                    **({"destination__registered_domain": f"{site}.example"} if site else {}),
                )
            )  # fmt: skip
    # Met just before the week, and in it once more.
    documents += [
        flow("laptop", now - at, country="HU", destination__registered_domain="late.example")
        for at in (WEEK + 3600, 3 * DAY + 3600, DAY)
    ]
    # Named anew this week: not a new device.
    documents.append(flow("webcam", now - DAY, "AA-BB-CC-00-00-01", source__ip="192.168.1.21"))
    return documents


def expected(documents: list[Document], now: float, days: float = 7) -> dict[str, Any]:
    """Return the figures, straight from the documents."""
    edge = [each for each in documents if value(each, "observer.type") == "router"]
    length = days * DAY
    begin = now - length

    def within(number: int) -> list[Document]:
        return [
            each
            for each in edge
            if now - (number + 1) * length <= seconds(each["@timestamp"]) < now - number * length
        ]

    this = within(0)
    before = [each for each in edge if seconds(each["@timestamp"]) < begin]
    looked = [each for number in range(5) for each in within(number)]
    traffic = {}
    for device in {value(each, "wrtflow.device") for each in this}:
        first = min(seconds(each["@timestamp"]) for each in looked if value(each, "wrtflow.device") == device)
        past = [number for number in range(1, 5) if now - (number + 1) * length >= first]
        sums = [moved(within(number), device) for number in (0, *past)]
        usual = [sum(column) / len(past) for column in zip(*sums[1:], strict=True)] if past else [None] * 3
        traffic[device] = (*sums[0], *usual)
    opened = [each for each in edge if value(each, "network.direction") in ("outbound", "internal")]
    old = {
        name
        for each in opened
        if seconds(each["@timestamp"]) < begin
        for name in (value(each, "wrtflow.device"), mac(each))
    } - {None}
    new = {
        value(each, "wrtflow.device")
        for each in opened
        if seconds(each["@timestamp"]) >= begin
        and not {value(each, "wrtflow.device"), mac(each)} & old
        and not value(each, "wrtflow.device")[0].isdigit()
    }
    outbound = [each for each in this if value(each, "network.direction") == "outbound"]
    earlier = [each for each in before if value(each, "network.direction") == "outbound"]
    return {
        "flows": len(this),
        "outbound": len(outbound),
        "unnamed": sum(value(each, "wrtflow.domain_source") == "none" for each in outbound),
        "timeouts": sum(value(each, "event.action") == "flow-timeout" for each in this),
        "traffic": traffic,
        "new_devices": new,
        "new_countries": first_time(outbound, earlier, new, "destination.geo.country_name"),
        "new_sites": first_time(outbound, earlier, new, "destination.registered_domain"),
    }


def mac(document: Document) -> Any:
    return value(document, "source.mac")


def moved(documents: list[Document], device: str) -> tuple[int, int, int]:
    """Return a device's bytes up, down, and at night."""
    up = down = night = 0
    for each in documents:
        direction = value(each, "network.direction")
        if value(each, "wrtflow.device") != device or direction not in ("outbound", "inbound"):
            continue
        # A flow without a DESTROY has no counters, and one without a NEW no hour.
        out, back = value(each, "source.bytes") or 0, value(each, "destination.bytes") or 0
        up, down = (up + out, down + back) if direction == "outbound" else (up + back, down + out)
        night += (out + back) * (value(each, "wrtflow.hour") in range(6))
    return up, down, night


def first_time(
    here: list[Document], earlier: list[Document], new: set[str], field: str
) -> dict[str, set[str]]:
    """Return by device which values of a field are new to it; without the new devices."""

    def pairs(documents: list[Document]) -> set[tuple[str, str]]:
        return {
            (value(each, "wrtflow.device"), value(each, field)) for each in documents if value(each, field)
        }

    found = defaultdict(set)
    for device, one in pairs(here) - pairs(earlier):
        if device not in new:
            found[device].add(one)
    return dict(found)
