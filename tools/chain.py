"""One run of the whole chain: send traffic through the router, and compare each document with the kernel's counters."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import lab

#: Seconds from a flow's DESTROY until its document must be searchable.
SEARCHABLE_WITHIN = 3.0


@dataclass
class Run:
    """One run: the flows that the client made; and by key the kernel's event, the document and its latency in s."""

    made: list[dict[str, Any]]
    kernel: dict[lab.Key, lab.KernelFlow]
    documents: dict[lab.Key, dict[str, Any]]
    latency: dict[lab.Key, float]

    @property
    def finished(self) -> list[dict[str, Any]]:
        """Return the flows that have ended."""
        return [made for made in self.made if not made.get("hold")]


def meet_devices() -> None:
    """Wait until the router has logged the MACs of the client's addresses. It does so within half a minute."""
    lab.run("client", "ping", "-q", "-c", "1", "fd77:0:0:1::1")
    lab.wait_for(
        "the router to log its neighbours",
        lambda: f"neigh {lab.LAPTOP6} " in lab.run("router", "cat", "/tmp/wrtflow/last"),
        60,
    )


def run_traffic(traffic: list[dict[str, Any]] = lab.TRAFFIC, patience: float = 30) -> Run:
    """Send traffic, and wait until the kernel has ended each flow and its document is searchable.

    Wait at most `patience` seconds, longer while the kernel still ends flows. faults() says what is missing.
    """
    meet_devices()
    begin = datetime.now(UTC)
    recent = {"range": {"@timestamp": {"gte": begin.isoformat()}}}
    with lab.KernelEvents() as events:
        made = lab.send_traffic(traffic)
        keys = {lab.made_key(flow) for flow in made if not flow.get("hold")}
        found: dict[lab.Key, dict[str, Any]] = {}
        latency: dict[lab.Key, float] = {}
        end = time.monotonic() + patience
        while time.monotonic() < end and (len(found) < len(keys)):
            asked = time.time()
            for document in lab.documents(recent):
                key = lab.document_key(document)
                if key in keys and key not in found:
                    found[key] = document
            for flow in events.flows:
                if flow.key in found and flow.key not in latency:
                    latency[flow.key] = asked - flow.seen
                elif flow.key in keys and flow.key not in found:
                    # The kernel still ends flows: wait longer.
                    end = max(end, flow.seen - time.time() + time.monotonic() + patience / 2)
            time.sleep(0.1)
    return Run(made, {flow.key: flow for flow in events.flows}, found, latency)


def faults(run: Run) -> list[str]:
    """Return one sentence for each thing that is missing or wrong. The list is empty if all is exact."""
    wrong = []
    for made in run.made:
        key = lab.made_key(made)
        document, kernel = run.documents.get(key), run.kernel.get(key)
        name = "{transport} {source}:{source_port} > {destination}:{port} ({site})".format(**made)
        if made.get("hold"):
            if document:
                wrong.append(f"{name}: still open, but has a document")
        elif not kernel:
            wrong.append(f"{name}: the router's kernel reported no DESTROY")
        elif not document:
            wrong.append(f"{name}: ended in the kernel, not in Elasticsearch")
        else:
            wrong += [f"{name}: {fault}" for fault in _document_faults(made, kernel, document)]
    return wrong


def _document_faults(made: dict[str, Any], kernel: lab.KernelFlow, document: dict[str, Any]) -> list[str]:
    """Compare one document with the kernel's counters, the lab's places and names, and the clock."""
    country, city, asn = lab.place_of(made["destination"])
    expected = {
        "source.bytes": kernel.source_bytes,
        "source.packets": kernel.source_packets,
        "destination.bytes": kernel.destination_bytes,
        "destination.packets": kernel.destination_packets,
        "network.bytes": kernel.source_bytes + kernel.destination_bytes,
        "network.packets": kernel.source_packets + kernel.destination_packets,
        "network.type": f"ipv{made['family']}",
        "network.direction": "outbound",
        "destination.geo.country_iso_code": country,
        "destination.geo.city_name": city,
        "destination.as.number": asn,
        "source.domain": "camera" if made["device"] == lab.CAMERA else "laptop",
        "event.action": "flow-end",
        "observer.type": "router",
    }
    if any(c.isalpha() for c in made["site"]) and ":" not in made["site"]:
        expected |= {"destination.domain": made["site"], "wrtflow.domain_source": "dns"}
    if made["family"] == 4:
        expected["source.nat.ip"] = "198.18.0.1"
    wrong = [
        f"{name} is {get(document, name)!r}, should be {value!r}"
        for name, value in expected.items()
        if get(document, name) != value
    ]
    start, end = get(document, "event.start"), get(document, "@timestamp")
    if not start or start > end:
        wrong.append(f"starts {start} and ends {end}")
    else:
        seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
        if abs(get(document, "event.duration") - seconds * 1e9) > 1e6:
            wrong.append(
                f"event.duration is {get(document, 'event.duration')} ns, from start to end are {seconds} s"
            )
    return wrong


def get(document: dict[str, Any], name: str) -> Any:
    """Return the value of a dotted field name, None if it is absent."""
    value: Any = document
    for part in name.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value
