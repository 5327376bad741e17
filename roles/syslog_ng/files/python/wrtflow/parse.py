"""What a router's line is: a flow event, read strictly, or any other line. What can't be trusted goes to unparsed.log.

Two transports say the same: ulogd's PRINTFLOW lines in syslog, and ulogd's JSON objects with the kernel's times.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import logging.handlers
import re
import time
import typing
from pathlib import Path

# The header as logread writes it: priority, time, host. A file may lack the priority. A logread started by hand writes
# no host, or (-t) the time twice. A relay may write the time as RFC 3339 does.
_HEADER = (
    r"(?:<[0-9]{1,3}>)?([A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}[0-9:Z+-]{1,6})"
    r" (?:\[[0-9]{1,11}\.[0-9]{3}\] )?(?:([A-Za-z0-9._:-]{1,255})(?<!:) )?"
)

# Numbers go into the document as they are: written as in JSON, within Elasticsearch's long. The pattern knows their
# range, because Python would take longer to look.
_PORT = "(?:0|[1-5][0-9]{0,4}|6(?:[0-4][0-9]{3}|5(?:[0-4][0-9]{2}|5(?:[0-2][0-9]|3[0-5]))|[0-9]{0,3})|[7-9][0-9]{0,3})"
_COUNTER = "(0|[1-9][0-9]{0,17})"
_ADDRESS = "([0-9A-Fa-f.:]{2,45})"
_TYPE = " TYPE=[0-9]{1,3} CODE=[0-9]{1,3}"
_COUNTERS = f" PKTS={_COUNTER} BYTES={_COUNTER}"
# How ulogd begins, and what follows. REPLY has the protocol of ORIG, and ports where ORIG has them.
_ULOGD = r"ulogd(?:\[[0-9]{1,10}\])?: \[(NEW|UPDATE|DESTROY)\]"
_flow = re.compile(
    f"(SRC={_ADDRESS} DST={_ADDRESS} PROTO=(?P<protocol>[A-Za-z0-9-]{{1,15}})"
    f"(?: SPT=(?P<port>{_PORT}) DPT=({_PORT})|{_TYPE}|))"
    f"{_COUNTERS} , REPLY: SRC={_ADDRESS} DST={_ADDRESS} PROTO=(?P=protocol)"
    f"(?(port) SPT=({_PORT}) DPT=({_PORT})|(?:{_TYPE}|)){_COUNTERS}"
).fullmatch
# Tags may be empty (netifd) or have a blank in them.
_LINE = r"(?:([^:\[]{0,64})(?:\[[0-9]{1,10}\])?: ?)?(.*)"
# What is left of a flow that was cut, and what a flow begins with that is not ulogd's.
_cut = re.compile(r"\s*\[(?:N|U|D|$)").match
_foreign = re.compile(r"(ulogd(?:\[[0-9]{1,10}\])?: ?)?\[(?:NEW|UPDATE|DESTROY)\]").match
# A syslog line has none of these: what comes after one is not its author's.
_broken = re.compile("[\0\n\v\f\r\x1c-\x1e\x85\u2028\u2029]").search

# Bytes of a line. syslog-ng hands on longer ones in pieces of this size.
LINE = 8192
# Bytes of unparsed.log and of the one before it, and characters of each line.
_UNPARSED = 10 * 1024 * 1024
_SHOWN = 1000
_NO_TIMES = (None, None)
_PORT_MAX = 65535
_COUNTER_MAX = 10**18 - 1

# ulogd's numbers of conntrack's events, and names of IP protocols; others go by their number.
_EVENTS = {1: "NEW", 2: "UPDATE", 4: "DESTROY"}
_NAMES = {
    1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah",
    58: "ipv6-icmp", 89: "ospf", 132: "sctp", 136: "udplite",
}  # fmt: skip
# As a router writes it -> number as text, name.
_protocols = {str(number): (str(number), _NAMES.get(number, str(number))) for number in range(256)}
for _number, _name in (*_NAMES.items(), (58, "icmpv6"), (58, "ICMPv6")):
    _protocols[_name] = _protocols[_name.upper()] = _protocols[str(_number)]


class Refused(ValueError):  # noqa: N818 (what happens to the line)
    """The line can't be trusted; the text says why."""


class Flow(typing.NamedTuple):
    """One event of conntrack. Numbers are text as JSON has them; ports are None for protocols without."""

    # The router's own clock, as it wrote it: part of the line's identity, never a time of ours.
    stamp: str
    host: str | None
    event: str  # NEW, UPDATE or DESTROY
    tuple: str  # ORIG as the router wrote it, which tells a flow from others that are open on this router
    source: str
    destination: str
    protocol: str
    source_port: str | None
    destination_port: str | None
    packets: str
    bytes: str
    reply_source: str
    reply_destination: str
    reply_source_port: str | None
    reply_destination_port: str | None
    reply_packets: str
    reply_bytes: str
    # The kernel's times in ms since 1970, where the transport has them.
    start: int | None = None
    end: int | None = None

    @property
    def distinct(self) -> bool:
        """Whether the tuple is one flow's alone. ICMP's id and the ports of some protocols are only in JSON objects."""
        return self.source_port is not None or not self.stamp


class Line(typing.NamedTuple):
    """Any other line of a router."""

    stamp: str
    host: str | None
    program: str
    text: str


def protocol(written: str) -> tuple[str, str]:
    """Return the number and the name of an IP protocol. Refused where there is none of that name."""
    if written not in _protocols:
        raise Refused("unknown protocol")
    return _protocols[written]


class Reader:
    """Reads syslog lines of routers."""

    def __init__(self, log_prefix: str = "") -> None:
        """log_prefix: what the routers' logread puts before each tag (uci's log_prefix); empty for nothing."""
        # Anchored at the tag: text further on that looks like a flow is somebody's host name, not a flow.
        header = _HEADER + (f"(?:{re.escape(log_prefix)}:? )?" if log_prefix else "")
        begin = re.compile(header + _ULOGD).fullmatch
        # All flows of a second begin alike.
        self._begin = functools.lru_cache(maxsize=256)(lambda text: (found := begin(text)) and found.groups())
        self._line = re.compile(header + _LINE).fullmatch
        self._header = re.compile(header).match

    def read(self, line: str) -> Flow | Line:
        """Read a line without its end (see whole()). Refused where it is neither a flow nor an ordinary line."""
        begin, _, flow = line.partition(" ORIG: ")
        match = _flow(flow)
        head = match and self._begin(begin)
        if match is None or head is None:
            return self._other(line)
        # Flow() itself takes twice the time.
        read = tuple.__new__(Flow, head + match.groups() + _NO_TIMES)
        if read.protocol not in _protocols:
            raise Refused("unknown protocol")
        return read

    def begins(self, line: str) -> bool:
        """Tell whether a line begins as one, or as a JSON object, and is not a later piece of one."""
        return line.startswith("{") or self._header(line) is not None

    def _other(self, line: str) -> Line:
        if _broken(line):
            raise Refused("not one whole line")
        match = self._line(line)
        if match is None:
            raise Refused("not a syslog line")
        stamp, host, program, text = match.groups()
        if program == "ulogd" and _cut(text):
            raise Refused("not a flow as ulogd writes it")
        if foreign := _foreign(text):
            behind = f"a flow behind {program!r}, which syslog_ng_log_prefix does not name"
            raise Refused(behind if foreign[1] else "a flow that ulogd did not log")
        return Line(stamp, host, program or "", text)


def whole(text: str) -> str:
    """Return a line without its end: a real logd strips trailing blanks, ulogd ends its lines with one."""
    return text.rstrip(" \r\n\0")


def read_json(line: str) -> Flow:
    """Read an object of ulogd's JSON output. Refused where something is missing or out of range."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refused("not JSON") from error
    # Nor one with white space before it: where it is read back, { tells what it is.
    if not isinstance(fields, dict) or not line.startswith("{"):
        raise Refused("not an object")
    event = _EVENTS.get(_integer(fields, "ct.event", 255))
    if event is None:
        raise Refused("unknown event")
    number = str(_integer(fields, "orig.ip.protocol", 255))
    # Without a host name of the router's own, ulogd calls every device so.
    host = _text(fields, "dvc") if fields.get("dvc", "Netfilter") != "Netfilter" else ""
    if not re.fullmatch(r"[A-Za-z0-9._:-]{0,255}", host):
        raise Refused("dvc is no host name")
    # Some releases write ORIG's addresses by other names than REPLY's.
    names = ("src_ip", "dest_ip") if "src_ip" in fields else ("orig.ip.saddr.str", "orig.ip.daddr.str")
    orig = _side(fields, "orig", *names)
    reply = _side(fields, "reply", "reply.ip.saddr.str", "reply.ip.daddr.str")
    if (orig[2] is None) != (reply[2] is None) or str(fields.get("reply.ip.protocol", number)) != number:
        raise Refused("REPLY is another protocol's than ORIG")
    tuple_ = f"{' '.join(filter(None, orig[:4]))} PROTO={number} ID={_integer(fields, 'ct.id', 2**32 - 1)}"
    times = _milliseconds(fields, "flow.start"), _milliseconds(fields, "flow.end")
    return Flow._make(("", host, event, tuple_, *orig[:2], number, *orig[2:], *reply, *times))


def _side(fields: dict[str, object], side: str, *ends: str) -> list[typing.Any]:
    """Return a side's source, destination, their ports, packets and bytes. ends: the names of the first two."""
    ports = f"{side}.l4.sport", f"{side}.l4.dport"
    counters = f"{side}.raw.pktcount", f"{side}.raw.pktlen"
    has_ports = any(name in fields for name in ports)
    return [
        *(_text(fields, name) for name in ends),
        *(str(_integer(fields, name, _PORT_MAX)) if has_ports else None for name in ports),
        *(str(_integer(fields, name, _COUNTER_MAX)) for name in counters),
    ]


def _integer(fields: dict[str, object], name: str, maximum: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= maximum:
        raise Refused(f"{name} is missing or out of range")
    return value


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise Refused(f"{name} is missing")
    return value


def _milliseconds(fields: dict[str, object], name: str) -> int | None:
    seconds, micro = fields.get(f"{name}.sec"), fields.get(f"{name}.usec")
    # Until the year 9999; a kernel that keeps no times says 0.
    if type(seconds) is int and type(micro) is int and 0 < seconds < 253402300800 and 0 <= micro < 10**6:
        return seconds * 1000 + micro // 1000
    return None


class Unparsed:
    """unparsed.log: the lines that could not be trusted, with the reason. Two files of a given size, whatever comes."""

    def __init__(self, folder: Path) -> None:
        """Open the file at the first line."""
        # Not through syslog-ng's file(): it can't rotate, and a flood would fill the disk within the hour.
        self._handler = logging.handlers.RotatingFileHandler(
            folder / "unparsed.log", maxBytes=_UNPARSED, backupCount=1, encoding="ascii", delay=True
        )
        formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        self._handler.setFormatter(formatter)
        # A full disk must not stop the flows; and what failed once is opened again.
        self._handler.handleError = lambda record: self.close()  # type: ignore[method-assign]

    def write(self, sender: str, reason: str, line: str) -> None:
        """Write a line; what is not printable ASCII is escaped. Nothing is raised."""
        shown = f"{sender} {reason}: {line[:_SHOWN]}".encode("unicode_escape").decode("ascii")
        text = f"{shown} ... {len(line)} characters" if len(line) > _SHOWN else shown
        self._handler.handle(logging.LogRecord("wrtflow", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        """Close the file; the next line opens it again. Nothing is raised."""
        with contextlib.suppress(OSError, ValueError):
            self._handler.close()
