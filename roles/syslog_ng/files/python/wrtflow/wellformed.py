"""Names, addresses and MACs out of other people's text: the one form that wrtflow stores, or None.

Documents and dashboards show what a device calls itself: it must be a host name, and must not look like an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

# Characters of the longest line about names or devices: two names of 255 and little else.
LONGEST = 1024

# RFC 1123 with the underscores that devices do use. The last label isn't all digits: 1.2.3.4 is no name.
_HOSTNAME = re.compile(r"(?:[a-z0-9_][a-z0-9_-]{0,62}\.)*(?=[a-z0-9_-]*[a-z_-])[a-z0-9_][a-z0-9_-]{0,62}")
_MAC = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}")
_SPELT = re.compile(r"[0-9A-Fa-f]{2}(?:[:-]?[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{4}(?:\.[0-9A-Fa-f]{4}){2}")


def hostname(text: str) -> str | None:
    """Return the name in lower case and without the trailing dot; an IDN stays as it comes (xn--…)."""
    # isascii() before lower(), which makes a plain k of the Kelvin sign.
    name = text.lower().removesuffix(".") if text.isascii() and len(text) <= 254 else ""
    return name if _HOSTNAME.fullmatch(name) and len(name) < 254 else None


def without(name: str, domains: Iterable[str]) -> str:
    """Return the name without the first of these domains that it ends with."""
    for domain in domains:
        if name.endswith(f".{domain}"):
            return name.removesuffix(f".{domain}")
    return name


def address(text: str) -> str | None:
    """Return an IP address in its canonical form."""
    family = AF_INET6 if ":" in text else AF_INET
    try:
        return inet_ntop(family, inet_pton(family, text))
    except (OSError, ValueError):
        return None


def mac(text: str) -> str | None:
    """Return a device's MAC as AA-BB-CC-DD-EE-FF; None for all zeros and for group addresses too."""
    lower = text.lower()
    if not _MAC.fullmatch(lower) or int(lower[1], 16) & 1 or lower.strip("0:-") == "":
        return None
    return lower.upper().replace(":", "-")


def spelt(text: str) -> str | None:
    """Return any MAC, written in any usual way, as AA-BB-CC-DD-EE-FF."""
    digits = re.sub("[:.-]", "", text.upper())
    return bytes.fromhex(digits).hex("-").upper() if _SPELT.fullmatch(text) else None
