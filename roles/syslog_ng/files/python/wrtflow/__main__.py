"""The collector's command line tool, for its administrator.

wrtflow check [FILE]    prints everything that is wrong with a settings file, and then exits 1
wrtflow health          prints the collector's state; exits 1 if something is wrong
wrtflow ledger          counts the flows from the router's kernel to Elasticsearch; exits 1 if any were lost
wrtflow spool list      prints the documents that Elasticsearch refused, and why
wrtflow spool resend    sends them again; run it when the cause is fixed
"""

from __future__ import annotations

import argparse
import fcntl
import json
import re
import sqlite3
import subprocess
import sys
import time
import typing
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from wrtflow import health, ledger, settings, store
from wrtflow.state import Spool

# The record is written every few seconds.
_STALE = 60
# Members of it that are no objects.
_PLAIN = ("written", "pid")
# The table that closes the ports, if the role has put one. An entry of its sets lasts an hour.
FIREWALL = Path("/etc/syslog-ng/wrtflow/firewall.nft")
_TABLE = ("nft", "--json", "list", "table", "inet", "wrtflow")


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="wrtflow", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", help=f"default: {settings.FILE}")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("check", help="print everything that is wrong with a settings file")
    command.add_argument("file", nargs="?", help=f"default: {settings.FILE}")
    command = commands.add_parser("health", help="print the collector's state")
    command.add_argument("--json", action="store_true", help="print the record as JSON")
    command = commands.add_parser("ledger", help="count what came in and what became of it")
    when = "90m, 24h or 7d ago, or a time as 2026-12-01T08:00 (this machine's zone)"
    command.add_argument("--since", type=_moment, default="24h", help=f"{when}; default: 24h")
    command.add_argument("--until", type=_moment, default="0m", help="likewise; default: now")
    command.add_argument("--json", action="store_true", help="print the sums as JSON")
    command = commands.add_parser("spool", help="look after the documents that Elasticsearch refused")
    command.add_argument("action", choices=["list", "resend"])
    command.add_argument("--json", action="store_true", help="print whole documents, one JSON object a line")
    chosen = parser.parse_args(arguments)
    if chosen.command == "check":
        return settings.check(chosen.file or chosen.settings)
    try:
        loaded = settings.load(chosen.settings)
        if chosen.command == "health":
            return _health(loaded, chosen.json)
        if chosen.command == "ledger":
            return _ledger(loaded, chosen.since, chosen.until, chosen.json)
        spool = Spool(loaded.state_file("refused.sqlite"))
        return _list(spool, chosen.json) if chosen.action == "list" else _resend(loaded, spool)
    except (settings.SettingsError, sqlite3.Error, OSError) as error:
        print(f"wrtflow: {error}", file=sys.stderr)
        return 1


def _moment(text: str) -> float:
    """Return seconds since 1970. ValueError: it is no time."""
    if found := re.fullmatch(r"(\d{1,6})([mhd])", text):
        return time.time() - int(found[1]) * {"m": 60, "h": 3600, "d": 86400}[found[2]]
    return datetime.fromisoformat(text).timestamp()


def _health(loaded: settings.Settings, as_json: bool) -> int:
    path = loaded.state_file("health.json")
    record = _usable(health.read(path)) | {"firewall": _firewall(), "connections": health.connections()}
    record["faults"] = list(_faults(path, record))
    if as_json:
        print(json.dumps(record, indent=1))
    else:
        for name, value in _flat(record):
            print(f"{name:<40} {value}")
    return 1 if record["faults"] else 0


def _usable(record: Mapping[str, typing.Any]) -> dict[str, typing.Any]:
    """Return the parts of a record that have the right type; nothing if it does not say when it was written."""
    try:
        datetime.fromisoformat(record["written"]).timestamp()
    except (LookupError, TypeError, ValueError, OverflowError):
        return {}
    return {name: part for name, part in record.items() if isinstance(part, dict) or name in _PLAIN}


def _firewall() -> dict[str, object]:
    """Return the refused packets of the last hour by address: of strangers, of routers with too many connections."""
    if not FIREWALL.exists():
        return {}
    try:
        listed = subprocess.run(_TABLE, capture_output=True, check=True, timeout=10).stdout
        entries = json.loads(listed)["nftables"]
    except (OSError, ValueError, subprocess.SubprocessError):
        return {"loaded": False}
    if not {"input", "routers"} <= {entry["rule"]["chain"] for entry in entries if "rule" in entry}:
        return {"loaded": False}
    refused: dict[str, dict[str, int]] = {"strangers": {}, "greedy": {}}
    for each in (entry["set"] for entry in entries if "set" in entry):
        # There is a set of each kind for IPv4 and one for IPv6.
        if (kind := each["name"][:-1]) in refused:
            elements = (item["elem"] for item in each.get("elem", ()))
            refused[kind].update((element["val"], element["counter"]["packets"]) for element in elements)
    return {"loaded": True, **refused}


def _faults(path: Path, record: Mapping[str, typing.Any]) -> Iterator[str]:
    """Tell what is wrong, one sentence each."""
    if "written" not in record:
        yield f"there is no health record in {path}: syslog-ng does not run with wrtflow's configuration"
        return
    age = time.time() - datetime.fromisoformat(record["written"]).timestamp()
    if age > _STALE:
        yield f"the health record is {round(age)} s old: syslog-ng does not run"
    yield from health.faults(record)


def _flat(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield from ((name, inner) for inner in value)
    elif value not in (None, "", {}):
        yield name, value


def _ledger(loaded: settings.Settings, since: float, until: float, as_json: bool) -> int:
    sums = ledger.read(loaded.state_file("state.sqlite"), since, until)
    differences = [{"lost": lost, "what": sentence} for lost, sentence in sums.differences()]
    print(
        json.dumps({**vars(sums), "differences": differences}, indent=1)
        if as_json
        else "\n".join(sums.lines())
    )
    return 1 if any(each["lost"] for each in differences) else 0


def _list(spool: Spool, as_json: bool) -> int:
    for each in spool.documents():
        why = f"{each.status} {each.kind}: {each.reason}"
        line = f"{health.timestamp(each.when)} {each.index} {each.id} {why}"
        print(json.dumps(vars(each)) if as_json else line)
    return 0


def _resend(loaded: settings.Settings, spool: Spool) -> int:
    with open(loaded.state_file("resend.lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sending = store.Store(loaded.delivery, spool)
        try:
            sending.resend()
        except store.Unavailable as unavailable:
            print(f"wrtflow: {unavailable} What is not sent stays in the spool.", file=sys.stderr)
        indexed, there, refused = (sending.numbers[name] for name in ("indexed", "duplicates", "refused"))
        print(f"{indexed} indexed, {there} there already, {refused} refused again")
        return 1 if spool.size()[0] else 0


if __name__ == "__main__":
    sys.exit(main())
