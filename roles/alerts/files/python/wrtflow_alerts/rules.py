"""The rules of rules.toml, and what is silenced."""

from __future__ import annotations

import re
import tomllib
import typing
from dataclasses import dataclass
from pathlib import Path

#: Rules that are built in. Any other rule names ports.
CHAIN = (
    "router-silent", "nothing-indexed", "storage-away", "disk", "refused", "database-old", "strangers", "fault",
)  # fmt: skip
HOUSE = ("new-device", "first-country")
NUMBERS = {"after": 0.0, "calm": 2.0, "full": 85.0, "days": 30.0, "first_day": 24.0}


class RulesError(Exception):
    """The file can't be used. The text says what is wrong with it."""


@dataclass(frozen=True)
class Rule:
    """One rule."""

    name: str
    say: str  # the headline, with {device} and {what}
    well: str  # the headline when it is over
    do: str  # the advice
    after: float  # minutes that the fault must last before the alert is sent
    calm: float  # minutes that the fault must be over before "well again"
    full: float  # disk: per cent
    days: float  # database-old: the age; a rule of the house: days without an event before the alert is sent again
    first_day: float  # hours in which everything is new and nothing is reported
    ports: tuple[int, ...]


def load(path: str | Path) -> dict[str, Rule]:
    """Return the rules by name. Raise RulesError if the file is wrong."""
    try:
        read = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RulesError(f"{path}: {error}") from error
    return {name: _rule(f"{path}: [{name}]", name, table) for name, table in read.items()}


def _rule(where: str, name: str, table: typing.Any) -> Rule:
    if not isinstance(table, dict):
        raise RulesError(f"{where} is no rule: a rule begins with [{name}] on a line of its own.")
    texts = ["say", "do", *(["well"] if name in CHAIN else [])]
    allowed = {*texts, "ports", *NUMBERS}
    if unknown := sorted(set(table) - allowed):
        raise RulesError(f"{where} has {', '.join(unknown)}: a rule takes {', '.join(sorted(allowed))}.")
    for key in texts:
        if not isinstance(table.get(key), str) or not table[key]:
            raise RulesError(f"{where} needs {key}: a text.")
    for key in NUMBERS.keys() & table.keys():
        if type(table[key]) not in (int, float) or table[key] < 0:
            raise RulesError(f"{where} has {key} = {table[key]!r}: it has to be a number of 0 or more.")
    ports = table.get("ports", [])
    if not isinstance(ports, list) or not all(type(port) is int and 0 < port < 65536 for port in ports):
        raise RulesError(f"{where} has ports = {ports!r}: a list of numbers from 1 to 65535.")
    if bool(ports) == (name in CHAIN + HOUSE):
        raise RulesError(
            f"{where}: a rule of your own names ports, and these don't: {', '.join(CHAIN + HOUSE)}."
        )
    try:
        for key in texts:
            table[key].format(device="", what="")
    except (LookupError, ValueError) as error:
        raise RulesError(f"{where} has more than {{device}} and {{what}} in a text: {error}") from error
    numbers = {key: float(table.get(key, default)) for key, default in NUMBERS.items()}
    return Rule(
        name=name, say=table["say"], well=table.get("well", ""), do=table["do"], ports=tuple(ports), **numbers
    )  # fmt: skip


def silenced(rule: str, devices: typing.Iterable[str], silence: typing.Iterable[str]) -> bool:
    """Tell whether silence (rules, devices, RULE/DEVICE) covers an alert about a device with these names."""
    names = {_plain(device) for device in devices if device}
    entries = {_plain(entry) for entry in silence}
    return bool(entries & ({rule} | names | {f"{rule}/{name}" for name in names}))


def _plain(name: str) -> str:
    """Return a name in the form for comparison: in lower case, MACs with hyphens."""
    lower = name.strip().lower()
    return re.sub(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}$", lambda mac: mac[0].replace(":", "-"), lower)
