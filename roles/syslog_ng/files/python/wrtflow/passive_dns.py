"""Passive DNS: which name a device asked for before it connected to an address, read from dnsmasq's query log.

With log-queries=extra (OpenWrt's logqueries) each line names the query and the device:

    3 10.77.0.20/40686 query[A] news.example from 10.77.0.20
    3 10.77.0.20/40686 reply news.example is <CNAME>
    3 10.77.0.20/40686 reply edge.cdn.example is 198.18.3.80

so that 198.18.3.80 is news.example to 10.77.0.20. Plain log-queries lacks the first two words; there an
answer belongs to whoever asked for its name in the last seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from cachetools import FIFOCache

from .kept import Kept
from .wellformed import address, hostname

# (name, when first and when last asked for).
Record = tuple[str, float, float]
# What an address was to a device, newest first: an old flow has the name of its own time.
NAMES_PER_ADDRESS = 3

# A line longer than this is no line of dnsmasq's (two names of 255 and little else).
LONGEST = 1024
# How many open queries of a router are remembered, and how many routers.
OPEN_QUERIES = 4096
OBSERVERS = 64
# How many may wait for one answer, and how many addresses of one answer are remembered for those who wait.
WAITING = 64
# The plain format: seconds that an answer may take.
ANSWERED_WITHIN = 10.0

_QUERIES = frozenset(("query[A]", "query[AAAA]"))
_PROTOCOLS = frozenset(("UDP", "TCP"))
_ROUTER_ITSELF = frozenset(("127.0.0.1", "::1"))
# What a blocking resolver says instead of an address.
_NOWHERE = frozenset(("0.0.0.0", "::"))
_HEX = frozenset("0123456789abcdef:")


class _Router:
    """What the last lines of one router said."""

    def __init__(self) -> None:
        # "id client/port" -> (name, device) of the queries that may still be answered.
        self.queries: FIFOCache[str, tuple[str, str]] = FIFOCache(OPEN_QUERIES)
        # The last answer: a query that waited for the same one only gets the word "duplicate".
        self.answered = ("", "")
        self.addresses: list[str] = []
        # The plain format: name -> {device: when it asked}, the last query, and the chain of aliases under way.
        self.asked: FIFOCache[str, dict[str, float]] = FIFOCache(OPEN_QUERIES)
        self.latest = ("", "")
        self.alias: str | None = None
        self.alias_of: str | None = None


class PassiveDns:
    """Names by device and address. observe() costs a few microseconds and takes any text."""

    def __init__(self, *, ttl: float, size: int, identity: Callable[[str], str] = str) -> None:
        """Remember `size` pairs of device and address for `ttl` s; `identity` makes a device of an address.

        A device "" is not listened to.
        """
        self._ttl = ttl
        self._identity = identity
        self._lock = threading.Lock()
        self._routers: FIFOCache[str, _Router] = FIFOCache(OBSERVERS)
        # "device address" -> records: one string costs less memory than a pair.
        self.names: Kept[tuple[Record, ...]] = Kept("dns", size, _records)
        self.queries = 0
        self.answers = 0
        self.invalid = 0

    def observe(self, observer: str, message: str, now: float) -> None:
        """Take a line of dnsmasq's (without the program's name), received at `now`."""
        if len(message) > LONGEST:
            self.invalid += 1
            return
        words = message.split()
        if len(words) > 6:
            if words[0] in _PROTOCOLS:  # log-queries=proto
                del words[0]
            if words[-1] == "signed)" and words[-2] == "(DNSSEC":
                del words[-2:]
        # A name with a blank in it makes more words: it can't move another word to a place of ours.
        if len(words) == 6:
            number, client, verb, name, link, value = words
            if link == "is":
                self._answer(observer, f"{number} {client}", name, value, now)
            elif link == "from" and verb in _QUERIES:
                self._query(observer, f"{number} {client}", name, value)
        elif len(words) == 4:
            verb, name, link, value = words
            if link == "is":
                self._plain_answer(observer, verb, name, value, now)
            elif link == "from" and verb in _QUERIES:
                self._plain_query(observer, name, value, now)

    def name(self, device: str, remote: str, at: float) -> str | None:
        """Return the name that the device had asked for when it connected to the address."""
        records = self.names.get(f"{device} {remote}")
        if records is None:
            return None
        # All are younger than the flow only where two clocks differ: then the oldest is the best guess.
        name, _, last = records[-1]
        for record in records:
            if record[1] <= at:
                name, _, last = record
                break
        return name if at - last <= self._ttl else None

    def forget(self, chosen: Callable[[str], bool]) -> None:
        """Forget what some devices asked for."""
        self.names.remove(lambda key: chosen(key.partition(" ")[0]))

    def _query(self, observer: str, query: str, name: str, client: str) -> None:
        asked = self._asked(name, client)
        if asked is not None:
            with self._lock:
                self._router(observer).queries[query] = asked

    def _answer(self, observer: str, query: str, name: str, value: str, now: float) -> None:
        router = self._routers.get(observer)
        asked = router.queries.get(query) if router is not None else None
        if router is None or asked is None:
            return
        if value == "duplicate" and name == "query":
            # It follows the answer that it is a duplicate of.
            remotes = router.addresses if router.answered[0] == asked[0] else []
            for remote in remotes:
                self._record(asked, remote, now)
            return
        answer = _remote(value)
        if answer is None:
            return
        if router.answered is not asked:
            router.answered, router.addresses = asked, []
        if len(router.addresses) < WAITING:
            router.addresses.append(answer)
        self._record(asked, answer, now)

    def _plain_query(self, observer: str, name: str, client: str, now: float) -> None:
        asked = self._asked(name, client)
        if asked is None:
            return
        with self._lock:
            router = self._router(observer)
            waiting = router.asked.get(asked[0])
            if waiting is None or len(waiting) >= WAITING:
                waiting = router.asked[asked[0]] = {}
            waiting[asked[1]] = now
            router.latest = asked
            router.alias = None

    def _plain_answer(self, observer: str, verb: str, name: str, value: str, now: float) -> None:
        router = self._routers.get(observer)
        answered = hostname(name)
        if router is None or answered is None:
            return
        asked = answered
        # After "a is <CNAME>" comes what a is an alias of: one more alias or its addresses, in lines of one name.
        # A name that was asked for itself is told from that only by its own.
        if router.alias and router.alias_of in (None, answered) and not router.asked.get(answered):
            asked = router.alias
        if value == "<CNAME>":
            router.alias, router.alias_of = asked, None
            return
        answer = _remote(value)
        if answer is None:
            router.alias = None
            return
        router.alias_of = answered
        if verb == "reply":
            for device, when in list(router.asked.get(asked, {}).items()):
                if now - when <= ANSWERED_WITHIN:
                    self._record((asked, device), answer, now)
        elif router.latest[0] == asked:  # cached, config, /etc/hosts: said at once
            self._record(router.latest, answer, now)

    def _asked(self, name: str, client: str) -> tuple[str, str] | None:
        """Make (name, device) of a query; None for the router's own and for what is no name or address."""
        if client in _ROUTER_ITSELF:
            return None
        asked, device = hostname(name), address(client)
        if asked is None or device is None:
            self.invalid += 1
            return None
        owner = self._identity(device)
        if not owner:
            return None
        self.queries += 1
        return asked, owner

    def _router(self, observer: str) -> _Router:
        router = self._routers.get(observer)
        if router is None:
            router = self._routers[observer] = _Router()
        return router

    def _record(self, asked: tuple[str, str], remote: str, now: float) -> None:
        name, device = asked
        self.answers += 1
        key = f"{device} {remote}"
        records = self.names.get(key) or ()
        if records and records[0][0] == name:
            _, first, last = records[0]
            # Asked again after a thousandth of its life: not worth a write.
            if 0 <= now - last < self._ttl / 1000:
                return
            self.names.put(key, ((name, min(first, now), now), *records[1:]))
        else:
            self.names.put(key, ((name, now, now), *records[: NAMES_PER_ADDRESS - 1]))


def _remote(value: str) -> str | None:
    """Return the address that an answer gives; None for <CNAME>, NXDOMAIN, NODATA … and for blocked names."""
    return address(value) if value[0] in _HEX and value not in _NOWHERE else None


def _records(rows: Any) -> tuple[Record, ...]:
    records = tuple((str(name), float(first), float(last)) for name, first, last in rows)
    if not records:
        raise ValueError("an address without a name")
    return records
