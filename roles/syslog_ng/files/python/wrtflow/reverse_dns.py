"""Reverse DNS in the background: want() and name() never wait; a few threads ask, and remember the answers.

A PTR record can say anything, so its name is asked for in turn: it is confirmed where that gives the address back.
"""

from __future__ import annotations

import functools
import os
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
# Questions a second, of all threads: each costs CPU that the parsers would have.
RATE = 100
# Seconds that one question takes at most.
TIMEOUT = 3.0
# Addresses that wait, on behalf of one device and of all. One that finds no room is wanted again with its next flow.
WAITING_OF_DEVICE = 200
WAITING = 2000
# Addresses whose answers are kept. What was wanted longest ago makes room; at RATE none that was in the last 500 s.
PTR_SIZE = 50_000
# ms to cache a name at most and at least (its TTL lies between), to cache "no name", and to wait before a retry.
PTR_TTL = 86_400_000
SHORTEST = 300_000
NEGATIVE_TTL = 3_600_000
RETRY = 120_000
# ms that an expired name is still told, until there is another answer: an old name is better than none (RFC 8767).
STALE = 86_400_000
# Names of one address that are asked for in turn.
_CANDIDATES = 3
# Seconds that a stop waits: syslog-ng stands still meanwhile.
_LAST_MOMENT = 0.4

_NONE = dns.resolver.NXDOMAIN, dns.resolver.NoAnswer

_UNKNOWN = (None, False, 0)
# (name, or None where there is none; whether it is confirmed; valid until: ms, steady).
Entry = tuple[str | None, bool, int]


class ReverseDns:
    """Names by address, from the given resolvers ("address" or "address#port"; none: /etc/resolv.conf's)."""

    def __init__(self, state: State, clock: Clock, resolvers: Sequence[str] = ()) -> None:
        """Ask nobody before start()."""
        self._clock = clock
        self._servers = tuple(resolvers)
        self._threads: list[threading.Thread] = []
        # Set when the threads are to end.
        self._closed = threading.Event()
        self._ready = threading.Condition()
        # Device -> addresses that wait on its behalf. Each device has its turn.
        self._waiting: OrderedDict[str, deque[str]] = OrderedDict()
        self.waiting = 0
        # Those, and the ones that are being asked for.
        self.wanted: set[str] = set()
        # Of the names and of the next question; want() looks names up without it.
        self._lock = threading.Lock()
        # When the next question may be asked, by the monotonic clock.
        self._next = 0.0
        # What was wanted last comes last.
        self.names: Rows[Entry] = Rows(state, "reverse")
        self.counts: Counter[str] = Counter()

    def load(self, now: int) -> None:
        """Read what was kept."""

        def decode(ip: str, row: Any) -> Entry:
            name, confirmed, until = row
            # An entry that would stand longer was made by a wrong clock: the address is asked for again.
            latest = now + (NEGATIVE_TTL if name is None else PTR_TTL)
            until = int(until) if int(until) <= latest else now
            if address(ip) != ip:
                raise ValueError(ip)
            return name and str(name), confirmed is True, until

        self.names.load(decode)
        self.refresh(now)

    def start(self) -> None:
        """Start asking."""
        # A thread of before a stop() may still wait for its last answer: it keeps the event that ends it.
        closed = self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(closed,), name=f"wrtflow-ptr-{number}", daemon=True)
            for number in range(WORKERS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop asking. A thread that waits for an answer gets a moment, and ends by itself with its timeout."""
        self._closed.set()
        with self._ready:
            self._ready.notify_all()
        deadline = time.monotonic() + _LAST_MOMENT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._threads.clear()

    def want(self, ip: str, device: str = "", now: int = 0) -> None:
        """Ask for the name of an address soon, unless it is known. device: on whose behalf. now: ms, steady."""
        try:
            self.names.move_to_end(ip)
            known = self.names[ip][2] > (now or self._clock.now())
        except KeyError:
            known = False
        if known:
            return
        if address(ip) is None:
            self.counts["names_invalid"] += 1
            return
        with self._ready:
            if ip in self.wanted:
                return
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
        """Return the name of an address, if it is known, and whether it is confirmed. refresh() lets go of old ones."""
        return self.names.get(ip, _UNKNOWN)[:2]

    def refresh(self, now: int) -> None:
        """Let go of what is too old to be told."""
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
            self._look_up(ip, closed)
            self.wanted.discard(ip)

    def _look_up(self, ip: str, closed: threading.Event) -> None:
        """Ask for the name of an address and keep the answer."""
        try:
            name, confirmed, valid = self._name(ip, closed)
        except _NONE:
            self.counts["ptr_none"] += 1
            name, confirmed, valid = None, False, NEGATIVE_TTL
        except Exception:
            # Nobody answers, or nonsense: whatever a server sends, the thread lives on.
            self.counts["ptr_failed"] += 1
            (name, confirmed), valid = self.name(ip), RETRY
        with self._lock:
            self.names[ip] = name, confirmed, self._clock.now() + valid
            if len(self.names) > PTR_SIZE:
                del self.names[next(iter(self.names))]

    def _name(self, ip: str, closed: threading.Event) -> Entry:
        """Return the name, whether it is confirmed, and for how many ms that stands."""
        answer = self._ask(dns.reversename.from_address(ip), dns.rdatatype.PTR, closed)
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
                if any(address(record.address) == ip for record in self._ask(f"{name}.", kind, closed)):
                    return name, True, valid
            except _NONE:
                continue
            except Exception:
                # Nobody knows: not for long.
                valid = RETRY
        self.counts["ptr_unconfirmed"] += 1
        return names[0], False, valid

    def _ask(self, name: Any, kind: dns.rdatatype.RdataType, closed: threading.Event) -> Any:
        """Ask one question, no sooner than the rate allows."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + 1 / RATE
        if closed.wait(turn - now):
            raise dns.resolver.NoNameservers
        self.counts["ptr_asked"] += 1
        return self._whom().resolve(name, kind, search=False)

    def _whom(self) -> dns.resolver.Resolver:
        """Return the resolver; OSError or NoResolverConfiguration where nobody is to be asked."""
        return _resolver(self._servers, None if self._servers else os.stat(RESOLV_CONF).st_mtime)


@functools.lru_cache(1)
def _resolver(servers: tuple[str, ...], changed: float | None) -> dns.resolver.Resolver:
    """Make a resolver that asks these servers, else those of resolv.conf, which has changed then."""
    resolver = dns.resolver.Resolver(RESOLV_CONF, configure=not servers)
    if servers:
        split = [text.partition("#") for text in servers]
        resolver.nameservers = [
            dns.nameserver.Do53Nameserver(host, int(port or 53)) for host, _, port in split
        ]
    # One dead server of two leaves time for the other.
    resolver.timeout, resolver.lifetime = TIMEOUT / 2, TIMEOUT
    return resolver
