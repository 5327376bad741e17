"""Reverse DNS in the background: want() and name() never wait; a few threads ask, and remember the answers.

A PTR record can say anything, so its name is looked up too: it is confirmed if one of its addresses is the same.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from typing import Any

import dns.nameserver
import dns.rdatatype
import dns.resolver
import dns.reversename

from wrtflow.clock import Clock
from wrtflow.state import Rows, State
from wrtflow.wellformed import address, hostname

RESOLV_CONF = "/etc/resolv.conf"
WORKERS = 4
RATE = 100  # questions a second, of all threads: each costs CPU that the parsers would have
TIMEOUT = 3.0  # seconds that one question takes at most
# Addresses that wait, on behalf of one device and of all. One that finds no room is wanted again with its next flow.
WAITING_OF_DEVICE, WAITING = 200, 2000
PTR_SIZE = 50_000  # addresses whose answers are kept; the one that was wanted longest ago makes room
# ms to cache a name at most and at least (its TTL lies between), to cache "no name", and to wait before a retry.
PTR_TTL, SHORTEST, NEGATIVE_TTL, RETRY = 86_400_000, 300_000, 3_600_000, 120_000
STALE = 86_400_000  # ms to go on using an expired name until there is another answer (RFC 8767)
_CANDIDATES = 3  # names of one address that are looked up
_LAST_MOMENT = 0.4  # seconds that a stop waits: syslog-ng stands still meanwhile

# Name, or None if there is none; whether it is confirmed; valid until (ms, steady).
Entry = tuple[str | None, bool, int]


class ReverseDns:
    """Names by address, from the given resolvers ("address" or "address#port"; none: /etc/resolv.conf's)."""

    def __init__(self, state: State, clock: Clock, resolvers: Sequence[str] = ()) -> None:
        """Ask nobody before start()."""
        self._clock = clock
        servers = [text.partition("#") for text in resolvers]
        self._servers = [dns.nameserver.Do53Nameserver(host, int(port or 53)) for host, _, port in servers]
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()
        self._ready = threading.Condition()
        # Device -> addresses that wait on its behalf. Each device has its turn.
        self._waiting: OrderedDict[str, deque[str]] = OrderedDict()
        self.waiting = 0
        # Those, and the ones that are being asked for.
        self.wanted: set[str] = set()
        # Of the names and of the next question; want() and name() do without it.
        self._lock = threading.Lock()
        # When the next question may be asked, by the monotonic clock.
        self._next = 0.0
        # The one that was wanted last comes last.
        self.names: Rows[Entry] = Rows(state, "reverse")
        self.counts: Counter[str] = Counter()

    def load(self, now: int) -> None:
        """Read the names of before."""

        def decode(ip: str, row: Any) -> Entry:
            name, confirmed, until = row
            if address(ip) != ip:
                raise ValueError(ip)
            # An entry that is valid for longer was made by a wrong clock: the address is asked for again.
            latest = now + (NEGATIVE_TTL if name is None else PTR_TTL)
            return name and str(name), confirmed is True, int(until) if int(until) <= latest else now

        self.names.load(decode)
        self.refresh(now)

    def start(self) -> None:
        """Start asking."""
        # A thread from before a stop() may still wait for its last answer: it keeps the event that ends it.
        closed = self._closed = threading.Event()
        self._threads = []
        for _ in range(WORKERS):
            self._threads.append(threading.Thread(target=self._work, args=(closed,), daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        """Stop asking. A thread that waits for an answer gets a moment; if none comes, it ends a few seconds later."""
        self._closed.set()
        with self._ready:
            self._ready.notify_all()
        for thread in self._threads:
            thread.join(_LAST_MOMENT / WORKERS)

    def want(self, ip: str, device: str = "", now: int = 0) -> None:
        """Ask for the name of an address soon, unless it is known. device: on whose behalf. now: ms, steady."""
        try:
            self.names.move_to_end(ip)
            known = self.names[ip][2] > (now or self._clock.now())
        except KeyError:
            known = False
        if known or ip in self.wanted:
            return
        if address(ip) is None:
            self.counts["names_invalid"] += 1
            return
        with self._ready:
            own = self._waiting.get(device, deque())
            if self.waiting >= WAITING or len(own) >= WAITING_OF_DEVICE:
                self.counts["ptr_dropped"] += 1
                return
            own.append(ip)
            self._waiting[device] = own
            self.wanted.add(ip)
            self.waiting += 1
            self._ready.notify()

    def name(self, ip: str) -> tuple[str | None, bool]:
        """Return the name of an address, None if there is none or not yet, and whether it is confirmed."""
        return self.names.get(ip, (None, False))[:2]

    def refresh(self, now: int) -> None:
        """Delete names that are too old."""
        with self._lock:
            for ip in [ip for ip, entry in list(self.names.items()) if entry[2] + STALE < now]:
                del self.names[ip]

    def _work(self, closed: threading.Event) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self.waiting or closed.is_set())
                if closed.is_set():
                    return
                device, own = self._waiting.popitem(last=False)
                ip = own.popleft()
                if own:
                    self._waiting[device] = own
                self.waiting -= 1
            try:
                name, confirmed, valid = self._name(ip)
            except Exception:
                # Nobody answers, or nonsense: whatever a server sends, the thread lives on.
                self.counts["ptr_failed"] += 1
                (name, confirmed), valid = self.name(ip), RETRY
            with self._lock:
                self.names[ip] = name, confirmed, self._clock.now() + valid
                if len(self.names) > PTR_SIZE:
                    del self.names[next(iter(self.names))]
            self.wanted.discard(ip)

    def _name(self, ip: str) -> Entry:
        """Return the name, whether it is confirmed, and for how many ms it is valid."""
        answer = self._ask(dns.reversename.from_address(ip), dns.rdatatype.PTR)
        if not answer:
            self.counts["ptr_none"] += 1
            return None, False, NEGATIVE_TTL
        # Of several names always the same one.
        texts = sorted(record.target.to_text() for record in answer)
        names = [name for text in texts if (name := hostname(text))][:_CANDIDATES]
        if not names:
            self.counts["names_invalid"] += 1
            return None, False, NEGATIVE_TTL
        self.counts["ptr_found"] += 1
        valid = min(max(answer.rrset.ttl * 1000, SHORTEST), PTR_TTL)
        kind = dns.rdatatype.AAAA if ":" in ip else dns.rdatatype.A
        for name in names:
            try:
                if any(address(record.address) == ip for record in self._ask(f"{name}.", kind)):
                    return name, True, valid
            except Exception:
                # Nobody knows: not for long.
                valid = RETRY
        self.counts["ptr_unconfirmed"] += 1
        return names[0], False, valid

    def _ask(self, name: Any, kind: dns.rdatatype.RdataType) -> Any:
        """Ask one question when the rate allows it. Returns the records, none if there are none."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + 1 / RATE
        time.sleep(turn - now)
        self.counts["ptr_asked"] += 1
        try:
            return self._resolver().resolve(name, kind, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return ()

    def _resolver(self) -> dns.resolver.Resolver:
        resolver = dns.resolver.Resolver(RESOLV_CONF, configure=not self._servers)
        if self._servers:
            resolver.nameservers = self._servers
        # One dead server of two leaves time for the other.
        resolver.timeout, resolver.lifetime = TIMEOUT / 2, TIMEOUT
        return resolver
