"""The flow document (files/flow-document.yml): one JSON line per finished flow, and its id and index."""

from __future__ import annotations

import binascii
import calendar
import datetime
import functools
import hashlib
import json
import time

from wrtflow.flow import Flow, protocol
from wrtflow.geo import Place

END, TIMEOUT = "flow-end", "flow-timeout"
ROUTER, ACCESS_POINT = "router", "access_point"


# What is known of one side beyond its address: name, and MAC as ECS writes it.
Named = tuple[str | None, str | None]


@functools.lru_cache(maxsize=4096)
def quoted(text: str) -> str:
    """Return the text as a JSON string."""
    return json.dumps(text, ensure_ascii=False)


@functools.lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@functools.lru_cache(maxsize=4096)
def timestamp(milliseconds: int) -> str:
    """Return ms since 1970 as ISO 8601 in UTC."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03}Z"


@functools.lru_cache(maxsize=64)
def _month(day: int) -> str:
    return time.strftime("%Y.%m", time.gmtime(day * 86400))


def index(prefix: str, end: int) -> str:
    """Return the index of a flow that ended then (ms since 1970): PREFIX-YYYY.MM, in UTC."""
    return f"{prefix}-{_month(end // 86_400_000)}"


@functools.lru_cache(maxsize=64)
def seconds_of_year(stamp: str) -> int | None:
    """Read the router's own clock; None where it is none. RFC 3164 has no year."""
    try:
        if stamp[:1].isdigit():
            moment = datetime.datetime.fromisoformat(stamp).replace(year=1972).timetuple()
        else:
            moment = time.strptime(f"1972 {stamp}", "%Y %b %d %H:%M:%S")
    except ValueError:
        return None
    return calendar.timegm(moment) - 63_072_000


def identity(stamp: str, moment: int | None, what: str) -> str:
    """Return the document's id: the same for the same line of the same router, whenever and how often it comes.

    Stamp: the router's clock, or moment (ms since 1970) where the line has none; what: the router and its line.

    12 characters that Elasticsearch keeps as 9 bytes: 3 of time first, so that neighbours share their beginning
    (ids that do not compress cost more than any field), and 6 that tell apart what ended in the same 2 seconds.
    """
    seconds = seconds_of_year(stamp) or 0 if moment is None else moment // 1000
    digest = hashlib.blake2b(what.encode("utf-8", "replace"), digest_size=6).digest()
    whole = binascii.b2a_base64((seconds // 2 & 0xFFFFFF).to_bytes(3, "big") + digest, newline=False)
    return whole.translate(_URL_SAFE).decode()


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def direction(source: Place, destination: Place, translated: Place) -> str:
    """Return where the flow goes, seen from home. Translated: where DNAT sends it, else the destination."""
    inside = destination.home or translated.home
    if source.home:
        return "internal" if inside else "outbound"
    return "inbound" if inside else "external"


def document(
    flow: Flow,
    router: str,
    observer: str,
    action: str,
    times: tuple[int | None, int],
    places: tuple[Place, Place, Place, Place],
    names: tuple[Named, Named],
    domain_source: str,
    where: str,
    first_seen: bool,
) -> str:
    """Return the document as one line of JSON.

    Router: host@sender; observer: ROUTER or ACCESS_POINT. Times: start and end in ms since 1970. Places: of ORIG's
    source and destination and of REPLY's, which differ from them behind NAT. Names: of the source and of the
    destination. Where: direction().
    """
    source, destination, reply_source, reply_destination = places
    (
        _, _, _, _, _, _, written, source_port, destination_port, packets, octets,
        _, _, reply_source_port, reply_destination_port, reply_packets, reply_octets, _, _,
    ) = flow  # fmt: skip
    start, end = times
    at = timestamp(end)
    if start is None:
        period = f'"end":"{at}"'
    else:
        start = min(start, end)
        period = f'"start":"{timestamp(start)}","end":"{at}","duration":{(end - start) * 1_000_000}'
    if action == END:
        totals = f',"bytes":{int(octets) + int(reply_octets)},"packets":{int(packets) + int(reply_packets)}'
        sent = f',"bytes":{octets},"packets":{packets}'
        received = f',"bytes":{reply_octets},"packets":{reply_packets}'
    else:
        # The counters come with the DESTROY: here they are unknown, not 0.
        totals = sent = received = ""
    number, transport = protocol(written)
    name, mac = names[0]
    source_name = f',"domain":{quoted(name)}' if name else ""
    source_mac = f',"mac":"{mac}"' if mac else ""
    name = names[1][0]
    destination_name = f',"domain":{quoted(name)}' if name else ""
    source_ports = "" if source_port is None else f',"port":{source_port}'
    destination_ports = "" if destination_port is None else f',"port":{destination_port}'
    return (
        f'{{"@timestamp":"{at}","ecs":{{"version":"8.17.0"}},'
        f'"event":{{"kind":"event","category":["network"],"type":["connection","end"],"action":"{action}",{period}}},'
        f'"observer":{{"hostname":"{router.rpartition("@")[0]}","type":"{observer}"}},'
        f'"network":{{"transport":"{transport}","iana_number":"{number}","type":"ipv{source.version}"{totals},'
        f'"direction":"{where}"}},'
        f'"source":{{"ip":"{source.ip}"{source_ports}{sent}{source_mac}{source_name}'
        f"{_nat(source, reply_destination, source_port, reply_destination_port)}{source.json}}},"
        f'"destination":{{"ip":"{destination.ip}"{destination_ports}{received}{destination_name}'
        f"{_nat(destination, reply_source, destination_port, reply_source_port)}{destination.json}}},"
        f'"wrtflow":{{"domain_source":"{domain_source}"{_FIRST if first_seen else ""}}}}}'
    )


_FIRST = ',"first_seen":true'


def _nat(place: Place, translated: Place, port: str | None, translated_port: str | None) -> str:
    """Write what REPLY has otherwise than ORIG."""
    if translated is place and translated_port == port:
        return ""
    ip = f'"ip":"{translated.ip}"' if translated.ip != place.ip else ""
    if translated_port == port or translated_port is None:
        return f',"nat":{{{ip}}}' if ip else ""
    return f',"nat":{{{ip}{"," if ip else ""}"port":{translated_port}}}'
