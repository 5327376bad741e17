"""One alert: its text, and the link to the dashboard that shows it."""

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
    """A message. Its id stays the same when it is sent again."""

    id: str
    rule: str
    state: str  # ALERT, WELL, MORE or TEST
    device: str  # the device, router or machine; may be empty
    what: str
    since: str  # ISO 8601, UTC
    title: str
    text: str
    link: str = ""
    manufacturer: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the message as a webhook gets it."""
        return asdict(self)

    @classmethod
    def of(cls, read: dict[str, typing.Any]) -> Message:
        """Return the message from the result of as_json(). Raise TypeError if it is another object."""
        return cls(**read)


def identify(*parts: object) -> str:
    """Return an id that depends on these parts only."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:20]


def text(settings: Settings, paragraphs: list[str], since: float, link: str) -> str:
    """Return the body of a message; since: seconds since 1970."""
    lines = [*filter(None, paragraphs), f"Since: {settings.clock(since)}"]
    return "\n".join([*lines, f"Look: {link}"] if link else lines)


def link(settings: Settings, page: str, begin: float, end: float, **filters: str | None) -> str:
    """Return the address of a dashboard with a time range (seconds since 1970) and a filter of fields.

    page: the dashboard's id without wrtflow-. filters: in a field's name, __ stands for a dot; None leaves the field
    out.
    """
    if not settings.kibana_url:
        return ""
    kuery = " and ".join(
        f"{name.replace('__', '.')}: {_kuery(value)}" for name, value in filters.items() if value
    )
    states = {"_g": f"(time:(from:{_rison(iso(begin))},to:{_rison(iso(end))}))"}
    if kuery:
        states["_a"] = f"(query:(language:kuery,query:{_rison(kuery)}))"
    # Quote everything, so that no mail program ends the link at a bracket or a quotation mark.
    query = urllib.parse.urlencode(states, quote_via=urllib.parse.quote)
    return f"{settings.kibana_url.rstrip('/')}/app/dashboards#/view/wrtflow-{page}?{query}"


def _kuery(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _rison(value: str) -> str:
    return "'" + re.sub(r"([!'])", r"!\1", value) + "'"
