#!/usr/bin/env python3
"""Measures what a flow costs in Elasticsearch, beside the article's documents, and how long a year's overview takes.

`make bench PARTS="disk year"` installs Elasticsearch with the role in a container and runs this beside it. Both kinds
of documents are of the same flows and go into the same server: the ratios count, the figures are this machine's.
Usage: storage.py URL SECRETS PART...
"""

from __future__ import annotations

import base64
import calendar
import datetime
import http.client
import itertools
import json
import os
import random
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT / "molecule/dashboards/tests"))
import panels  # noqa: E402

FLOWS, BATCH, THREADS = 200_000, 2000, 2
# Bulks of a layer of the part year.
BODIES = 50

# What is claimed: our share of the article's bytes, and how many times its rate.
DISK, RATE = 0.27, 2.0

# Flows of a year in a busy house; seconds for which the part year writes.
YEAR, SECONDS = 36_000_000, int(os.environ.get("BENCH_SECONDS", "240"))

COUNTRIES = 60


# The flows.


class Site:
    """A server of the internet, the more often used the lower its number."""

    def __init__(self, number: int) -> None:
        """Make up where it is and what it is called."""
        chance = random.Random(number)
        self.number = number
        country = min(int(chance.expovariate(0.12)), COUNTRIES - 1)
        self.ip = f"{chance.randint(11, 90)}.{chance.randint(0, 255)}.{chance.randint(0, 255)}.{chance.randint(1, 254)}"
        self.registered = f"site-{number % 900}.example"
        self.name = f"{chance.choice(['www', 'api', 'cdn', 'img', 'eu-west'])}{number % 7}.{self.registered}"
        self.port = chance.choice([443] * 17 + [80, 123, 5222])
        self.code, self.country = f"{chr(65 + country % 26)}{chr(65 + country // 26)}", f"Country {country}"
        city = chance.randint(0, 4)
        self.city, part = f"City {country}-{city}", city % 3
        self.region, self.region_code = f"Region {country}-{part}", f"{self.code}-{part}"
        # The databases know a server's city, not where in it.
        self.place = country * 10 + city
        where = random.Random(self.place)
        self.lat, self.lon = round(where.uniform(-60, 70), 4), round(where.uniform(-180, 180), 4)
        self.network, self.owner = 1000 + number % 400, f"Network Operator {number % 400} GmbH"


SITES = [Site(number) for number in range(3000)]
DEVICES = [f"device-{number}" for number in range(30)]
# Zipf: the n-th is used 1/n times as often as the first.
SITES_BY_USE, DEVICES_BY_USE = (
    list(itertools.accumulate(1 / rank for rank in range(1, len(things) + 1))) for things in (SITES, DEVICES)
)
MAKERS = ["Apple, Inc.", "Espressif Inc.", "Samsung Electronics Co.,Ltd", "private MAC address", "AVM GmbH"]


class Flow:
    """One flow, to be written as either kind of document."""

    def __init__(self, number: int, chance: random.Random, end: int) -> None:
        """end: ms since 1970."""
        self.number, self.end = number, end
        (self.device,) = chance.choices(range(len(DEVICES)), cum_weights=DEVICES_BY_USE)
        (self.site,) = chance.choices(SITES, cum_weights=SITES_BY_USE)
        self.start = end - int(chance.lognormvariate(9.5, 1.8))
        self.port = chance.randint(32768, 60999)
        self.up, self.down = int(chance.lognormvariate(7.5, 1.6)), int(chance.lognormvariate(8.5, 2.2))
        self.packets_up, self.packets_down = self.up // 700 + 3, self.down // 1100 + 3
        self.udp = chance.random() < 0.35

    def ours(self) -> dict[str, Any]:
        """Return it as the collector writes it."""
        site, start = self.site, datetime.datetime.fromtimestamp(self.start / 1000, datetime.UTC)
        name = DEVICES[self.device]
        return {
            "ecs": {"version": "8.17.0"},
            "observer": {"hostname": "OpenWrt", "type": "router"},
            "event": {
                "kind": "event", "category": ["network"], "type": ["connection", "end"], "action": "flow-end",
                "start": iso(self.start), "duration": (self.end - self.start) * 1_000_000,
            },
            "@timestamp": iso(self.end),
            "device": {"manufacturer": MAKERS[self.device % len(MAKERS)]},
            "wrtflow": {
                "domain_source": "dns", "device": name, "hour": start.hour, "weekday": start.isoweekday(),
            },
            "source": {
                "ip": f"192.168.1.{20 + self.device}", "mac": f"00-00-5E-00-53-{self.device:02X}", "domain": name,
                "nat": {"ip": "198.51.100.7"}, "port": self.port, "bytes": self.up, "packets": self.packets_up,
            },
            "network": {
                "type": "ipv4", "direction": "outbound", "transport": "udp" if self.udp else "tcp",
                "iana_number": "17" if self.udp else "6", "bytes": self.up + self.down,
                "packets": self.packets_up + self.packets_down,
            },
            "destination": {
                "ip": site.ip, "port": site.port, "domain": site.name, "registered_domain": site.registered,
                "geo": {
                    "continent_code": "EU", "country_iso_code": site.code, "country_name": site.country,
                    "region_name": site.region, "region_iso_code": site.region_code, "city_name": site.city,
                    "location": {"lat": site.lat, "lon": site.lon},
                },
                "as": {"number": site.network, "organization": {"name": site.owner}},
                "bytes": self.down, "packets": self.packets_down,
            },
        }  # fmt: skip

    def article(self) -> dict[str, Any]:
        """Return it as the document that the article prints, with all that geoip2() says of a place."""
        site, client, name = self.site, f"192.168.1.{20 + self.device}", DEVICES[self.device]
        protocol, length = "UDP" if self.udp else "TCP", (self.end - self.start) // 1000
        country = {
            "geoname_id": str(700_000 + site.place // 10),
            "iso_code": site.code,
            "names": {"en": site.country},
        }
        end = iso(self.end, 1000)
        return {
            "nf_reply": {
                "SRC": site.ip, "SPT": str(site.port), "PROTO": protocol, "PKTS": str(self.packets_down),
                "DST": "198.51.100.7", "DPT": str(self.port), "BYTES": str(self.down),
            },
            "nf_orig": {
                "SRC": client, "SPT": str(self.port), "PROTO": protocol, "PKTS": str(self.packets_up),
                "DST": site.ip, "DPT": str(site.port), "BYTES": str(self.up),
            },
            "nf": {
                "SESSION_START": iso(self.start, 1000), "SESSION_LENGTH": str(length), "SESSION_END": end,
            },
            "hostname": {"server": site.name, "client": name},
            "geoip2": {
                "subdivisions": {"0": {"names": {"en": site.region}, "iso_code": site.region_code}},
                "registered_country": country,
                "location2": f"{site.lat:.6f},{site.lon:.6f}",
                "location": {"longitude": f"{site.lon:.6f}", "latitude": f"{site.lat:.6f}", "accuracy_radius": "20"},
                "country": {**country, "is_in_european_union": "true"},
                "continent": {"names": {"en": "Europe"}, "code": "EU", "geoname_id": "6255148"},
                "city": {"names": {"en": site.city}, "geoname_id": str(3_000_000 + site.place)},
            },
            "PROGRAM": "ulogd", "PRIORITY": "info", "PID": "1868",
            "MESSAGE": f"Session completed; client='{client}'; server='{site.ip}'; destination_port='{site.port}';"
            f" protocol='{protocol}'; session_lenght='{length}'\n",
            "HOST": "openwrt", "FACILITY": "local2", "ISODATE": end,
            "DATE": time.strftime("%b %d %H:%M:%S", time.gmtime(self.end / 1000)),
        }  # fmt: skip


def ident(number: int) -> str:
    """Return the id of a flow's document. The collector numbers flows as they start, from a number made of the time."""
    return base64.urlsafe_b64encode((1_790_000_000_000 * 128 + number).to_bytes(6, "big")).decode()


def iso(milliseconds: int, unit: int = 1) -> str:
    """Return ms since 1970 as ISO 8601, to the unit (ms)."""
    moment = datetime.datetime.fromtimestamp(milliseconds // unit * unit / 1000, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + ("Z" if unit > 1 else f".{milliseconds % 1000:03}Z")


def flows(count: int, begin: int, end: int) -> Iterator[Flow]:
    """Make so many flows that end within a time (ms since 1970), in its order; the same each time."""
    chance = random.Random(begin)
    for number in range(count):
        yield Flow(number, chance, begin + (end - begin) * number // count)


# The server.


class Server:
    """Elasticsearch, asked as its superuser; each thread has a connection of its own."""

    def __init__(self, url: str, secrets: Path) -> None:
        """Take where it is, and the folder with its password and authority."""
        self._url, self._local = urlsplit(url), threading.local()
        self._tls = ssl.create_default_context(cafile=str(secrets / "elasticsearch-ca.crt"))
        pair = f"elastic:{(secrets / 'elastic.password').read_text().strip()}"
        self._headers = {
            "Authorization": "Basic " + base64.b64encode(pair.encode()).decode(),
            "Content-Type": "application/json",
        }

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the parsed answer; end the program at a refusal."""
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPSConnection(
                self._url.hostname or "", self._url.port, context=self._tls, timeout=600
            )
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        self._local.connection.request(method, path, data, self._headers)
        answer = self._local.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {text[:500].decode()}")
        return json.loads(text) if text else {}

    def fill(self, batches: list[bytes]) -> float:
        """Send bulks, two at a time; return the seconds that it took."""
        rest, lock = iter(batches), threading.Lock()
        refused: list[str] = []

        def send() -> None:
            while True:
                with lock:
                    batch = next(rest, None)
                if batch is None:
                    return
                answer = self.ask("POST", "/_bulk?filter_path=errors,items.*.error", batch)
                if answer["errors"]:
                    refused.append(json.dumps(answer)[:500])

        threads = [threading.Thread(target=send) for _ in range(THREADS)]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - begin
        if refused:
            sys.exit(f"documents are refused: {refused[0]}")
        return took

    def merged(self, index: str) -> int:
        """Merge an index into one segment a shard; return the segments' bytes."""
        self.ask("POST", f"/{index}/_forcemerge?max_num_segments=1")
        self.ask("POST", f"/{index}/_flush")
        self.ask("POST", f"/{index}/_refresh")
        # Not the statistics of the store: they are ten seconds old, and count files that are about to go.
        found = self.ask("GET", f"/{index}/_segments")["indices"].values()
        copies = [copy for about in found for shard in about["shards"].values() for copy in shard]
        return sum(
            segment["size_in_bytes"]
            for copy in copies
            if copy["routing"]["primary"]
            for segment in copy["segments"].values()
            if segment["search"]
        )


def batched(lines: Iterator[bytes]) -> list[bytes]:
    """Return bulk bodies of action and document lines."""
    return [b"".join(chunk) for chunk in iter(lambda: list(itertools.islice(lines, BATCH)), [])]


def row(first: str, *cells: str) -> None:
    """Print a row of the table."""
    print(f"{first:<44}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


# The parts.


def disk(server: Server) -> list[str]:
    """Bytes and rate of 200,000 flows, in documents like the article's with dynamic mapping, and in ours."""
    begin = calendar.timegm((2026, 11, 2, 0, 0, 0)) * 1000
    made = list(flows(FLOWS, begin, begin + 2 * 86_400_000))
    ours_index, article_index = "network-2026.11", "article-2026.11"

    by_start = sorted(made, key=lambda flow: flow.start)
    ids = {flow.number: ident(number) for number, flow in enumerate(by_start)}

    def ours() -> Iterator[bytes]:
        for flow in made:
            action = {"create": {"_index": ours_index, "_id": ids[flow.number]}}
            yield f"{json.dumps(action)}\n{json.dumps(flow.ours(), separators=(',', ':'))}\n".encode()

    def article() -> Iterator[bytes]:
        action = json.dumps({"index": {"_index": article_index}})
        for flow in made:
            yield f"{action}\n{json.dumps(flow.article(), separators=(',', ':'))}\n".encode()

    bodies = {article_index: batched(article()), ours_index: batched(ours())}
    took: dict[str, float] = {}
    # In turn, and the best of each counts: a machine that is busy makes none faster.
    for index in (article_index, ours_index) * 3:
        server.ask("DELETE", f"/{index}?ignore_unavailable=true")
        took[index] = min(took.get(index, 1e9), server.fill(bodies[index]))
    size = {index: server.merged(index) / FLOWS for index in bodies}
    row(f"{FLOWS:,} flows, one segment", "bytes a flow", "flows/s", "of article")
    for name, index in (("article", article_index), ("wrtflow", ours_index)):
        share = f"{size[index] / size[article_index]:.3f}"
        row(f"  {name}", f"{size[index]:.1f}", f"{FLOWS / took[index]:,.0f}", share)
    rate = took[article_index] / took[ours_index]
    row("  rate, times the article's", "", f"{rate:.2f}")
    usage = server.ask("POST", f"/{ours_index}/_disk_usage?run_expensive_tasks=true")[ours_index]["fields"]
    fields = sorted(((about["total_in_bytes"], name) for name, about in usage.items()), reverse=True)
    row("  ours by field", "bytes a flow")
    for total, name in fields[:14]:
        row(f"    {name}", f"{total / FLOWS:.1f}")
    server.ask("DELETE", f"/{ours_index},{article_index}")
    share = size[ours_index] / size[article_index]
    untrue = [] if share <= DISK else [f"a flow takes {share:.3f} of the article's bytes, more than {DISK}"]
    return untrue + ([] if rate >= RATE else [f"{rate:.2f} times the article's rate, less than {RATE}"])


SPANS = {"day": (86_400, "30m"), "month": (30 * 86_400, "12h"), "year": (365 * 86_400, "7d")}


def year(server: Server) -> list[str]:
    """As many flows of a year as four minutes bear, and how long each panel of the overview takes over them."""
    now = calendar.timegm((2026, 11, 30, 12, 0, 0))
    begin = now - SPANS["year"][0]
    pool = []
    for flow in flows(50_000, 0, 50_000_000):
        text = json.dumps(flow.ours(), separators=(",", ":"))
        text = text.replace(iso(flow.end), "%(end)s").replace(iso(flow.start), "%(start)s")
        pool.append((text, flow.end - flow.start))
    # Layer on layer, each from the year's first day to its last: as if the house had more devices.
    step = SPANS["year"][0] * 1000 / (BODIES * BATCH)
    total, until, layer = 0, time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        chance = random.Random(layer)
        lines = []
        for number in range(BODIES * BATCH):
            end = begin * 1000 + int((number + chance.random()) * step)
            index = time.strftime("network-%Y.%m", time.gmtime(end / 1000))
            # Layers take turns: at most a thousand of them.
            action = f'{{"create":{{"_index":"{index}","_id":"{ident(number * 1000 + layer)}"}}}}'
            text, length = pool[chance.randrange(len(pool))]
            lines.append(f"{action}\n{text % {'end': iso(end), 'start': iso(end - length)}}\n".encode())
        server.fill(batched(iter(lines)))
        total, layer = total + len(lines), layer + 1
    size = server.merged("network-*")
    row(f"{total:,} flows of a year", "GB", "GB for 36 M")
    row("", f"{size / 1e9:.2f}", f"{size / total * YEAR / 1e9:.1f}")
    home = json.loads((panels.FOLDER / "dashboard/home.json").read_text())
    shown = sorted(
        {one["id"].removeprefix("wrtflow-") for one in home["references"] if one["type"] == "visualization"}
    )
    charts = panels.load("visualization")
    row("  overview's panels, ms", *SPANS)
    sums = dict.fromkeys(SPANS, 0.0)
    for name in shown:
        times = []
        for span, (seconds, interval) in SPANS.items():
            panels.INTERVAL = interval
            request = asked(charts[name])
            if not request:
                break
            within = {
                "range": {
                    "@timestamp": {"gte": (now - seconds) * 1000, "lt": now * 1000, "format": "epoch_millis"}
                }
            }
            request["query"]["bool"].setdefault("filter", []).append(within)
            times.append(min(timed(server, request) for _ in range(2)))
            sums[span] += times[-1]
        if times:
            row(f"    {name}", *(f"{each * 1000:.0f}" for each in times))
    row("    all of them", *(f"{each * 1000:.0f}" for each in sums.values()))
    months = server.ask("GET", "/network-*/_settings?filter_path=*.settings.index.uuid")
    server.ask("DELETE", "/" + ",".join(months))
    return []


def asked(chart: dict[str, Any]) -> dict[str, Any]:
    """Return a panel's request; empty for one that asks nothing."""
    state = chart["visState"]
    return {} if state["type"] == "markdown" else panels.asked(chart)


def timed(server: Server, request: dict[str, Any]) -> float:
    """Return the seconds that a search takes."""
    begin = time.monotonic()
    server.ask("POST", "/network-*/_search?request_cache=false", request)
    return time.monotonic() - begin


PARTS = {"disk": disk, "year": year}


def main() -> None:
    """Print the tables; exit 1 when a claim is untrue."""
    url, secrets, *chosen = sys.argv[1:]
    server = Server(url, Path(secrets))
    untrue = [text for name in chosen for text in PARTS[name](server)]
    if untrue:
        sys.exit("Not as claimed:\n  " + "\n  ".join(untrue))


if __name__ == "__main__":
    main()
