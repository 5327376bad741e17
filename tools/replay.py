"""make replay LOG=file: print the flow documents that wrtflow makes from a router's log lines.

Send the lines of a file to the lab's collector as a router's logread does, wait until they have been processed, and
print the flow documents, one JSON object a line, sorted by source.port. Everything else goes to standard error.

During the replay each router in the file has a temporary name, so that its documents can be told from the lab's and
deleted afterwards. The documents are printed with the routers' own names.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import sys
import time
from datetime import datetime
from typing import Any

import lab

COLLECTOR = ("10.77.0.10", 514)
#: An address of the client container. The collector accepts lines from it, as from a second router.
SENDER = "10.77.0.30"

#: A router's line on the wire: <PRI>Mmm dd hh:mm:ss HOST rest (RFC 3164, as OpenWrt's logread sends it). In a file the
#: priority may be missing, and the time may be in RFC 3339's form. A logread that was started by hand sends no host,
#: or, with -t, the time twice.
WIRE = re.compile(
    rb"^(?P<priority><\d{1,3}>)?(?P<time>[A-Z][a-z]{2} [ \d]\d [\d:]{8}|\d{4}-\d\d-\d\dT[\d:.]{8,18}[\dZ:+-]{1,6})"
    rb" (?:\[[\d.]+\] )?(?:(?P<host>[A-Za-z0-9._:-]*[A-Za-z0-9._-]) )?(?P<rest>\S.*)$",
    re.DOTALL,
)
#: The same line as `logread` prints it on the router: no PRI, no host.
LOGREAD = re.compile(
    rb"^[A-Z][a-z]{2} (?P<time>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) \d{4} (?:\[[\d.]+\] )?"
    rb"[a-z0-9]+\.[a-z]+ (?P<rest>\S.*)$",
    re.DOTALL,
)


class Names:
    """The temporary names of routers during one replay."""

    def __init__(self, sender: str | None) -> None:
        """Take sender as the name of every router; if it is None, routers keep the names in their lines."""
        self.token = f"replay-{secrets.token_hex(4)}"
        self._sender = sender
        self._given: dict[str, str] = {}

    def give(self, host: str) -> str:
        """Return a router's temporary name."""
        host = self._sender or host
        return self._given.setdefault(host, f"{self.token}-{len(self._given)}")

    def restore(self, document: dict[str, Any]) -> dict[str, Any]:
        """Put the router's own name back into a document, and return it."""
        back = {given: host for host, given in self._given.items()}
        hostname = document["observer"]["hostname"]
        document["observer"]["hostname"] = back.get(hostname, hostname)
        return document

    @property
    def query(self) -> dict[str, Any]:
        """Return the query that finds all documents of this replay."""
        return {"prefix": {"observer.hostname": self.token}}


def on_the_wire(line: bytes, names: Names) -> bytes:
    """Return a line as a router would send it. A line of no known form stays as it is."""
    if match := LOGREAD.match(line):
        return b"<30>" + match["time"] + b" " + names.give("OpenWrt").encode() + b" " + match["rest"]
    if match := WIRE.match(line):
        name = names.give((match["host"] or b"OpenWrt").decode()).encode()
        return (match["priority"] or b"<30>") + b" ".join((match["time"], name, match["rest"]))
    return line


def sentinel(names: Names, number: int) -> tuple[list[bytes], dict[str, Any]]:
    """Return the lines of a flow to send after all others, and the query that finds its document."""
    now = datetime.now().strftime("%b %e %H:%M:%S")
    host = f"{names.token}-end{number}"
    one, other = "192.168.255.1", "192.168.255.2"
    half = "SRC={} DST={} PROTO=UDP SPT=9 DPT=9 PKTS=1 BYTES=29 "
    body = f"ORIG: {half.format(one, other)}, REPLY: {half.format(other, one)}"
    lines = [f"<30>{now} {host} ulogd[1]: [{event}] {body}".encode() for event in ("NEW", "DESTROY")]
    return lines, {"term": {"observer.hostname": host}}


def send(lines: list[bytes], transport: str) -> None:
    """Send lines to the collector from SENDER. Raise LabError if nobody listens."""
    lab.put("client", "/run/replay.lines", b"\0".join(lines))
    collector, port = COLLECTOR
    lab.run("client", "python3", "/lab/send.py", transport, SENDER, collector, str(port), "/run/replay.lines")


def through(names: Names, number: int, transport: str, seconds: float) -> None:
    """Wait until the documents of everything sent so far are searchable."""
    lines, query = sentinel(names, number)
    send(lines, transport)
    lab.wait_for("the end of the replay in Elasticsearch", lambda: lab.documents(query), seconds)


def clean_up(names: Names) -> None:
    """Delete the replay's documents, and let the lab's router log its leases and neighbours again."""
    everything = {"bool": {"filter": [names.query]}}
    while hits := lab.search(everything, size=5_000, _source=False)["hits"]["hits"]:
        actions = [{"delete": {"_index": hit["_index"], "_id": hit["_id"]}} for hit in hits]
        lab.elasticsearch("POST", "/_bulk?refresh=true", actions, user="elastic")
    lab.run("router", "sh", "-c", ": >/tmp/wrtflow/last")


def main() -> int:
    """Replay one file and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="make replay",
        description="print the flow documents that wrtflow makes from a router's log lines",
    )
    parser.add_argument("log", help="file with syslog lines, as sent on the wire or as printed by logread")
    parser.add_argument("--transport", choices=["tcp", "udp"], default="tcp")
    parser.add_argument("--sender", help="the router's name, in place of the one in the lines")
    parser.add_argument("--wait", type=float, default=60, help="seconds to wait for the end")
    options = parser.parse_args()

    with open(options.log, "rb") as file:
        raw = [line.rstrip(b"\r\n") for line in file]
    names = Names(options.sender)
    lines = [on_the_wire(line, names) for line in raw if line]
    print(f"replay: {len(lines)} lines to {COLLECTOR[0]}:{COLLECTOR[1]}/{options.transport}", file=sys.stderr)
    try:
        begin = time.monotonic()
        send(lines, options.transport)
        through(names, 0, options.transport, options.wait)
        print(f"replay: processed after {time.monotonic() - begin:.1f} s", file=sys.stderr)
        found = [d for d in lab.documents(names.query) if "-end" not in d["observer"]["hostname"]]
        for document in sorted(found, key=lambda d: (d["source"].get("port", -1), d["@timestamp"])):
            print(json.dumps(names.restore(document), sort_keys=True))
        print(f"replay: {len(found)} flow documents", file=sys.stderr)
    finally:
        clean_up(names)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (lab.LabError, OSError) as error:
        sys.exit(f"replay: {error}")
