"""The settings of alerts and letter: one JSON file that the role writes."""

from __future__ import annotations

import datetime
import json
import typing
import zoneinfo
from dataclasses import dataclass, field
from pathlib import Path

FILE = "/etc/wrtflow/alerts.json"

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class Settings:
    """The role's variables. An empty address switches that receiver off."""

    elasticsearch_url: str
    elasticsearch_ca: str
    elasticsearch_key: str = field(repr=False)
    index_prefix: str = "network"
    kibana_url: str = ""
    timezone: str = ""
    webhook_url: str = field(default="", repr=False)
    webhook_token: str = field(default="", repr=False)
    ntfy_url: str = field(default="", repr=False)
    ntfy_token: str = field(default="", repr=False)
    mail_to: tuple[str, ...] = ()
    mail_from: str = ""
    sendmail: str = "/usr/sbin/sendmail"
    silenced: tuple[str, ...] = ()
    at_most: int = 6
    letter_to: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> Settings:
        """Read the file. Raise OSError, ValueError or TypeError if it is not as the role writes it."""
        read: dict[str, typing.Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        lists = {name: tuple(value) for name, value in read.items() if isinstance(value, list)}
        return cls(**{**read, **lists})

    @property
    def zone(self) -> datetime.tzinfo | None:
        """The house's time zone; None: the machine's."""
        return zoneinfo.ZoneInfo(self.timezone) if self.timezone else None

    def local(self, seconds: float) -> datetime.datetime:
        """Return a time (seconds since 1970) in the house's time zone."""
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).astimezone(self.zone)

    def clock(self, seconds: float) -> str:
        """Return a time (seconds since 1970) as text in the house's time zone: `Tue 1 Dec, 03:10`."""
        at = self.local(seconds)
        return f"{WEEKDAYS[at.weekday()]} {at.day} {MONTHS[at.month - 1]}, {at:%H:%M}"


def iso(seconds: float) -> str:
    """Return a time (seconds since 1970) as ISO 8601 in UTC, in ms."""
    at = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
