"""The flow document (files/flow-document.yml): one JSON line per finished flow, and its id and index."""

from __future__ import annotations

import calendar as dates
import datetime
import functools
import json
import time
import typing
import zoneinfo
from base64 import urlsafe_b64encode
from binascii import b2a_base64
from dataclasses import dataclass
from hashlib import blake2b

from wrtflow.parse import Flow, protocol
from wrtflow.places import Place

if typing.TYPE_CHECKING:
    from wrtflow.correlate import Ends, Event

END, TIMEOUT = "flow-end", "flow-timeout"
ROUTER, ACCESS_POINT = "router", "access_point"

# What many documents have in common is written once.
_once = functools.lru_cache(maxsize=4096)
_quoted = functools.partial(json.dumps, ensure_ascii=False)
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


@dataclass(slots=True, eq=False)
class Facts:
    """What is known of a flow beyond its line and its places."""

    observer: str  # ROUTER or ACCESS_POINT
    direction: str
    source_name: str | None = None
    source_mac: str | None = None
    destination_name: str | None = None
    domain_source: str = "none"
    first_seen: bool = False
    device: str | None = None  # the end at home
    manufacturer: str | None = None  # who made it
    registered_domain: str | None = None  # what the owner of the site's name registered


@_once
def timestamp(milliseconds: int) -> str:
    """Return ms since 1970 as ISO 8601 in UTC."""
    seconds, rest = divmod(milliseconds, 1000)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{rest:03}Z", time.gmtime(seconds))


class Calendar:
    """Hour and weekday in the house's time zone."""

    def __init__(self, zone: str) -> None:
        """zone: its name, as Europe/Berlin; empty: the zone of this machine."""
        self._zone = zoneinfo.ZoneInfo(zone) if zone else None
        # By quarter of an hour: all zones change at a full one.
        self._members = functools.lru_cache(maxsize=256)(self._write)

    def members(self, milliseconds: int) -> str:
        """Return the members hour (0-23) and weekday (1 Monday to 7 Sunday) of ms since 1970, each behind a comma."""
        return self._members(milliseconds // 900_000)

    def _write(self, quarter: int) -> str:
        moment = datetime.datetime.fromtimestamp(quarter * 900, self._zone)
        return f',"hour":{moment.hour},"weekday":{moment.isoweekday()}'


@functools.lru_cache(maxsize=64)
def index(prefix: str, day: int) -> str:
    """Return the index of flows that ended on a day (since 1970): PREFIX-YYYY.MM, in UTC."""
    return f"{prefix}-{time.strftime('%Y.%m', time.gmtime(day * 86_400))}"


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
    return dates.timegm(moment) - 63_072_000


def identity(read: Flow, line: str) -> str:
    """Return the id of a document whose NEW was not seen: 12 characters. line: the router, a blank, and its line.

    It is the same whenever and how often the line comes. It begins with the time: ids of neighbours compress.
    """
    seconds = seconds_of_year(read.stamp) or 0 if read.end is None else read.end // 1000
    digest = blake2b(line.encode("utf-8", "replace"), digest_size=6).digest()
    # 12 characters that Elasticsearch keeps as 9 bytes.
    return urlsafe_b64encode((seconds // 2 & 0xFFFFFF).to_bytes(3, "big") + digest).decode()


def numbered(number: int) -> str:
    """Return the id of a document whose NEW was seen, from the flow's number: 8 characters.

    The numbers rise, so neighbours share all but the id's last bytes. Elasticsearch keeps the 8 characters as 6 bytes.
    They are the last 48 bits of the number, which are not used up before 2039 and then begin again.
    """
    whole = b2a_base64((number & 0xFFFFFFFFFFFF).to_bytes(6, "big"), newline=False)
    return whole.translate(_URL_SAFE).decode()


def direction(source: Place, destination: Place, translated: Place) -> str:
    """Return where the flow goes, seen from home. Translated: where DNAT sends it, else the destination."""
    inside = destination.home or translated.home
    if source.home:
        return "internal" if inside else "outbound"
    return "inbound" if inside else "external"


def document(
    flow: Event, ends: Ends, start: int | None, end: int, facts: Facts, calendar: Calendar, prefix: str
) -> str:
    """Return the document for _bulk: a line with its index and id, and a line with the JSON object.

    start and end: ms since 1970. prefix: the first part of the index's name.
    """
    source, destination, reply_source, reply_destination = ends
    read = flow.read
    at = timestamp(end)
    period = hour = totals = sent = received = ""
    if start is not None:
        start = min(start, end)
        hour = calendar.members(start)
        period = f',"start":"{timestamp(start)}","duration":{(end - start) * 1_000_000}'
    # The counters come with the DESTROY: without it they are unknown, not 0.
    if flow.action == END:
        octets, packets = int(read.bytes) + int(read.reply_bytes), int(read.packets) + int(read.reply_packets)
        totals = f',"bytes":{octets},"packets":{packets}'
        sent = f',"bytes":{read.bytes},"packets":{read.packets}'
        received = f',"bytes":{read.reply_bytes},"packets":{read.reply_packets}'
    first = ',"first_seen":true' if facts.first_seen else ""
    port, destination_port = read.source_port, read.destination_port
    ports = ("", "") if port is None else (f',"port":{port}', f',"port":{destination_port}')
    nat = _nat(source, reply_destination, port, read.reply_destination_port)
    destination_nat = _nat(destination, reply_source, destination_port, read.reply_source_port)
    # Neighbours in an index share site and device. What differs stands side by side, because that compresses best.
    return (
        f'{{"create":{{"_index":"{index(prefix, end // 86_400_000)}","_id":"{flow.id}"}}}}\n'
        f'{_begin(flow.router.host, facts.observer, flow.action)}{period}}},"@timestamp":"{at}"'
        f"{_device(facts.device, facts.manufacturer, facts.domain_source)}{hour}"
        f'{first}}},"source":{{"ip":"{source.ip}"'
        f"{_name(facts.source_mac, facts.source_name)}{nat}{source.json}{ports[0]}{sent}"
        f'{_network(source.version, facts.direction, read.protocol)}{totals}}},"destination":{{"ip":"{destination.ip}"'
        f"{ports[1]}{_name(None, facts.destination_name, facts.registered_domain)}{destination_nat}{destination.json}"
        f"{received}}}}}"
    )


@_once
def _begin(host: str, kind: str, action: str) -> str:
    """Return the first members of a document, with the router, and event without its end."""
    observer = f'"observer":{{"hostname":{_quoted(host)},"type":"{kind}"}}'
    event = f'"kind":"event","category":["network"],"type":["connection","end"],"action":"{action}"'
    return f'{{"ecs":{{"version":"8.17.0"}},{observer},"event":{{{event}'


@_once
def _network(version: int, where: str, written: str) -> str:
    """End source and begin the member network. where: the direction; written: the protocol of the line."""
    number, transport = protocol(written)
    names = f'"transport":"{transport}","iana_number":"{number}"'
    return f'}},"network":{{"type":"ipv{version}","direction":"{where}",{names}'


@_once
def _device(name: str | None, manufacturer: str | None, domain_source: str) -> str:
    """Return the members device, and wrtflow without its end, each behind a comma."""
    made = f',"device":{{"manufacturer":{_quoted(manufacturer)}}}' if manufacturer else ""
    called = f',"device":{_quoted(name)}' if name else ""
    return f'{made},"wrtflow":{{"domain_source":"{domain_source}"{called}'


@_once
def _name(mac: str | None, domain: str | None, registered: str | None = None) -> str:
    """Return the members of source or destination that tell its name, each behind a comma."""
    members = f',"mac":"{mac}"' if mac else ""
    members += f',"domain":{_quoted(domain)}' if domain else ""
    return f'{members},"registered_domain":{_quoted(registered)}' if registered else members


def _nat(place: Place, translated: Place, port: str | None, translated_port: str | None) -> str:
    """Return what REPLY has otherwise than ORIG, behind a comma."""
    ip = "" if translated is place or translated.ip == place.ip else f'"ip":"{translated.ip}"'
    if translated_port == port or translated_port is None:
        return f',"nat":{{{ip}}}' if ip else ""
    return f',"nat":{{{ip}{"," if ip else ""}"port":{translated_port}}}'
