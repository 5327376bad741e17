"""What the collector says about itself: sentences in the journal, and the health record.

The record is one JSON object in a file, written every few seconds and at once when something changes. Each part of
the collector registers a function that reports its numbers; the record has all reports by name.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import json
import math
import os
import re
import socket
import threading
import time
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ERROR, WARNING, NOTICE = 3, 4, 5
CONTROL_SOCKET = "/var/lib/syslog-ng/syslog-ng.ctl"
# Seconds between two sentences of a kind, and between two records.
_RARELY, _PERIOD = 3600, 5

Report = Mapping[str, object]

# When each kind was said rarely() last.
_said: dict[str, float] = {}
_reports: dict[str, Callable[[], Report]] = {}
_last: dict[str, object] = {}
_writer: _Writer | None = None


def say(level: int, sentence: str) -> None:
    """Write a sentence to the journal. level: ERROR, WARNING or NOTICE."""
    # Not through syslog-ng's own logger: Debian keeps its internal messages out of the journal.
    line = f"<{level}>wrtflow: {' '.join(sentence.split())}\n"
    with contextlib.suppress(OSError):
        os.write(2, line.encode(errors="replace"))


class Condition:
    """Something that is right or wrong. The journal gets a sentence for each change."""

    def __init__(self, mended: str) -> None:
        """mended: the sentence for when it is right again."""
        self._mended = mended
        self.fault: str | None = None
        self.sentence: str | None = None
        # Seconds since 1970.
        self.since = time.time()

    def wrong(self, fault: str, sentence: str) -> None:
        """Say the sentence, unless this fault is the one that was last said."""
        if fault == self.fault:
            return
        if self.fault is None:
            self.since = time.time()
        self.fault, self.sentence = fault, sentence
        say(ERROR, sentence)
        changed()

    def right(self) -> None:
        """Say that it is right again, if it was wrong."""
        if self.fault is None:
            return
        now = time.time()
        say(NOTICE, f"{self._mended} (after {datetime.timedelta(seconds=round(now - self.since))}).")
        self.fault, self.sentence, self.since = None, None, now
        changed()

    def report(self) -> dict[str, str]:
        """Return fault, the sentence of what is wrong now, for the health record; nothing if it is right."""
        return {"fault": self.sentence} if self.sentence else {}


def rarely(kind: str, level: int, sentence: str) -> None:
    """Say the sentence, unless one of this kind has been said within the hour."""
    now = time.monotonic()
    if now - _said.get(kind, -math.inf) >= _RARELY:
        _said[kind] = now
        say(level, sentence)
        changed()


def register(name: str, report: Callable[[], Report]) -> None:
    """Make report() the part of the record called name, in place of an earlier one. It is called in another thread."""
    _reports[name] = report


def collect() -> dict[str, object]:
    """Return the record as it is now."""
    global _last
    record: dict[str, object] = {"written": timestamp(time.time()), "pid": os.getpid()}
    for name, report in sorted(_reports.items()):
        try:
            record[name] = dict(report())
        except Exception as error:
            # One part that can't report must not take the others' numbers away.
            record[name] = {"fault": f"{type(error).__name__}: {error}"}
    _last = record
    return record


def last() -> dict[str, object]:
    """Return the record that was collected last; an empty one where none was."""
    return _last


def faults(record: Mapping[str, typing.Any]) -> Iterator[str]:
    """Tell what is wrong in a record, one sentence each."""
    for name, report in record.items():
        if isinstance(report, dict) and report.get("fault"):
            yield f"{name}: {report['fault']}"
    parts = ("queue", "firewall", "connections", "flows", "senders", "delivery")
    queue, firewall, connections, flows, senders, delivery = (record.get(name, {}) for name in parts)
    if queue.get("dropped"):
        yield f"{queue['dropped']} documents were dropped since syslog-ng's start: the disk buffer was full"
    if firewall.get("loaded") is False:
        table = "nftables has no table inet wrtflow: see `systemctl status wrtflow-firewall`"
        yield f"the ports are open to everybody, because {table}"
    if firewall.get("strangers"):
        called = f"within the last hour {_some(firewall['strangers'])} called and was refused"
        yield f"{called}: if that is a router, it belongs into syslog_ng_allowed_routers"
    if firewall.get("greedy"):
        yield f"within the last hour {_some(firewall['greedy'])} wanted too many connections, which were refused"
    if connections and connections["now"] >= connections["most"]:
        yield f"all {connections['most']} TCP connections are taken: routers are refused (`ss -tn` shows by whom)"
    if senders.get("strangers") and not flows.get("lines"):
        called = f"{senders['strangers']} lines came, and none from a router"
        yield f"{called}: are its addresses, as this machine sees them, in syslog_ng_allowed_routers?"
    if delivery.get("reason"):
        waiting = f" Now {queue['waiting']} documents are queued." if queue.get("waiting") else ""
        yield f"{delivery['reason']}{waiting}"
    if kept := delivery.get("spool", {}).get("documents"):
        yield f"{kept} refused documents are kept: see `wrtflow spool list`"


def _some(addresses: Mapping[str, int]) -> str:
    """Name the busiest addresses."""
    named = ", ".join(address for address, _ in collections.Counter(addresses).most_common(3))
    return f"{named} and {len(addresses) - 3} more" if len(addresses) > 3 else named


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def start(path: Path) -> None:
    """Have the record written to path every few seconds, from now until the process ends."""
    global _writer
    if _writer is None:
        _writer = _Writer(path)
        _writer.start()
    _writer.path = path


def changed() -> None:
    """Have the record written now."""
    if _writer:
        _writer.due.set()


class _Writer(threading.Thread):
    def __init__(self, path: Path) -> None:
        super().__init__(name="wrtflow-health", daemon=True)
        self.path = path
        self.due = threading.Event()

    def run(self) -> None:
        failing = Condition("The health record is written again")
        while True:
            try:
                write(self.path, collect())
                failing.right()
            except Exception as error:
                failing.wrong("write", f"The health record {self.path} can't be written: {error}.")
            self.due.wait(_PERIOD)
            self.due.clear()


def write(path: Path, record: Report) -> None:
    """Replace the file at path by the record: a reader sees the old one or the new one."""
    new = path.with_name(f"{path.name}.new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        print(json.dumps(record, indent=1), file=file)
    new.replace(path)


def read(path: Path) -> dict[str, object]:
    """Return the record at path; an empty one where there is none that can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def queue() -> dict[str, int]:
    """Ask syslog-ng for the numbers of the store's disk buffer; empty if it does not answer.

    waiting, dropped: messages; bytes, capacity: of the file.
    """
    told = control("STATS PROMETHEUS")
    found = {}
    for name, pattern in (
        ("waiting", r'output_events_total\{(?=.*result="queued")'),
        ("dropped", r'output_events_total\{(?=.*result="dropped")'),
        ("bytes", r"disk_queue_disk_usage_bytes\{"),
        ("capacity", r"disk_queue_capacity_bytes\{"),
    ):
        line = rf'^syslogng_{pattern}.*class="wrtflow\.parsers\.Elasticsearch".*\}} (\d+)$'
        if match := re.search(line, told, re.MULTILINE):
            found[name] = int(match[1])
    return found


def connections() -> dict[str, int]:
    """Ask syslog-ng for the TCP connections to its fullest port, and how many a port takes; empty if no answer."""
    pattern = r'^syslogng_socket_{}\{{.*id="s_wrtflow_.* (\d+)$'
    told = control("STATS PROMETHEUS")
    now, most = (
        [int(number) for number in re.findall(pattern.format(name), told, re.MULTILINE)]
        for name in ("connections", "max_connections")
    )
    return {"now": max(now), "most": max(most)} if now and most else {}


def received() -> int | None:
    """Ask syslog-ng for the number of lines from all senders since its start; None if it does not answer."""
    line = r"^source;s_wrtflow_(?:syslog|json);;a;processed;(\d+)$"
    found = re.findall(line, control("STATS CSV"), re.MULTILINE)
    return sum(map(int, found)) if found else None


def control(command: str) -> str:
    """Give syslog-ng a command on its control socket and return the answer; empty if none comes within a second."""
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(CONTROL_SOCKET)
            connection.sendall(command.encode() + b"\n")
            while not answer.endswith(b"\n.\n"):
                part = connection.recv(65536)
                if not part:
                    return ""
                answer += part
    except OSError:
        return ""
    return answer.decode(errors="replace")
