"""The chain's faults, from the collector's health record and from Elasticsearch."""

from __future__ import annotations

import os
import re
import shutil
import typing
from dataclasses import dataclass, field
from datetime import datetime

from wrtflow_alerts.rules import Rule
from wrtflow_alerts.settings import iso
from wrtflow_alerts.storage import Json, Storage, StorageError

# Seconds after which an old health record is a fault of its own.
STALE = 180

# A router without a flow for this many days is not missed any more.
_DAYS = 7

# Parts of those sentences of `wrtflow health` that have a rule of their own.
_TOLD = ("called and was refused", "none from a router", "refused documents are kept")


@dataclass(frozen=True)
class Condition:
    """A fault of the chain now."""

    rule: str
    device: str
    what: str
    since: float | None = None  # seconds since 1970; None: since it was found first
    key: str = ""  # distinguishes faults of the same rule and device
    router: str | None = None

    @property
    def name(self) -> str:
        """Return the fault's identity, which stays the same while it lasts."""
        return f"{self.rule}/{self.device}/{self.key}"


@dataclass
class Found:
    """The result of one look."""

    wrong: list[Condition] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)  # rules that could not be checked this time
    well: bool = True  # whether every finished flow is stored


def look(rules: dict[str, Rule], storage: Storage, record: Json, heard: Json, now: float) -> Found:
    """Check everything once.

    record: the output of `wrtflow health --json`. heard: the counter of lines at the last look; it is updated. now:
    seconds since 1970.
    """
    found = Found()
    machine = os.uname().nodename
    _record(found, rules, record, machine, now)
    silent = _lines(found, rules, record, heard, now)
    try:
        _storage(found, rules, storage, machine, heard, now, silent)
    except StorageError as error:
        # The collector reports the same fault of its delivery.
        reason = str((record.get("delivery") or {}).get("reason") or "-")
        found.wrong = [each for each in found.wrong if not each.what.startswith(reason)]
        found.wrong.append(Condition("storage-away", machine, str(error)))
        found.unknown |= {"nothing-indexed", "disk"} | (set() if silent else {"router-silent"})
        found.well = False
    return Found([each for each in found.wrong if each.rule in rules], found.unknown, found.well)


def _record(found: Found, rules: dict[str, Rule], record: Json, machine: str, now: float) -> None:
    """Check the health record."""
    if not record:
        found.wrong.append(Condition("fault", machine, "it has no health record", key="record"))
        found.unknown |= {"refused", "database-old", "strangers"}
        found.well = False
        return
    parts: dict[str, Json] = {
        name: part if isinstance(part := record.get(name), dict) else {}
        for name in ("queue", "delivery", "databases", "firewall", "senders", "flows")
    }
    queue, delivery = parts["queue"], parts["delivery"]
    found.well = not queue.get("waiting") and not delivery.get("reason")
    if kept := _number(delivery.get("spool", {}), "documents"):
        found.wrong.append(Condition("refused", machine, f"{kept:.0f} are kept in the spool"))
    strangers = parts["firewall"].get("strangers") or {}
    for address in strangers:
        what = f"{address} was refused within the last hour"
        found.wrong.append(Condition("strangers", str(address), what))
    if not strangers and _number(parts["senders"], "strangers") and not _number(parts["flows"], "lines"):
        what = f"{parts['senders']['strangers']} lines came, and none from a router"
        found.wrong.append(Condition("strangers", machine, what))
    if rule := rules.get("database-old"):
        for name, days in parts["databases"].items():
            if isinstance(days, (int, float)) and days > rule.days:
                found.wrong.append(Condition("database-old", name, f"it was built {days:.0f} days ago"))
    if rule := rules.get("disk"):
        if (share := _used("/var/lib")) * 100 >= rule.full:
            found.wrong.append(Condition("disk", machine, f"it is {share:.0%} full"))
        taken, capacity = _number(queue, "bytes"), _number(queue, "capacity")
        if capacity and taken * 100 >= rule.full * capacity and queue.get("waiting"):
            what = f"the disk buffer is {taken / capacity:.0%} full, {queue['waiting']} flows wait in it"
            found.wrong.append(Condition("disk", machine, what, key="buffer"))
    for sentence in record.get("faults", []):
        if not any(told in sentence for told in _TOLD):
            found.wrong.append(Condition("fault", machine, str(sentence), key=_lasting(str(sentence))))


def _lasting(sentence: str) -> str:
    """Return a sentence without its numbers and addresses, which change from minute to minute."""
    changing = re.sub(r"[0-9a-f.:]*\d[0-9a-f.:]*", "#", sentence)
    return re.sub(r"#(, #)*( and # more)?", "#", changing)


def _lines(found: Found, rules: dict[str, Rule], record: Json, heard: Json, now: float) -> bool:
    """Check whether any lines come. Return whether they have stopped."""
    rule = rules.get("router-silent")
    flows = record.get("flows")
    if rule is None or not isinstance(flows, dict) or "lines" not in flows:
        return False
    before = heard.get("pid"), heard.get("lines")
    heard["pid"], heard["lines"] = record.get("pid"), flows["lines"]
    if age(record, now) > STALE:
        # The collector does not run: that is the fault, and routers can't be judged.
        heard["at"] = now
        found.unknown.add("router-silent")
        return False
    # After a start the counter begins at 0.
    if (
        "at" not in heard
        or (heard["pid"] == before[0] and heard["lines"] != before[1])
        or (heard["pid"] != before[0] and heard["lines"])
    ):
        heard["at"] = now
    at = _number(heard, "at")
    if now - at < rule.after * 60:
        return False
    known = heard.get("routers", [])
    what = f"no line has come for {round((now - at) / 60)} minutes"
    one = known[0] if len(known) == 1 else None
    found.wrong.append(Condition("router-silent", one or "Every router", what, at, "lines", one))
    return True


def _storage(
    found: Found,
    rules: dict[str, Rule],
    storage: Storage,
    machine: str,
    heard: Json,
    now: float,
    silent: bool,
) -> None:
    """Check Elasticsearch's disks and its newest flows."""
    if rule := rules.get("disk"):
        for name, share in storage.disks().items():
            if share * 100 >= rule.full:
                what = f"it is {share:.0%} full"
                for month, octets in list(storage.months().items())[:1]:
                    what += f"; deleting {month} frees {octets / 1e9:.1f} GB"
                found.wrong.append(Condition("disk", name, what))
    # An access point has no flow while nobody is near it.
    recent: list[Json] = [
        {"term": {"observer.type": "router"}},
        {"range": {"@timestamp": {"gte": iso(now - _DAYS * 86400)}}},
    ]
    newest = {"max": {"field": "@timestamp"}}
    routers = {"terms": {"field": "observer.hostname", "size": 256}, "aggs": {"last": newest}}
    answer = storage.search(recent, {"routers": routers})
    last = {
        bucket["key"]: bucket["last"]["value"] / 1000
        for bucket in answer.get("routers", {}).get("buckets", [])
    }
    heard["routers"] = sorted(last)
    if not last or silent:
        # No line comes from any router: the other checks would report the same fault.
        return
    rule = rules.get("nothing-indexed")
    if rule and now - max(last.values()) >= rule.after * 60:
        minutes = round((now - max(last.values())) / 60)
        what = f"the newest one is {minutes} minutes old"
        found.wrong.append(Condition("nothing-indexed", machine, what, since=max(last.values())))
        return
    rule = rules.get("router-silent")
    if not found.well:
        # Flows wait in the collector, so a router without new flows may not be silent.
        found.unknown.add("router-silent")
        return
    for name, seen in last.items() if len(last) > 1 else ():
        if rule and now - seen >= rule.after * 60:
            what = f"it has reported no flow for {round((now - seen) / 60)} minutes"
            found.wrong.append(Condition("router-silent", name, what, since=seen, router=name))


def age(record: Json, now: float) -> float:
    """Return the age of a health record in seconds; 0 if it has no time."""
    try:
        return now - datetime.fromisoformat(record["written"]).timestamp()
    except (LookupError, TypeError, ValueError):
        return 0


def _number(part: typing.Any, name: str) -> float:
    value = part.get(name) if isinstance(part, dict) else None
    return value if isinstance(value, (int, float)) else 0


def _used(path: str) -> float:
    usage = shutil.disk_usage(path)
    return 1 - usage.free / (usage.used + usage.free) if usage.total else 0
