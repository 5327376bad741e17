"""Who registered a site's name and who made a device, by the registries' lists that Debian packages."""

from __future__ import annotations

import csv
import functools
import typing
from collections.abc import Callable
from pathlib import Path

import publicsuffix2  # type: ignore[import-untyped]

from wrtflow import health

_List = typing.TypeVar("_List")

#: Debian's package ieee-data: IEEE's registries of MAC prefixes of 24, 28 and 36 bits.
IEEE = Path("/usr/share/ieee-data")
_LISTS = ("oui.csv", "mam.csv", "oui36.csv")
# Hexadecimal digits of a prefix, the longest first: a registered block may be sold in parts.
_LENGTHS = (9, 7, 6)

# The owner of the blocks that are sold in parts: nobody's maker.
_NOBODY = "IEEE Registration Authority"

#: A MAC that the device chose itself (the locally administered bit is set), as phones do.
PRIVATE = "private MAC address"


class Registries:
    """Both lists. A list that can't be read leaves its field out and is reported in the log."""

    def __init__(self, ieee: Path = IEEE) -> None:
        """Read the lists. ieee: the folder of IEEE's."""
        self.registered_domain = functools.lru_cache(4096)(self._registered_domain)
        self.manufacturer = functools.lru_cache(4096)(self._manufacturer)
        self._suffixes = _whole(publicsuffix2.PublicSuffixList)
        self._makers: dict[str, str] = {}
        for name in _LISTS:
            self._makers |= _whole(functools.partial(_makers, ieee / name)) or {}

    def _registered_domain(self, name: str) -> str | None:
        """Return the part of a site's name that its owner registered; None for a public suffix itself.

        The rules are those of publicsuffix.org; a top-level domain that is not listed is a public suffix.
        """
        if self._suffixes is None:
            return None
        suffix = self._suffixes.get_tld(name, strict=True)
        labels = name.split(".")
        owned = len(labels) - 1 - (suffix.count(".") + 1 if suffix else 1)
        return ".".join(labels[owned:]) if owned >= 0 else None

    def _manufacturer(self, mac: str) -> str | None:
        """Return who made the device with this MAC (AA-BB-CC-DD-EE-FF), None where no registry knows it."""
        digits = mac.replace("-", "")
        if int(digits[1], 16) & 2:
            return PRIVATE
        found = (self._makers.get(digits[:length]) for length in _LENGTHS)
        return next(filter(None, found), None)


def _makers(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        makers = {row["Assignment"]: row["Organization Name"].strip() for row in csv.DictReader(file)}
    return {prefix: maker for prefix, maker in makers.items() if maker != _NOBODY}


def _whole(read: Callable[[], _List]) -> _List | None:
    try:
        return read()
    # What a damaged list may raise is nowhere written.
    except Exception as error:
        health.say(health.ERROR, f"A list of site names or MAC prefixes can't be read ({error!r}).")
        return None
