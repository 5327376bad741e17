"""Passive DNS: which name a device asked for before it connected to an address, read from dnsmasq's query log.

With log-queries=extra (OpenWrt's logqueries) each line names the query and the device:

    3 10.77.0.20/40686 query[A] news.example from 10.77.0.20
    3 10.77.0.20/40686 reply news.example is <CNAME>
    3 10.77.0.20/40686 reply edge.cdn.example is 198.18.3.80

so 198.18.3.80 is news.example to 10.77.0.20.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from wrtflow.shares import Shares
from wrtflow.state import Rows, State
from wrtflow.wellformed import LONGEST, address, hostname

DNS_TTL = 86_400_000  # ms that a name counts after it was last asked for
# Pairs of device and address, of one device and of all.
DNS_OF_DEVICE, DNS_SIZE = 5_000, 50_000
LATELY = 3_600_000  # ms; if the table is full, a device that asked for nothing for so long makes room
# Names of an address to a device, the newest first: an old flow has the name of its own time.
NAMES_PER_ADDRESS = 8
# Queries without an answer, of one device and of all.
OPEN_QUERIES, QUERIES = 150, 20_000
ANSWERED = 10_000  # ms that an answer may take; no query makes room for another device's sooner
# Routers, and addresses of each one's last answer, kept for other devices that wait for the same answer.
ROUTERS, WAITING = 64, 64

_ROUTER_ITSELF = "127.0.0.1", "::1"
_NOWHERE = "0.0.0.0", "::"  # what a blocking resolver says instead of an address
_HEX = frozenset("0123456789abcdef:")

Record = tuple[str, int, int]  # name, when first and when last asked for (ms, steady)


class PassiveDns:
    """Names by device and address. observe() costs a few microseconds and takes any text."""

    def __init__(self, state: State, identity: Callable[[str], str]) -> None:
        """identity returns the device of an address; nothing is learned from a device ""."""
        self._identity = identity
        # By "device address", the newest first.
        self.records: Rows[tuple[Record, ...]] = Rows(state, "asked")
        self.counts: Counter[str] = Counter()
        limits = DNS_SIZE, DNS_OF_DEVICE, DNS_TTL, LATELY
        self.shares = Shares(*limits, self.records.__delitem__, self.counts, "dns")
        # "router id client/port" -> (name, device) of the queries that may still be answered.
        self._queries: dict[str, tuple[str, str]] = {}
        limits = QUERIES, OPEN_QUERIES, ANSWERED, ANSWERED
        self._open = Shares(*limits, self._queries.__delitem__, self.counts, "dns_queries")
        # By router: the last answer's query and addresses. For who waits for the same answer, dnsmasq logs "duplicate".
        self._answers: dict[str, tuple[tuple[str, str], list[str]]] = {}

    def load(self, now: int) -> None:
        """Read the records of devices that are not left out."""

        def decode(key: str, row: Any) -> tuple[Record, ...]:
            # A time in the future is a wrong clock's.
            records = [(str(name), min(int(first), now), min(int(last), now)) for name, first, last in row]
            if key.count(" ") != 1 or not 0 < len(records) <= NAMES_PER_ADDRESS:
                raise ValueError(key)
            return tuple(records)

        self.records.load(decode)
        for pair, records in sorted(self.records.items(), key=lambda row: row[1][0][2]):
            device, last = pair.partition(" ")[0], records[0][2]
            if not (self._identity(device) and now - last <= DNS_TTL and self.shares.put(device, pair, last)):
                del self.records[pair]

    def observe(self, router: str, text: str, now: int) -> None:
        """Take a line of dnsmasq's (without the program's name)."""
        if len(text) > LONGEST:
            self.counts["names_invalid"] += 1
            return
        words = text.split()
        if len(words) > 6:
            if words[0] in ("UDP", "TCP"):  # log-queries=proto
                del words[0]
            if words[-2:] == ["(DNSSEC", "signed)"]:
                del words[-2:]
        # A name with a blank in it makes more words: none of them can stand in for another.
        if len(words) == 6:
            number, client, verb, name, link, value = words
            if link == "is":
                self._answer(router, f"{router} {number} {client}", name, value, now)
            elif link == "from" and verb in ("query[A]", "query[AAAA]"):
                self._query(f"{router} {number} {client}", name, value, now)

    def name(self, device: str, remote: str, at: int) -> str | None:
        """Return the name that led the device to the address: the last one asked for until at (ms, steady)."""
        for name, first, last in self.records.get(f"{device} {remote}", ()):
            if first <= at:
                return name if at - last <= DNS_TTL else None
        return None

    def _query(self, query: str, name: str, client: str, now: int) -> None:
        if client in _ROUTER_ITSELF:
            return
        asked, ip = hostname(name), address(client)
        if asked is None or ip is None:
            self.counts["names_invalid"] += 1
            return
        device = self._identity(ip)
        before = self._queries.get(query)
        if before is not None and before[1] != device:
            self._open.drop(before[1], query)
        if device and self._open.put(device, query, now):
            self.counts["dns_queries"] += 1
            self._queries[query] = asked, device

    def _answer(self, router: str, query: str, name: str, value: str, now: int) -> None:
        asked = self._queries.get(query)
        if asked is None:
            return
        last, remotes = self._answers.get(router, (("", ""), []))
        if value == "duplicate" and name == "query":
            # It follows the answer that it is a duplicate of.
            for remote in remotes if last[0] == asked[0] else ():
                self._record(asked, remote, now)
        # Quicker than to try <CNAME>, NXDOMAIN, NODATA … as addresses.
        elif value[0] in _HEX and value not in _NOWHERE and (answer := address(value)):
            if last is not asked:
                if len(self._answers) >= ROUTERS:
                    self._answers.clear()
                self._answers[router] = asked, (remotes := [])
            if len(remotes) < WAITING:
                remotes.append(answer)
            self._record(asked, answer, now)

    def _record(self, asked: tuple[str, str], remote: str, now: int) -> None:
        name, device = asked
        self.counts["dns_answers"] += 1
        pair, first = f"{device} {remote}", now
        records = self.records.get(pair, ())
        if records and records[0][0] == name:
            _, before, last = records[0]
            # Asked again so soon, it is not worth a write.
            if now - last < DNS_TTL // 1000:
                return
            first = before if now - last <= DNS_TTL else now
            records = records[1:]
        if self.shares.put(device, pair, now):
            self.records[pair] = (name, first, now), *records[: NAMES_PER_ADDRESS - 1]
