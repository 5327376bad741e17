"""The collector's command line tool, for its administrator.

wrtflow health          prints how the collector is; exits 1 when something is wrong
wrtflow spool list      prints the documents that Elasticsearch refused, and why
wrtflow spool resend    sends them again, after what was wrong is mended
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from wrtflow import delivery, health, outbox, settings
from wrtflow import spool as spools

# The record is written every few seconds.
_STALE = 60


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="wrtflow", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", help=f"default: {settings.FILE}")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("health", help="print how the collector is; exit 1 when something is wrong")
    command.add_argument("--json", action="store_true", help="print the record as JSON")
    command = commands.add_parser("spool", help="look after the documents that Elasticsearch refused")
    command.add_argument("action", choices=["list", "resend"])
    command.add_argument("--json", action="store_true", help="list whole, one JSON object a line")
    chosen = parser.parse_args(arguments)
    try:
        loaded = settings.load(chosen.settings)
        if chosen.command == "health":
            return _health(loaded, chosen.json)
        spool = spools.Spool(loaded.state_file("refused"), loaded.delivery.spool_size)
        return _list(spool, chosen.json) if chosen.action == "list" else _resend(loaded, spool)
    except (settings.SettingsError, OSError) as error:
        print(f"wrtflow: {error}", file=sys.stderr)
        return 1


def _health(loaded: settings.Settings, as_json: bool) -> int:
    path = loaded.state_file("health.json")
    record = health.read(path)
    queue = delivery.queue(health.queue(), outbox.read(loaded.tally_file))
    if queue:
        record["queue"] = queue
    faults = list(_faults(path, record))
    record["faults"] = faults
    if as_json:
        print(json.dumps(record, indent=1))
    else:
        for name, value in _flat(record):
            print(f"{name:<40} {value}")
    return 1 if faults else 0


def _faults(path: Path, record: Mapping[str, object]) -> Iterator[str]:
    """Tell what is wrong, one sentence each."""
    if "written" not in record:
        yield f"there is no health record in {path}: syslog-ng does not run with wrtflow's configuration"
        return
    age = time.time() - datetime.fromisoformat(str(record["written"])).timestamp()
    if age > _STALE:
        yield f"the health record is {round(age)} s old: syslog-ng does not run"
    for name, report in record.items():
        if isinstance(report, dict) and report.get("fault"):
            yield f"{name}: {report['fault']}"
    queue = record.get("queue")
    if isinstance(queue, dict) and queue.get("dropped"):
        yield f"{queue['dropped']} documents were dropped since syslog-ng's start: the disk buffer was full"
    flows, senders = record.get("flows"), record.get("senders")
    if (
        isinstance(flows, dict)
        and isinstance(senders, dict)
        and senders.get("strangers")
        and not flows.get("lines")
    ):
        yield (
            f"{senders['strangers']} lines came, and none from a router:"
            " are its addresses, as this machine sees them, in syslog_ng_allowed_routers?"
        )
    report = record.get("delivery")
    if isinstance(report, dict):
        if report.get("reason"):
            waiting = queue.get("waiting") if isinstance(queue, dict) else None
            yield (
                f"{report['reason']} Now {waiting} documents are queued."
                if waiting
                else str(report["reason"])
            )
        kept = report.get("spool")
        if isinstance(kept, dict) and kept.get("documents"):
            yield f"{kept['documents']} refused documents are kept: see `wrtflow spool list`"


def _flat(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield from ((name, inner) for inner in value)
    elif value not in (None, "", {}):
        yield name, value


def _list(spool: spools.Spool, as_json: bool) -> int:
    for refused in spool.documents():
        if as_json:
            print(json.dumps(vars(refused)))
        else:
            print(
                f"{health.timestamp(refused.when)} {refused.index} {refused.id}"
                f" {refused.status} {refused.kind}: {refused.reason}"
            )
    return 0


def _resend(loaded: settings.Settings, spool: spools.Spool) -> int:
    with open(loaded.state_file("resend.lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sending = delivery.Delivery(loaded.delivery, spool)
        try:
            for path in spool.claim():
                documents = map(delivery.Document.of, spools.read(path))
                while batch := list(itertools.islice(documents, loaded.delivery.batch_lines)):
                    sending.settle(batch, len(batch))
                path.unlink()
        except delivery.Unavailable as unavailable:
            print(f"wrtflow: {unavailable} What is not sent stays in the spool.", file=sys.stderr)
        numbers = sending.numbers
        print(
            f"{numbers['indexed']} indexed, {numbers['duplicates']} there already, {numbers['refused']} refused again"
        )
        return 1 if spool.size()[0] else 0


if __name__ == "__main__":
    sys.exit(main())
