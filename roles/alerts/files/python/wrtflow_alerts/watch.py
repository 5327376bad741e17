"""One look at chain and house, and the alerts that come of it."""

from __future__ import annotations

import json
import time
import typing
from collections.abc import Callable
from pathlib import Path

from wrtflow_alerts import chain, house, message, post
from wrtflow_alerts.memory import Memory, say
from wrtflow_alerts.message import ALERT, WELL, Message, identify
from wrtflow_alerts.rules import Rule, silenced
from wrtflow_alerts.settings import Settings, iso
from wrtflow_alerts.storage import Json, Storage, StorageError

_DAY = 86400

# Seconds that a look goes back at most, even if flows have waited longer.
_LONGEST = 7 * _DAY

# Characters of a headline.
_TITLE = 200


def record(path: str | Path, now: float) -> Json:
    """Return the health record in a file; an empty one if the file is missing or old."""
    try:
        if now - Path(path).stat().st_mtime > chain.STALE:
            return {}
        read = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return typing.cast(Json, read) if isinstance(read, dict) else {}


class Watch:
    """Checks chain and house, and sends alerts."""

    def __init__(self, settings: Settings, rules: dict[str, Rule], memory: Memory) -> None:
        """Take settings, rules, and the memory, which each look updates."""
        self._settings, self._rules, self._memory = settings, rules, memory
        self._storage = Storage(settings)

    def look(self, health: Json, save: Callable[[], None]) -> None:
        """Look once, and send alerts. health: the output of `wrtflow health --json`. save: writes the memory."""
        now = time.time()
        found = chain.look(self._rules, self._storage, health, self._memory.heard, now)
        self._conditions(found, now)
        self._events(found, now)
        save()
        post.deliver(self._settings, self._memory, save, now)

    # --- the chain ----------------------------------------------------------------------------------------------------

    def _conditions(self, found: chain.Found, now: float) -> None:
        """Report faults that have lasted long enough, and faults that are over."""
        wrong = self._memory.wrong
        present = {
            each.name: each
            for each in found.wrong
            if not silenced(each.rule, [each.device], self._settings.silenced)
        }
        for name, each in present.items():
            known = wrong.setdefault(
                name, {"rule": each.rule, "device": each.device, "found": now, "since": each.since or now}
            )
            known.update({"what": each.what, "router": each.router, "gone": None})
            # A fault with a time of its own has already lasted for `after` minutes.
            if not known.get("title") and now - known["found"] >= self._after(each) * 60:
                self._tell(known, now)
        for name, known in list(wrong.items()):
            rule = self._rules.get(known["rule"])
            if name in present or (rule and known["rule"] in found.unknown):
                continue
            known["gone"] = known.get("gone") or now
            untold = not known.get("title") or rule is None
            if untold or silenced(known["rule"], [known["device"]], self._settings.silenced):
                del wrong[name]
            elif rule and now - known["gone"] >= rule.calm * 60:
                self._well(known)
                del wrong[name]

    def _after(self, condition: chain.Condition) -> float:
        return 0 if condition.since else self._rules[condition.rule].after

    def _tell(self, known: Json, now: float) -> None:
        rule = self._rules[known["rule"]]
        known["title"] = rule.say.format(device=known["device"], what=known["what"])
        look = message.link(
            self._settings, "health", known["since"] - 3600, now, observer__hostname=known.get("router")
        )
        self._put(
            ALERT, rule.name, known["device"], known["what"], known["since"], known["title"], [rule.do], look
        )

    def _well(self, known: Json) -> None:
        rule = self._rules[known["rule"]]
        title = f"Well again: {rule.well.format(device=known['device'], what=known['what'])}"
        minutes = round((known["gone"] - known["since"]) / 60)
        span = f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"
        end = self._settings.clock(known["gone"])
        look = message.link(
            self._settings,
            "health",
            known["since"] - 3600,
            known["gone"] + 3600,
            observer__hostname=known.get("router"),
        )
        said = f'"{known["title"]}" is over since {end}, after {span}.'
        self._put(WELL, known["rule"], known["device"], known["what"], known["since"], title, [said], look)

    # --- the house ----------------------------------------------------------------------------------------------------

    def _events(self, found: chain.Found, now: float) -> None:
        """Report the events since the last look."""
        memory = self._memory
        # If the clock was ahead and is set back, memory.since may be in the future.
        since = now if memory.since is None else max(min(memory.since, now), now - _LONGEST)
        try:
            events = house.look(self._rules, self._storage, memory.known, since, now)
        except StorageError as error:
            # The rule storage-away reports it. The next look begins at the same time.
            if memory.away.get("storage") != str(error):
                memory.away["storage"] = str(error)
                say(4, str(error))
            memory.since = since
            return
        memory.away.pop("storage", None)
        # Flows that wait in the collector will be stored with an earlier time.
        memory.since = now if found.well else since
        for event in events:
            rule = self._rules[event.rule]
            told = event.key in memory.told
            memory.told[event.key] = now
            names = [event.device, *event.macs, *event.addresses]
            if not told and not silenced(event.rule, names, self._settings.silenced):
                self._event(rule, event)
        for key, seen in list(memory.told.items()):
            rule_of = self._rules.get(key.partition("/")[0])
            if now - seen > max(rule_of.days if rule_of else 0, 2) * _DAY:
                del memory.told[key]

    def _event(self, rule: Rule, event: house.Event) -> None:
        title = rule.say.format(device=event.device, what=event.what)
        look = message.link(
            self._settings, "device", event.at - 3600, event.at + 3600, wrtflow__device=event.device,
            destination__geo__country_iso_code=event.country, destination__port=event.port,
        )  # fmt: skip
        who = ", ".join(filter(None, [event.manufacturer and f"made by {event.manufacturer}", *event.macs]))
        about = f"{event.device}: {who}." if who else ""
        if event.rule == "new-device":
            about = f"{event.device}: {event.what}."
        self._put(
            ALERT, rule.name, event.device, event.what, event.at, title, [about, rule.do], look, event.manufacturer
        )  # fmt: skip

    def _put(
        self, state: str, rule: str, device: str, what: str, since: float, title: str, said: list[str], look: str,
        manufacturer: str = "",
    ) -> None:  # fmt: skip
        number = identify(state, rule, device, what, since)
        # One line: it becomes a mail's subject.
        title = " ".join(title.split())
        title = title if len(title) <= _TITLE else f"{title[:_TITLE]} …"
        whole = message.text(self._settings, [title, *said], since, look)
        post.put(
            self._memory,
            Message(number, rule, state, device, what, iso(since), title, whole, look, manufacturer),
        )
