"""Passive DNS: which name a device asked for before it connected to an address, read from dnsmasq's query log.

With log-queries=extra (OpenWrt's logqueries) each line names the query and the device:

    3 10.77.0.20/40686 query[A] news.example from 10.77.0.20
    3 10.77.0.20/40686 reply news.example is <CNAME>
    3 10.77.0.20/40686 reply edge.cdn.example is 198.18.3.80

so that 198.18.3.80 is news.example to 10.77.0.20.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from wrtflow.shares import Shares
from wrtflow.state import Rows, State
from wrtflow.wellformed import LONGEST, address, hostname

# ms that a name counts after it was last asked for.
DNS_TTL = 86_400_000
# Pairs of device and address, of one device and of all.
DNS_OF_DEVICE = 5_000
DNS_SIZE = 50_000
# ms. Where all is full, a device that asked for nothing for so long makes room.
LATELY = 3_600_000
# Names that an address had to a device, the newest first: an old flow has the name of its own time.
NAMES_PER_ADDRESS = 8
# Routers, and queries that may still be answered: of one router, and of one device there.
ROUTERS = 64
QUERIES = 20_000
OPEN_QUERIES = 150
# ms that an answer may take. No query makes room for another device's sooner.
ANSWERED = 10_000
# Addresses of one answer, kept for other devices that wait for the same answer.
WAITING = 64

_QUERIES = frozenset(("query[A]", "query[AAAA]"))
_PROTOCOLS = frozenset(("UDP", "TCP"))
_ROUTER_ITSELF = frozenset(("127.0.0.1", "::1"))
# What a blocking resolver says instead of an address.
_NOWHERE = frozenset(("0.0.0.0", "::"))
_HEX = frozenset("0123456789abcdef:")

# (name, when first and when last asked for: ms, steady).
Record = tuple[str, int, int]


class _Router:
    """The last queries that one router told."""

    def __init__(self, counts: Counter[str]) -> None:
        # "id client/port" -> (name, device) of the queries that may still be answered.
        self.queries: dict[str, tuple[str, str]] = {}
        forget = self.queries.__delitem__
        self.shares = Shares(QUERIES, OPEN_QUERIES, ANSWERED, ANSWERED, forget, counts, "dns_queries")
        # The last answer's query and addresses: who waited for the same answer gets only the word "duplicate".
        self.answered = ("", "")
        self.addresses: list[str] = []


class PassiveDns:
    """Names by device and address. observe() costs a few microseconds and takes any text."""

    def __init__(self, state: State, identity: Callable[[str], str]) -> None:
        """identity returns the device of an address; nothing is learned from a device ""."""
        self._identity = identity
        # By "device address", the newest first.
        self.records: Rows[tuple[Record, ...]] = Rows(state, "asked")
        # Replaced and refused: pairs of device and address, and queries, whose answers tell nothing then.
        self.counts: Counter[str] = Counter()
        forget = self.records.__delitem__
        self.shares = Shares(DNS_SIZE, DNS_OF_DEVICE, DNS_TTL, LATELY, forget, self.counts, "dns")
        self._routers = defaultdict[str, _Router](lambda: _Router(self.counts))
        forget = self._routers.__delitem__
        self._heard = Shares(ROUTERS, 1, ANSWERED, ANSWERED, forget, self.counts, "dns_queries")
        self._oldest = 0  # ms, steady: what was asked for before is too old to count now

    def load(self, now: int) -> None:
        """Read what was kept, but of devices that are left out."""

        def decode(key: str, row: Any) -> tuple[Record, ...]:
            # A time that is still to come is a wrong clock's.
            records = [(str(name), min(int(first), now), min(int(last), now)) for name, first, last in row]
            if key.count(" ") != 1 or not 0 < len(records) <= NAMES_PER_ADDRESS:
                raise ValueError(key)
            return tuple(records)

        self.records.load(decode)
        for pair, records in sorted(self.records.items(), key=lambda row: row[1][0][2]):
            device, last = pair.partition(" ")[0], records[0][2]
            left_out = not self._identity(device)
            if left_out or now - last > DNS_TTL or not self.shares.put(device, pair, last):
                del self.records[pair]

    def observe(self, router: str, text: str, now: int) -> None:
        """Take a line of dnsmasq's (without the program's name)."""
        if len(text) > LONGEST:
            self.counts["names_invalid"] += 1
            return
        words = text.split()
        if len(words) > 6:
            if words[0] in _PROTOCOLS:  # log-queries=proto
                del words[0]
            if words[-1] == "signed)" and words[-2] == "(DNSSEC":
                del words[-2:]
        # A name with a blank in it makes more words: none of them can stand in for another.
        if len(words) == 6:
            number, client, verb, name, link, value = words
            if link == "is":
                self._answer(router, f"{number} {client}", name, value, now)
            elif link == "from" and verb in _QUERIES:
                self._query(router, f"{number} {client}", name, value, now)

    def name(self, device: str, remote: str, at: int | None) -> str | None:
        """Return the name that led the device to the address: the last one asked for until at (None: now)."""
        records = self.records.get(f"{device} {remote}", ())
        if at is None:
            return records[0][0] if records and records[0][2] >= self._oldest else None
        for name, first, last in records:
            if first <= at:
                return name if at - last <= DNS_TTL else None
        return None

    def refresh(self, now: int) -> None:
        """Let go of devices that asked for nothing for as long as a name counts."""
        self._oldest = now - DNS_TTL
        self.shares.refresh(now)

    def _query(self, observer: str, query: str, name: str, client: str, now: int) -> None:
        if client in _ROUTER_ITSELF:
            return
        asked, ip = hostname(name), address(client)
        if asked is None or ip is None:
            self.counts["names_invalid"] += 1
            return
        device = self._identity(ip)
        if not device:
            return
        self.counts["dns_queries"] += 1
        if not self._heard.put(observer, observer, now):
            return
        router = self._routers[observer]
        before = router.queries.get(query)
        if before is not None and before[1] != device:
            router.shares.drop(before[1], query)
        if router.shares.put(device, query, now):
            router.queries[query] = asked, device

    def _answer(self, observer: str, query: str, name: str, value: str, now: int) -> None:
        router = self._routers.get(observer)
        asked = router.queries.get(query) if router is not None else None
        if router is None or asked is None:
            return
        if value == "duplicate" and name == "query":
            # It follows the answer that it is a duplicate of.
            for remote in router.addresses if router.answered[0] == asked[0] else ():
                self._record(asked, remote, now)
        # Quicker than to try <CNAME>, NXDOMAIN, NODATA … as addresses.
        elif value[0] in _HEX and value not in _NOWHERE and (answer := address(value)):
            if router.answered is not asked:
                router.answered, router.addresses = asked, []
            if len(router.addresses) < WAITING:
                router.addresses.append(answer)
            self._record(asked, answer, now)

    def _record(self, asked: tuple[str, str], remote: str, now: int) -> None:
        name, device = asked
        self.counts["dns_answers"] += 1
        pair = f"{device} {remote}"
        records = self.records.get(pair, ())
        first = now
        if records and records[0][0] == name:
            _, before, last = records[0]
            # Asked again so soon it is not worth a write.
            if now - last < DNS_TTL // 1000:
                return
            first = before if now - last <= DNS_TTL else now
            records = records[1:]
        if self.shares.put(device, pair, now):
            self.records[pair] = (name, first, now), *records[: NAMES_PER_ADDRESS - 1]
