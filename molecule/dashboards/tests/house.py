"""Documents of a house that never was, as the collector writes them: to look at dashboards, and to measure them.

    house.py [--days 365] [--flows 100000] [--seed 1] [--prefix network] | curl --data-binary @- …/_bulk
    house.py --health [--days 7] | …     how the chain was, one minute after the other

The same seed and the same last moment give the same flows. Names, makers and networks are invented; addresses are of
the range for measurements (RFC 2544), which nobody on the internet has.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("Europe/Berlin")
WAN, WAN6 = "198.18.0.2", "fd77:0:0:2::2"


class Device(NamedTuple):
    name: str
    maker: str | None
    #: Flows of a usual day, in proportion to the other devices'.
    busy: float
    #: When it talks: people are awake by day, machines never sleep.
    when: str
    #: What it talks to: kinds of sites, in proportion.
    likes: dict[str, float]


class Site(NamedTuple):
    registered: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    addresses6: tuple[str, ...]
    geo: dict[str, Any]
    network: tuple[int, str] | None


PERSON = {
    "web": 8,
    "ads": 5,
    "social": 4,
    "video": 2,
    "news": 2,
    "shop": 2,
    "photo": 1,
    "mail": 1,
    "update": 0.6,
}
PHONE = PERSON | {"push": 3, "chat": 3}
GADGET_CN = {"gadget": 6, "ntp": 1, "unnamed": 1.2, "dns": 0.6}
GADGET = {"cloud": 5, "ntp": 1.5, "dns": 0.2, "update": 0.3}

DEVICES = [
    Device("anna-phone", None, 9, "person", PHONE),
    Device("anna-laptop", "Laptops Inc.", 8, "work", PERSON | {"work": 8}),
    Device("ben-phone", None, 9, "person", PHONE),
    Device("ben-laptop", "Laptops Inc.", 7, "work", PERSON | {"work": 6, "code": 4}),
    Device("clara-tablet", "Slate Computers", 5, "person", PHONE | {"game": 4, "video": 5}),
    Device("emil-desktop", "Board Works", 7, "person", PERSON | {"game": 8, "chat": 4, "peer": 5}),
    Device("emil-phone", None, 6, "person", PHONE | {"game": 2}),
    Device("guest-phone", None, 1.5, "person", PHONE),
    Device(
        "living-room-tv", "Vision Electric", 5, "evening", {"video": 8, "ads": 4, "telemetry": 3, "ntp": 0.3}
    ),
    Device("bedroom-tv", "Vision Electric", 2, "evening", {"video": 6, "ads": 3, "telemetry": 3}),
    Device("game-console", "Playhouse", 3, "evening", {"game": 8, "video": 2, "update": 1, "telemetry": 1}),
    Device("e-reader", "Slate Computers", 0.4, "evening", {"shop": 3, "update": 1}),
    Device(
        "kitchen-speaker", "Echo Sound", 3, "always", {"cloud": 4, "music": 4, "telemetry": 3, "ntp": 0.5}
    ),
    Device("hall-speaker", "Echo Sound", 2, "always", {"cloud": 4, "music": 2, "telemetry": 3}),
    Device("nas", "Disk Station Co.", 2, "always", {"backup": 3, "update": 1, "ntp": 1, "code": 1}),
    Device("printer", "Inkwell", 0.7, "work", {"telemetry": 2, "ntp": 1, "mail": 0.3}),
    Device("door-camera", "Gadgets Ltd", 4, "always", GADGET_CN),
    Device("garden-camera", "Gadgets Ltd", 3, "always", GADGET_CN),
    Device("robot-vacuum", "Dust Robotics", 1.6, "always", GADGET_CN | {"cloud": 1}),
    Device("baby-monitor", "Night Light", 1.6, "always", GADGET | {"unnamed": 2}),
    Device("thermostat", "Warm Homes", 1.4, "always", GADGET),
    Device("heat-pump", "Warm Homes", 1, "always", GADGET),
    Device("solar-inverter", "Sunny Side", 1.4, "always", GADGET | {"plain": 3, "gadget": 0.6}),
    Device("wallbox", "Volt Street", 0.8, "always", GADGET | {"plain": 1}),
    Device("washing-machine", "White Goods", 0.4, "always", GADGET),
    Device("light-bridge", "Bright Bulbs", 1.2, "always", GADGET),
    Device("weather-station", "Cloud Nine", 0.8, "always", {"plain": 4, "ntp": 1}),
    Device("", "Tiny Modules", 0.5, "always", {"gadget": 2, "unnamed": 2, "dns": 2}),
]

#: Each kind of site: ports and protocols, bytes down and up (median, and how far they spread), seconds.
KINDS: dict[str, tuple[list[tuple[str, int, float]], float, float, float, float]] = {
    "web": ([("tcp", 443, 6), ("udp", 443, 3), ("tcp", 80, 0.5)], 60e3, 6e3, 1.5, 40),
    "ads": ([("tcp", 443, 6), ("udp", 443, 2)], 12e3, 4e3, 1.2, 30),
    "social": ([("udp", 443, 5), ("tcp", 443, 4)], 900e3, 40e3, 1.6, 120),
    "video": ([("udp", 443, 5), ("tcp", 443, 4)], 60e6, 600e3, 1.1, 400),
    "music": ([("tcp", 443, 4), ("tcp", 4070, 1)], 4e6, 60e3, 1.2, 200),
    "news": ([("tcp", 443, 6), ("udp", 443, 1)], 200e3, 9e3, 1.3, 60),
    "shop": ([("tcp", 443, 6)], 150e3, 12e3, 1.3, 60),
    "photo": ([("tcp", 443, 5), ("tcp", 80, 0.4)], 300e3, 3e6, 1.9, 90),
    "mail": ([("tcp", 993, 6), ("tcp", 587, 1), ("tcp", 143, 0.3)], 40e3, 20e3, 1.5, 900),
    "update": ([("tcp", 443, 3), ("tcp", 80, 2)], 3e6, 30e3, 2.0, 60),
    "push": ([("tcp", 5223, 3), ("tcp", 5228, 3)], 8e3, 6e3, 0.8, 3000),
    "chat": ([("tcp", 443, 3), ("udp", 3478, 1), ("tcp", 5222, 0.3)], 90e3, 60e3, 1.7, 600),
    "work": ([("tcp", 443, 6), ("udp", 4500, 0.3)], 500e3, 200e3, 1.8, 600),
    "code": ([("tcp", 443, 5), ("tcp", 22, 1)], 400e3, 40e3, 1.8, 30),
    "game": ([("udp", 3074, 3), ("tcp", 443, 3), ("udp", 27015, 1)], 2e6, 700e3, 1.7, 900),
    "peer": ([("udp", 6881, 2), ("tcp", 51413, 3)], 300e3, 300e3, 2.0, 200),
    "backup": ([("tcp", 443, 4)], 60e3, 40e6, 1.0, 1200),
    "telemetry": ([("tcp", 443, 4), ("tcp", 80, 0.5)], 6e3, 9e3, 0.9, 20),
    "cloud": ([("tcp", 443, 3), ("tcp", 8883, 2)], 12e3, 14e3, 1.0, 600),
    "gadget": ([("tcp", 443, 2), ("tcp", 8883, 2), ("udp", 32100, 2), ("tcp", 1883, 0.6)], 14e3, 60e3, 1.5, 300),
    "plain": ([("tcp", 80, 4), ("tcp", 1883, 1)], 2e3, 5e3, 0.7, 10),
    "ntp": ([("udp", 123, 1)], 76, 76, 0.1, 1),
    "dns": ([("udp", 53, 5), ("tcp", 853, 2)], 260, 90, 0.5, 1),
    "unnamed": ([("udp", 32100, 3), ("tcp", 443, 1), ("tcp", 8000, 1)], 4e3, 9e3, 1.2, 60),
}  # fmt: skip

#: Sites of each kind: invented owners, with the countries that their servers are in.
OWNERS: dict[str, list[tuple[str, str]]] = {
    "ads": [("adlight", "US IE NL"), ("clickpath", "US DE"), ("bannerfly", "IE FR"), ("countly-pixel", "US SG")],
    "social": [("friendbook", "US IE DE"), ("pictogram", "US IE"), ("dancetok", "SG US"), ("chirper", "US")],
    "video": [("streamflix", "DE NL US"), ("tubeview", "DE NL US"), ("mediathek", "DE"), ("sportlive", "GB FR")],
    "music": [("tunecloud", "SE DE"), ("radiohouse", "DE GB")],
    "news": [("tagesblatt", "DE"), ("morningpost", "GB"), ("le-journal", "FR"), ("wetterdienst", "DE AT")],
    "shop": [("bigriver", "IE DE US"), ("auktionshaus", "DE"), ("moebelhaus", "SE DE"), ("bookworm", "US IE")],
    "photo": [("photoprint", "DE CH"), ("albumcloud", "US IE")],
    "mail": [("postfach", "DE"), ("mailhaven", "CH"), ("bigmail", "US IE")],
    "update": [("os-updates", "US DE"), ("appdepot", "US DE NL"), ("linux-mirror", "DE FR NL AT CZ PL")],
    "push": [("pushgate", "US IE"), ("orchard-push", "US DK")],
    "chat": [("greenbubble", "US IE"), ("gamecord", "US NL"), ("videocall", "US DE")],
    "work": [("officecloud", "IE NL DE"), ("vpn-firma", "DE"), ("meetings", "US NL")],
    "code": [("codehub", "US DE"), ("packages", "US NL")],
    "game": [("blockworld", "US SE"), ("playhouse-net", "US JP DE"), ("steamship", "US DE PL"),
             ("krongames", "KR")],
    "backup": [("coldstore", "FR FI"), ("vaultbox", "CA")],
    "telemetry": [("vision-metrics", "KR US"), ("tv-insights", "US IN"),
                  ("echosound", "US IE"), ("inkwell-care", "JP US")],
    "cloud": [("warmhomes", "DE IE"), ("sunnyside-portal", "DE AT"), ("thinghub", "US KR"), ("brightbulbs", "NL"),
              ("whitegoods-connect", "DE TR"), ("nightlight-cloud", "US HK"), ("voltstreet", "NO NL")],
    "gadget": [("gadget", "CN"), ("tingly-iot", "CN SG"), ("camviewer", "CN HK"), ("dustrobotics", "CN DE")],
    "plain": [("weathernine", "CZ US"), ("inverter-log", "CN"), ("meterdata", "IT")],
    "ntp": [("ntp-pool", "DE FR NL CH SE FI PL"), ("timekeeper", "US")],
}  # fmt: skip

#: Code, name, continent, cities (name, latitude, longitude); the first ones have most of the internet's servers.
COUNTRIES = {
    "US": ("United States", "NA", [("Ashburn", 39.0, -77.5), ("San Jose", 37.3, -121.9), ("Dallas", 32.8, -96.8)]),
    "DE": ("Germany", "EU", [("Frankfurt am Main", 50.1, 8.7), ("Nuremberg", 49.5, 11.1), ("Berlin", 52.5, 13.4)]),
    "NL": ("The Netherlands", "EU", [("Amsterdam", 52.4, 4.9)]), "IE": ("Ireland", "EU", [("Dublin", 53.3, -6.3)]),
    "GB": ("United Kingdom", "EU", [("London", 51.5, -0.1), ("Manchester", 53.5, -2.2)]),
    "FR": ("France", "EU", [("Paris", 48.9, 2.4), ("Roubaix", 50.7, 3.2)]),
    "SE": ("Sweden", "EU", [("Stockholm", 59.3, 18.1)]),
    "CN": ("China", "AS", [("Shenzhen", 22.5, 114.1), ("Hangzhou", 30.3, 120.2), ("Beijing", 39.9, 116.4)]),
    "SG": ("Singapore", "AS", [("Singapore", 1.3, 103.8)]), "JP": ("Japan", "AS", [("Tokyo", 35.7, 139.7)]),
    "KR": ("South Korea", "AS", [("Seoul", 37.6, 127.0)]), "HK": ("Hong Kong", "AS", [("Hong Kong", 22.3, 114.2)]),
    "IN": ("India", "AS", [("Mumbai", 19.1, 72.9)]), "CH": ("Switzerland", "EU", [("Zurich", 47.4, 8.5)]),
    "AT": ("Austria", "EU", [("Vienna", 48.2, 16.4)]), "CZ": ("Czechia", "EU", [("Prague", 50.1, 14.4)]),
    "PL": ("Poland", "EU", [("Warsaw", 52.2, 21.0)]), "FI": ("Finland", "EU", [("Helsinki", 60.2, 24.9)]),
    "NO": ("Norway", "EU", [("Oslo", 59.9, 10.8)]), "DK": ("Denmark", "EU", [("Copenhagen", 55.7, 12.6)]),
    "IT": ("Italy", "EU", [("Milan", 45.5, 9.2)]), "ES": ("Spain", "EU", [("Madrid", 40.4, -3.7)]),
    "CA": ("Canada", "NA", [("Montreal", 45.5, -73.6)]), "AU": ("Australia", "OC", [("Sydney", -33.9, 151.2)]),
    "BR": ("Brazil", "SA", []), "RU": ("Russia", "EU", [("Moscow", 55.8, 37.6)]),
    "TR": ("Türkiye", "AS", [("Istanbul", 41.0, 29.0)]),
    "HU": ("Hungary", "EU", [("Budapest", 47.5, 19.0)]), "RO": ("Romania", "EU", [("Bucharest", 44.4, 26.1)]),
    "UA": ("Ukraine", "EU", [("Kyiv", 50.5, 30.5)]), "PT": ("Portugal", "EU", [("Lisbon", 38.7, -9.1)]),
    "BE": ("Belgium", "EU", [("Brussels", 50.8, 4.4)]), "ZA": ("South Africa", "AF", [("Johannesburg", -26.2, 28.0)]),
    "VN": ("Vietnam", "AS", [("Hanoi", 21.0, 105.8)]), "TW": ("Taiwan", "AS", [("Taipei", 25.0, 121.6)]),
    "MX": ("Mexico", "NA", [("Mexico City", 19.4, -99.1)]), "AR": ("Argentina", "SA", [("Buenos Aires", -34.6, -58.4)]),
    "EG": ("Egypt", "AF", [("Cairo", 30.0, 31.2)]), "IL": ("Israel", "AS", [("Tel Aviv", 32.1, 34.8)]),
    "NZ": ("New Zealand", "OC", [("Auckland", -36.8, 174.8)]), "CL": ("Chile", "SA", [("Santiago", -33.4, -70.7)]),
}  # fmt: skip

#: In place of a city that the databases do not know.
NOWHERE = ("", 0.0, 0.0)

#: Who knocks from outside, and how often.
STRANGERS = {
    "CN": 5,
    "RU": 4,
    "US": 5,
    "NL": 3,
    "BR": 2,
    "VN": 2,
    "IN": 2,
    "UA": 1,
    "RO": 1,
    "HK": 1,
    "TW": 1,
    "AR": 0.5,
}
SCANNED = [
    22,
    23,
    80,
    443,
    445,
    3389,
    8080,
    5060,
    5555,
    8443,
    6379,
    2323,
    81,
    7547,
    37215,
    25,
    21,
    5900,
    1433,
    9200,
]
WORDS = [
    "amber", "arbor", "atlas", "birch", "bloom", "brook", "cedar", "cloud", "coral", "craft", "delta",
    "ember", "fable", "field", "flint", "forge", "gable", "grove", "harbor", "hazel", "inlet", "ivory",
    "jasper", "kestrel", "lark", "linden", "maple", "meadow", "mosaic", "north", "oak", "ocean",
    "olive", "orbit", "otter", "pearl", "pine", "pixel", "quill", "raven", "ridge", "river", "robin",
    "sable", "sage", "shore", "slate", "solar", "spruce", "stone", "summit", "tidal", "umber", "vale",
    "velvet", "willow", "winter", "zephyr",
]  # fmt: skip

#: Of a day's hours, how much each kind of device talks.
HOURS = {
    "always": [1.0] * 24,
    "person": [0.5, 0.2, 0.1, 0.1, 0.1, 0.3, 1, 3, 2.5, 2, 2, 2, 3, 2.5, 2.5, 3, 4, 5, 6, 7, 8, 7, 4, 1.5],
    "work": [0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.5, 2, 7, 8, 8, 7, 4, 7, 8, 7, 5, 3, 2, 2, 3, 3, 1, 0.3],
    "evening": [0.6, 0.2, 0.1, 0.1, 0.1, 0.1, 0.4, 1, 0.6, 0.5, 0.5, 0.6, 1, 1, 1, 2, 3, 4, 6, 8, 9, 9, 6, 2],
}
_SUMS = {when: list(accumulate(hours)) for when, hours in HOURS.items()}


class House:
    """Its devices, and the sites that they may meet."""

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self._addresses = 0
        self._geo = {
            code: [self._places(code, *country[:2], city) for city in country[2] or [NOWHERE]]
            for code, country in COUNTRIES.items()
        }
        self._networks = {code: self._systems(code) for code in COUNTRIES}
        self.sites = {
            kind: [self._site(f"{owner}.example", places.split()) for owner, places in owners]
            for kind, owners in OWNERS.items()
        }
        self.sites["web"] = [self._site(name, self._somewhere()) for name in self._names(2400)]
        self.sites["dns"] = [self._site("", ["US"], addresses=2), self._site("", ["CN"], addresses=1)]
        self.sites["unnamed"] = [
            self._site("", [code]) for code in ("CN", "CN", "CN", "HK", "SG", "US", "DE", "VN")
        ]
        self.sites["peer"] = [
            self._site("", [self.random.choice([*COUNTRIES])], addresses=1) for _ in range(300)
        ]
        self._often = {
            kind: list(accumulate(1 / (1 + rank) ** 0.9 for rank in range(len(sites))))
            for kind, sites in self.sites.items()
        }
        self._busy = list(accumulate(device.busy for device in DEVICES))
        self._met: set[tuple[str, str | int]] = set()

    # What there is.

    @staticmethod
    def _places(code: str, name: str, continent: str, city: tuple[str, float, float]) -> dict[str, Any]:
        geo: dict[str, Any] = {"continent_code": continent, "country_iso_code": code, "country_name": name}
        if city != NOWHERE:
            geo |= {"city_name": city[0], "location": {"lat": city[1], "lon": city[2]}}
        return geo

    def _systems(self, code: str) -> list[tuple[int, str]]:
        number = 64512 + 20 * [*COUNTRIES].index(code)
        words = self.random.sample(WORDS, 8)
        owners = [f"{COUNTRIES[code][0].removeprefix('The ')} Telecom", f"{words[0].title()} Edge Network"]
        owners += [
            f"{word.title()} {what}" for word in words[1:] for what in (f"Hosting {code}", f"Fibre {code}")
        ]
        return [(number + one, owner) for one, owner in enumerate(owners)]

    def _somewhere(self) -> list[str]:
        """The countries of a site that has no more to tell: most are near."""
        codes = [*COUNTRIES]
        near = [20 / (1 + rank) for rank in range(len(codes))]
        return self.random.choices(codes, near, k=self.random.choice([1, 1, 1, 2]))

    def _names(self, number: int) -> list[str]:
        pairs = [f"{first}{second}.example" for first in WORDS for second in WORDS if first != second]
        return self.random.sample(pairs, number)

    def _site(self, registered: str, places: list[str], addresses: int = 0) -> Site:
        code = self.random.choice(places[:1] * 2 + places)
        number = addresses or self.random.choice([1, 1, 2, 3, 4])
        self._addresses += number
        first = self._addresses - number
        four = tuple(f"198.19.{(first + one) // 250}.{(first + one) % 250 + 1}" for one in range(number))
        six = (
            tuple(f"fd77:0:0:2:7::{first + one:x}" for one in range(number))
            if self.random.random() < 0.45
            else ()
        )
        prefixes = self.random.sample(
            ["www", "api", "cdn", "static", "edge-1", "img", "eu", "login"], self.random.choice([1, 2, 3])
        )
        names = tuple(f"{prefix}.{registered}" for prefix in prefixes) if registered else ()
        known = self.random.random() < 0.97
        network = self.random.choice(self._networks[code]) if known else None
        return Site(registered, names, four, six, self.random.choice(self._geo[code]), network)

    # What happens.

    def flows(self, last: int, days: int, number: int) -> Iterator[dict[str, Any]]:
        """Yield about this many flows of the days before last (ms since 1970), in their order."""
        today = datetime.fromtimestamp(last / 1000, ZONE).replace(hour=0, minute=0, second=0, microsecond=0)
        for day in range(days, -1, -1):
            midnight = round((today.timestamp() - day * 86_400) * 1000)
            weekend = datetime.fromtimestamp(midnight / 1000, ZONE).isoweekday() > 5
            usual = number / days * (1.15 if weekend else 0.94)
            several = [
                self.one(midnight, weekend) for _ in range(round(usual * self.random.uniform(0.9, 1.1)))
            ]
            several += self.scan(midnight) if self.random.random() < 0.3 else []
            for flow in sorted(several, key=lambda flow: flow["@timestamp"]):
                if not last - days * 86_400_000 <= flow["@timestamp"] < last:
                    continue
                yield self._finished(flow)

    def one(self, midnight: int, weekend: bool) -> dict[str, Any]:
        """Return a flow of some device on that day."""
        chance = self.random.random()
        if chance < 0.035:
            return self.inbound(midnight)
        number = self.random.choices(range(len(DEVICES)), cum_weights=self._busy)[0]
        device = DEVICES[number]
        when = "person" if weekend and device.when == "work" else device.when
        hour = self.random.choices(range(24), cum_weights=_SUMS[when])[0]
        start = midnight + round((hour + self.random.random()) * 3_600_000)
        if chance < 0.075:
            return self.internal(number, start)
        kind = self.random.choices([*device.likes], [*device.likes.values()])[0]
        site = self.random.choices(self.sites[kind], cum_weights=self._often[kind])[0]
        return self.outbound(number, site, kind, start)

    def outbound(self, number: int, site: Site, kind: str, start: int) -> dict[str, Any]:
        ports, down, up, spread, seconds = KINDS[kind]
        transport, port, _ = self.random.choices(ports, [one[2] for one in ports])[0]
        six = bool(site.addresses6) and number < 16 and self.random.random() < 0.7
        source = self._end(number, six)
        if not six and self.random.random() < 0.97:
            source["nat"] = {"ip": WAN}
        destination: dict[str, Any] = {
            "ip": self.random.choice(site.addresses6 if six else site.addresses),
            "port": port,
        }
        named = "none"
        if site.names:
            named = self.random.choices(["dns", "ptr", "ptr_unconfirmed", "none"], [90, 5, 2, 3])[0]
        if named != "none":
            destination |= {"domain": self.random.choice(site.names), "registered_domain": site.registered}
        self._placed(destination, site)
        sizes = self._bytes(up, spread), self._bytes(down, spread)
        flow = self._flow(
            start, self._bytes(seconds * 1000, 1.0), transport, six, "outbound", source, destination, sizes
        )
        flow["wrtflow"] |= {"device": DEVICES[number].name or source["mac"], "domain_source": named}
        flow["device"] = {"manufacturer": DEVICES[number].maker or "private MAC address"}
        return flow

    def internal(self, number: int, start: int) -> dict[str, Any]:
        other, port, size = self.random.choice(
            [(14, 445, 5e6), (14, 2049, 9e6), (15, 9100, 2e5), (8, 8009, 3e4), (16, 554, 4e6)]
        )
        source, destination = self._end(number, False), self._end(other, False)
        destination.pop("mac")
        destination["port"] = port
        flow = self._flow(
            start,
            self._bytes(20_000, 1),
            "tcp",
            False,
            "internal",
            source,
            destination,
            (self._bytes(size / 4, 1.5), self._bytes(size, 1.5)),
        )
        flow["wrtflow"] |= {"device": DEVICES[number].name or source["mac"], "domain_source": "none"}
        flow["device"] = {"manufacturer": DEVICES[number].maker or "private MAC address"}
        return flow

    def inbound(self, midnight: int) -> dict[str, Any]:
        """Return a flow from outside: to a forwarded port, a ping, or a scan of a port."""
        start = midnight + round(self.random.random() * 86_400_000)
        chance = self.random.random()
        if chance < 0.4:
            code, number, port = self.random.choice(["DE", "DE", "DE", "AT", "FR"]), 14, 5001
        elif chance < 0.5:
            code, number, port = self.random.choice(["US", "SE", "KR"]), 10, 3074
        else:
            return self._knock(start, *self._stranger(), self.random.choice(SCANNED[:8]))
        source = {"ip": self._anywhere(), "port": self.random.randint(20_000, 60_000)}
        self._placed(
            source, Site("", (), (), (), self.random.choice(self._geo[code]), self._networks[code][1])
        )
        home = self._end(number, False)
        destination = {"ip": WAN, "port": port, "domain": DEVICES[number].name, "nat": {"ip": home["ip"]}}
        answered = self.random.random() < 0.85
        sizes = self._bytes(40_000, 1.5), self._bytes(2e6, 1.7) if answered else 0
        flow = self._flow(
            start,
            self._bytes(60_000, 1),
            "udp" if port == 3074 else "tcp",
            False,
            "inbound",
            source,
            destination,
            sizes,
        )
        flow["wrtflow"] |= {"device": DEVICES[number].name, "domain_source": "none"}
        flow["device"] = {"manufacturer": DEVICES[number].maker}
        return flow

    def scan(self, midnight: int) -> list[dict[str, Any]]:
        """Return the flows of a host that scans many ports within a few minutes."""
        start = midnight + round(self.random.random() * 80_000_000)
        stranger = self._stranger()
        ports = self.random.sample(range(1, 10_000), 30) + SCANNED
        return [self._knock(start + 4000 * one, *stranger, port) for one, port in enumerate(ports)]

    def _stranger(self) -> tuple[Site, str]:
        code = self.random.choices([*STRANGERS], [*STRANGERS.values()])[0]
        site = Site(
            "", (), (), (), self.random.choice(self._geo[code]), self.random.choice(self._networks[code])
        )
        return site, self._anywhere()

    def _anywhere(self) -> str:
        return f"198.18.{self.random.randint(100, 250)}.{self.random.randint(1, 250)}"

    def _knock(self, start: int, site: Site, ip: str, port: int) -> dict[str, Any]:
        ping = self.random.random() < 0.1
        source: dict[str, Any] = {"ip": ip}
        destination: dict[str, Any] = {"ip": WAN}
        if not ping:
            source["port"] = self.random.randint(20_000, 60_000)
            destination["port"] = port
        self._placed(source, site)
        if self.random.random() < 0.3:
            source["domain"] = (
                f"host-{ip.replace('.', '-')}.{site.geo['country_iso_code'].lower()}-dialin.example"
            )
        flow = self._flow(
            start,
            30_000,
            "icmp" if ping else "tcp",
            False,
            "inbound",
            source,
            destination,
            (84, 84) if ping else (60, 0),
        )
        flow["wrtflow"] |= {"device": WAN, "domain_source": "ptr" if "domain" in source else "none"}
        return flow

    def health(self, last: int, days: int) -> Iterator[dict[str, Any]]:
        """Yield the health documents of the days before last: a router, an access point, and the collector.

        Every third day Elasticsearch is away for forty minutes, and every fourth the access point for twenty.
        """
        waiting = 0
        for at in range(last - days * 86_400_000, last, 60_000):
            minute = at // 60_000
            when = {"@timestamp": _stamp(at), "ecs": {"version": "8.17.0"}, "host": {"hostname": "logserver"}}
            busy = HOURS["person"][datetime.fromtimestamp(at / 1000, ZONE).hour] + 2
            away = minute % 4320 < 40
            silent = max(0, minute % 5760 - 400) if minute % 5760 < 420 else 0
            delay = 2_400_000 if minute % 4320 == 40 else round(1100 * self.random.uniform(0.6, 1.4))
            made = 0
            for host, ip, share in (("router", "10.77.0.1", 6.0), ("attic", "10.77.0.2", 1.2)):
                quiet = silent and host == "attic"
                flows = 0 if quiet else round(busy * share * self.random.uniform(0.8, 1.2))
                made += flows
                yield when | {
                    "event": {"kind": "metric", "dataset": "wrtflow.router", "duration": 60_000_000_000},
                    "observer": {"hostname": host, "ip": ip},
                    "wrtflow": {
                        "lines": 0 if quiet else 3 * flows + 20, "silence": silent * 60 if quiet else 1,
                        "starts": flows, "ends": flows, "flows": flows,
                        "without_start": int(self.random.random() < 0.03),
                        "without_end": int(self.random.random() < 0.02),
                        "kernel": {"starts": flows, "overruns": 0},
                    },
                }  # fmt: skip
            waiting = waiting + made if away else max(0, waiting - 2000)
            names = {
                name: round(made * share)
                for name, share in (("dns", 0.86), ("ptr", 0.05), ("ptr_unconfirmed", 0.02))
            }
            faults = [f"Elasticsearch does not answer; {waiting} flows wait"] if away else []
            faults += ["attic has been silent for 10 minutes"] if silent > 10 else []
            strange = self.random.random()
            yield when | {
                "event": {"kind": "metric", "dataset": "wrtflow.collector", "duration": 60_000_000_000},
                "wrtflow": {
                    "open": round(busy * 30), "waiting": waiting, "indexed": 0 if away else made, "duplicates": 0,
                    "refused": int(strange < 0.0005), "dropped": 0, "failed_requests": 12 if away else 0,
                    **({} if away else {"delay": delay}),
                    "unparsed": int(strange > 0.998), "strangers": 0, "database_age": round(at / 86_400_000 % 7 + 1, 2),
                    "sites": names | {"none": made - sum(names.values())}, "faults": len(faults),
                },
                **({"error": {"message": faults}} if faults else {}),
            }  # fmt: skip

    def _end(self, number: int, six: bool) -> dict[str, Any]:
        device = DEVICES[number]
        mac = f"{'5A' if device.maker is None else '00'}-00-5E-00-53-{number + 16:02X}"
        end = {"ip": f"fd77:0:0:1::{number + 16:x}" if six else f"10.77.0.{number + 20}", "mac": mac}
        return end | {"domain": device.name} if device.name else end

    def _placed(self, end: dict[str, Any], site: Site) -> None:
        end["geo"] = site.geo
        if site.network:
            end["as"] = {"number": site.network[0], "organization": {"name": site.network[1]}}

    def _bytes(self, middle: float, spread: float) -> int:
        return round(middle * math.exp(self.random.gauss(0, spread))) + 1

    def _flow(
        self, start: int, lasts: int, transport: str, six: bool, direction: str, source: dict[str, Any],
        destination: dict[str, Any], sizes: tuple[int, int],
    ) -> dict[str, Any]:  # fmt: skip
        lasts = min(lasts, 40_000_000)
        source.setdefault("port", self.random.randint(30_000, 60_000))
        if transport == "icmp":
            source.pop("port")
        source |= {"bytes": sizes[0], "packets": 1 + sizes[0] // 900}
        destination |= {"bytes": sizes[1], "packets": sizes[1] and 1 + sizes[1] // 1300}
        number = {"tcp": "6", "udp": "17", "icmp": "1"}[transport]
        local = datetime.fromtimestamp(start / 1000, ZONE)
        return {
            # Times are milliseconds until _finished() writes them.
            "@timestamp": start + lasts,
            "ecs": {"version": "8.17.0"},
            "event": {
                "kind": "event", "category": ["network"], "type": ["connection", "end"], "action": "flow-end",
                "start": start, "duration": lasts * 1_000_000,
            },
            "observer": {"hostname": "router", "type": "router"},
            "network": {
                "transport": transport, "iana_number": number, "type": "ipv6" if six else "ipv4",
                "bytes": sum(sizes), "packets": source["packets"] + destination["packets"], "direction": direction,
            },
            "source": source,
            "destination": destination,
            "wrtflow": {"hour": local.hour, "weekday": local.isoweekday()},
        }  # fmt: skip

    def _finished(self, flow: dict[str, Any]) -> dict[str, Any]:
        """Complete a flow with what depends on earlier ones: the first contact, and who saw it."""
        event = flow["event"]
        flow["@timestamp"] = _stamp(flow["@timestamp"])
        event["start"] = _stamp(event["start"])
        if flow["network"]["direction"] == "outbound":
            device, destination = flow["wrtflow"]["device"], flow["destination"]
            there = {destination["geo"]["country_iso_code"], destination.get("as", {}).get("number")} - {None}
            contacts = {(device, place) for place in there}
            if self.random.random() < 0.06 and "phone" in device:
                flow["observer"] = {"hostname": "attic", "type": "access_point"}
            elif contacts - self._met:
                flow["wrtflow"]["first_seen"] = True
                self._met |= contacts
        if self.random.random() < 0.004:
            event["action"] = "flow-timeout"
            for end in (flow["network"], flow["source"], flow["destination"]):
                end.pop("bytes"), end.pop("packets")
        return flow


def _stamp(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{rest:03}Z", time.gmtime(seconds))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--flows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--health", action="store_true")
    parser.add_argument("--prefix", default="network")
    options = parser.parse_args()
    last = round(datetime.now(UTC).timestamp() * 1000)
    house = House(options.seed)
    told = (
        house.health(last, options.days) if options.health else house.flows(last, options.days, options.flows)
    )
    prefix = "wrtflow-health" if options.health else options.prefix
    for number, one in enumerate(told):
        index = f"{prefix}-{one['@timestamp'][:7].replace('-', '.')}"
        sys.stdout.write(json.dumps({"create": {"_index": index, "_id": f"{options.seed}-{number}"}}) + "\n")
        sys.stdout.write(json.dumps(one) + "\n")


if __name__ == "__main__":
    main()
