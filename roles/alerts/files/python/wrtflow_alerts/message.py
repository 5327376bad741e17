"""One alert: what it says, and the link to the dashboard that shows it."""

from __future__ import annotations

import hashlib
import re
import typing
import urllib.parse
from dataclasses import asdict, dataclass

from wrtflow_alerts.settings import Settings, iso

ALERT, WELL, MORE, TEST = "alert", "well again", "more", "test"


@dataclass(frozen=True)
class Message:
    """What a person gets. Its id stays the same when it is sent again."""

    id: str
    rule: str
    state: str  # ALERT, WELL, MORE or TEST
    device: str  # the device, router or machine; empty where it is about none
    what: str
    since: str  # ISO 8601, UTC
    title: str
    text: str
    link: str = ""
    manufacturer: str = ""

    def as_json(self) -> dict[str, str]:
        """Return it as a webhook gets it."""
        return asdict(self)

    @classmethod
    def of(cls, read: dict[str, typing.Any]) -> Message:
        """Return the message that as_json() gave. TypeError where it is none."""
        return cls(**read)


def identify(*parts: object) -> str:
    """Return the id of what these parts tell apart from everything else."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:20]


def text(settings: Settings, paragraphs: list[str], since: float, link: str) -> str:
    """Return the body of a message; since: seconds since 1970."""
    lines = [*filter(None, paragraphs), f"Since: {settings.clock(since)}"]
    return "\n".join([*lines, f"Look: {link}"] if link else lines)


def link(settings: Settings, page: str, begin: float, end: float, **filters: str | None) -> str:
    """Return the address of a dashboard with a time range (seconds since 1970) and fields that have to match.

    page: what follows wrtflow- in the dashboard's id. A field's name has __ for its dots; None leaves the field out.
    """
    if not settings.kibana_url:
        return ""
    kuery = " and ".join(
        f"{name.replace('__', '.')}: {_kuery(value)}" for name, value in filters.items() if value
    )
    states = {"_g": f"(time:(from:{_rison(iso(begin))},to:{_rison(iso(end))}))"}
    if kuery:
        states["_a"] = f"(query:(language:kuery,query:{_rison(kuery)}))"
    # Whole, so that no mail program ends the link at a bracket or a quote.
    query = urllib.parse.urlencode(states, quote_via=urllib.parse.quote)
    return f"{settings.kibana_url.rstrip('/')}/app/dashboards#/view/wrtflow-{page}?{query}"


def _kuery(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _rison(value: str) -> str:
    return "'" + re.sub(r"([!'])", r"!\1", value) + "'"
