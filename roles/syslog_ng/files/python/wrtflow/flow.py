"""A router's flow lines, read strictly: what is not exactly a flow is refused with the reason.

Two transports say the same: ulogd's PRINTFLOW lines in syslog, and ulogd's JSON objects with the kernel's times.
"""

from __future__ import annotations

import json
import re
import typing

# Elasticsearch's long, and more than any counter of a house.
_LONG_MAX = 2**63 - 1
_PORT_MAX = 65535

# The header as logread writes it: priority, time, host, an optional log_prefix. What is read from a file may
# lack the priority; a relay may write the time as RFC 3339 does.
_HEADER = (
    r"(?:<[0-9]{1,3}>)?([A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}[0-9:Z+-]{1,6})"
    r" ([A-Za-z0-9._:-]{1,255}) "
)
_SIDE = (
    r"SRC=([0-9A-Fa-f.:]{2,45}) DST=([0-9A-Fa-f.:]{2,45}) PROTO=([A-Za-z0-9-]{1,15}) "
    r"(?:SPT=([0-9]{1,5}) DPT=([0-9]{1,5}) |TYPE=[0-9]{1,3} CODE=[0-9]{1,3} |)"
)
_COUNTERS = r"PKTS=([0-9]{1,20}) BYTES=([0-9]{1,20}) "

# Anchored at the tag: text further on that looks like a flow is somebody's host name, not a flow.
_FLOW = re.compile(
    _HEADER
    + r"(?:[^ ]{1,64} )?[^ :]{1,64}: \[(NEW|UPDATE|DESTROY)\] ORIG: (?=(.*?) PKTS=)"
    + _SIDE
    + _COUNTERS
    + ", REPLY: "
    + _SIDE
    + _COUNTERS.removesuffix(" ")
    + r"[ \r]*"
).fullmatch

_LINE = re.compile(_HEADER + r"([^ :\[]{1,64})(?:\[[0-9]{1,10}\])?: ?(.*)", re.DOTALL).fullmatch

# Names that people write for IP protocols; what is not here goes by its number.
NUMBERS = {
    "icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51,
    "ipv6-icmp": 58, "ospf": 89, "sctp": 132, "udplite": 136,
}  # fmt: skip
_NAMES = {number: name for name, number in NUMBERS.items()}
_OTHER_NAMES = {"icmpv6": "ipv6-icmp"}


class Refused(ValueError):  # noqa: N818 (what happens to the line)
    """The line can't be trusted; the text says why."""


class Side(typing.NamedTuple):
    """One direction of a flow as conntrack has it."""

    source: str
    destination: str
    source_port: int | None
    destination_port: int | None
    packets: int
    bytes: int


class Flow(typing.NamedTuple):
    """One event of conntrack."""

    event: str  # NEW, UPDATE or DESTROY
    host: str  # what the router calls itself
    protocol: int
    # What tells this flow from others that are open on this router: the tuple's text, as the router wrote it.
    tuple: str
    orig: Side
    reply: Side
    # The router's own clock, to the second, as it wrote it: part of the line's identity, never a time of ours.
    stamp: str
    # The kernel's times in ms since 1970, where the transport has them.
    start: int | None = None
    end: int | None = None


class Line(typing.NamedTuple):
    """Any other line of a router."""

    host: str
    program: str
    text: str


def transport(protocol: int) -> str:
    """Return the name of an IP protocol as ECS writes it; the number where it has none."""
    return _NAMES.get(protocol) or str(protocol)


def distinct(protocol: int, source_port: int | None) -> bool:
    """Whether the tuple is one flow's alone. ICMP's id and the ports of the rest are not in the lines."""
    return source_port is not None or protocol in (6, 17)


def read_line(line: str) -> Flow | Line:
    """Read one syslog line. Refused where it is neither a flow nor an ordinary line."""
    match = _FLOW(line)
    if match is None:
        return _other(line)
    (
        stamp, host, event, key,
        source, destination, name, source_port, destination_port, packets, octets,
        reply_source, reply_destination, reply_name, reply_source_port, reply_destination_port,
        reply_packets, reply_octets,
    ) = match.groups()  # fmt: skip
    if name != reply_name:
        raise Refused("the two directions have different protocols")
    return Flow(
        event,
        host,
        _protocol(name),
        key,
        _side(source, destination, source_port, destination_port, packets, octets),
        _side(
            reply_source,
            reply_destination,
            reply_source_port,
            reply_destination_port,
            reply_packets,
            reply_octets,
        ),
        stamp,
    )


def _other(line: str) -> Line:
    match = _LINE(line)
    if match is None:
        raise Refused("not a syslog line")
    _, host, program, text = match.groups()
    if program == "ulogd" or text.startswith(("[NEW]", "[UPDATE]", "[DESTROY]")):
        raise Refused("not a whole flow")
    return Line(host, program, text)


def _side(
    source: str,
    destination: str,
    source_port: str | None,
    destination_port: str | None,
    packets: str,
    octets: str,
) -> Side:
    side = Side(
        source,
        destination,
        None if source_port is None else int(source_port),
        None if destination_port is None else int(destination_port),
        int(packets),
        int(octets),
    )
    if source_port is not None and (side[2] > _PORT_MAX or side[3] > _PORT_MAX):  # type: ignore[operator]
        raise Refused("a port is out of range")
    if side.packets > _LONG_MAX or side.bytes > _LONG_MAX:
        raise Refused("a counter is out of range")
    return side


def _protocol(name: str) -> int:
    if name.isdigit():
        number = int(name)
    else:
        lower = name.lower()
        number = NUMBERS.get(_OTHER_NAMES.get(lower, lower), 256)
    if number > 255:
        raise Refused("unknown protocol")
    return number


# ulogd's numbers of conntrack's events.
_EVENTS = {1: "NEW", 2: "UPDATE", 4: "DESTROY"}


def read_json(line: str) -> Flow:
    """Read one object of ulogd's JSON output. Refused where something is missing or out of range."""
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise Refused("not JSON") from error
    if not isinstance(fields, dict):
        raise Refused("not an object")
    event = _EVENTS.get(_number(fields, "ct.event", 255))
    if event is None:
        raise Refused("unknown event")
    protocol = _number(fields, "orig.ip.protocol", 255)
    orig = _json_side(fields, "orig", "src_ip" if "src_ip" in fields else "orig.ip.saddr.str")
    reply = _json_side(fields, "reply", "reply.ip.saddr.str")
    ident = _number(fields, "ct.id", 2**32 - 1)
    return Flow(
        event,
        _host(fields),
        protocol,
        f"SRC={orig.source} DST={orig.destination} PROTO={protocol} SPT={orig.source_port} DPT={orig.destination_port}"
        f" ID={ident}",
        orig,
        reply,
        "",
        _milliseconds(fields, "flow.start"),
        _milliseconds(fields, "flow.end"),
    )


def _json_side(fields: dict[str, object], side: str, source: str) -> Side:
    destination = "dest_ip" if source == "src_ip" else f"{side}.ip.daddr.str"
    ports = (f"{side}.l4.sport", f"{side}.l4.dport")
    has_ports = ports[0] in fields and ports[1] in fields
    return Side(
        _text(fields, source),
        _text(fields, destination),
        _number(fields, ports[0], _PORT_MAX) if has_ports else None,
        _number(fields, ports[1], _PORT_MAX) if has_ports else None,
        _number(fields, f"{side}.raw.pktcount", _LONG_MAX),
        _number(fields, f"{side}.raw.pktlen", _LONG_MAX),
    )


def _number(fields: dict[str, object], name: str, maximum: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= maximum:
        raise Refused(f"{name} is missing or out of range")
    return value


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise Refused(f"{name} is missing")
    return value


def _host(fields: dict[str, object]) -> str:
    value = fields.get("dvc", fields.get("host", ""))
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._:-]{0,255}", value) else ""


def _milliseconds(fields: dict[str, object], name: str) -> int | None:
    seconds, micro = fields.get(f"{name}.sec"), fields.get(f"{name}.usec")
    if type(seconds) is not int or type(micro) is not int or seconds <= 0 or not 0 <= micro < 10**6:
        return None
    return seconds * 1000 + micro // 1000
