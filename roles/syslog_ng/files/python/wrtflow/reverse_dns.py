"""Reverse DNS in the background: want() and name() never wait; a few threads ask, and remember the answers.

A PTR record can say anything, so its name is asked for in turn: it is confirmed where that gives the address back.
What is bounded: the threads, the addresses that wait, the questions a second (each costs CPU that the parsers
would have), the time one question takes, and the answers that are kept.
"""

from __future__ import annotations

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
from wrtflow.state import State
from wrtflow.wellformed import address, hostname

RESOLV_CONF = "/etc/resolv.conf"
WORKERS = 4
# Questions a second, of all threads.
RATE = 100
# Seconds that one question takes at most.
TIMEOUT = 3.0
# Addresses that wait, on behalf of one device and of all. They are wanted again with their next flow.
WAITING_OF_DEVICE = 200
WAITING = 2000
# Addresses whose answers are kept. What was wanted longest ago makes room; at RATE none that was in the last 500 s.
PTR_SIZE = 50_000
# ms that a name stands at most and at least, whatever its TTL; that there is none; and until a failure is retried.
PTR_TTL = 86_400_000
SHORTEST = 300_000
NEGATIVE_TTL = 3_600_000
RETRY = 120_000
# ms that a name is told beyond its time, until there is another answer: an old name is better than none (RFC 8767).
STALE = 86_400_000
# Names of one address that are asked for in turn.
_CANDIDATES = 3
# Seconds that a stop waits: syslog-ng stands still meanwhile.
_LAST_MOMENT = 0.4

_NONE = dns.resolver.NXDOMAIN, dns.resolver.NoAnswer

# (name, or None where there is none; whether it is confirmed; valid until: ms, steady).
Entry = tuple[str | None, bool, int]


class ReverseDns:
    """Names by address, from the given resolvers ("address" or "address#port"; none: /etc/resolv.conf's)."""

    def __init__(self, state: State, clock: Clock, resolvers: Sequence[str] = ()) -> None:
        """Ask nobody before start()."""
        self._clock = clock
        self._resolvers = [_nameserver(text) for text in resolvers]
        self._threads: list[threading.Thread] = []
        # Set when the threads are to end.
        self._closed = threading.Event()
        self._ready = threading.Condition()
        # Device -> addresses that wait on its behalf. Each device has its turn.
        self._waiting: OrderedDict[str, deque[str]] = OrderedDict()
        self.waiting = 0
        # Those, and the ones that are being asked for.
        self.wanted: set[str] = set()
        # Of the names; want() looks them up without it.
        self._lock = threading.Lock()
        # What was wanted last comes last.
        self.names: OrderedDict[str, Entry] = OrderedDict()
        self._table = state.table("reverse", lambda: list(self.names.items()))
        self.counts: Counter[str] = Counter()

    def load(self, now: int) -> None:
        """Read what was kept."""

        def decode(ip: str, row: Any) -> tuple[str, Entry]:
            name, confirmed, until = row
            # One that would stand longer was asked for when the clock was wrong: it is asked for again.
            latest = now + (NEGATIVE_TTL if name is None else PTR_TTL)
            until = int(until) if int(until) <= latest else now
            if address(ip) != ip:
                raise ValueError(ip)
            return ip, (name and str(name), confirmed is True, until)

        for ip, entry in self._table.load(decode):
            if entry[2] + STALE < now:
                self._table.delete(ip)
            else:
                self._keep(ip, entry)

    def start(self) -> None:
        """Start asking."""
        # Threads of before a stop() may still wait for their last answer: they keep the event that ends them.
        self._closed = threading.Event()
        for number in range(WORKERS):
            name = f"wrtflow-ptr-{number}"
            thread = threading.Thread(target=self._work, args=(self._closed,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop asking. Who waits for an answer is given a moment, and ends by itself with its timeout."""
        self._closed.set()
        with self._ready:
            self._ready.notify_all()
        deadline = time.monotonic() + _LAST_MOMENT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._threads.clear()

    def want(self, ip: str, device: str = "") -> None:
        """See to it that the name of an address is known soon. device: on whose behalf."""
        try:
            self.names.move_to_end(ip)
            known = self.names[ip][2] > self._clock.now()
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
        """Return the name of an address as far as it is known now, and whether it is confirmed."""
        entry = self.names.get(ip)
        return entry[:2] if entry is not None and entry[2] + STALE > self._clock.now() else (None, False)

    def refresh(self, now: int) -> None:
        """Let go of what is too old to be told. What was wanted longest ago is looked at."""
        with self._lock:
            while self.names and next(iter(self.names.values()))[2] + STALE < now:
                self._table.delete(self.names.popitem(last=False)[0])

    def _work(self, closed: threading.Event) -> None:
        resolver = _Resolver(self._resolvers, closed, self.counts)
        while (ip := self._next(closed)) is not None:
            self._look_up(resolver, ip)
            self.wanted.discard(ip)

    def _next(self, closed: threading.Event) -> str | None:
        """Wait for an address to ask for; None when it is closed."""
        with self._ready:
            self._ready.wait_for(lambda: self.waiting or closed.is_set())
            if closed.is_set():
                return None
            device, own = self._waiting.popitem(last=False)
            ip = own.popleft()
            if own:
                self._waiting[device] = own
            self.waiting -= 1
            return ip

    def _look_up(self, resolver: _Resolver, ip: str) -> None:
        """Ask for the name of an address and keep the answer."""
        before = self.name(ip)
        try:
            name, confirmed, valid = self._name(resolver, ip)
        except _NONE:
            self.counts["ptr_none"] += 1
            name, confirmed, valid = None, False, NEGATIVE_TTL
        except Exception:
            # Nobody answers, or nonsense: whatever a server sends, the thread lives on.
            self.counts["ptr_failed"] += 1
            (name, confirmed), valid = before, RETRY
        entry = name, confirmed, self._clock.now() + valid
        self._keep(ip, entry)
        self._table.put(ip, entry)

    def _keep(self, ip: str, entry: Entry) -> None:
        with self._lock:
            self.names[ip] = entry
            self.names.move_to_end(ip)
            if len(self.names) > PTR_SIZE:
                self._table.delete(self.names.popitem(last=False)[0])

    def _name(self, resolver: _Resolver, ip: str) -> Entry:
        """Return the name, whether it is confirmed, and for how many ms that stands."""
        answer = resolver.ask(dns.reversename.from_address(ip), dns.rdatatype.PTR)
        # Several names: always the same one of them.
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
                if any(address(record.address) == ip for record in resolver.ask(f"{name}.", kind)):
                    return name, True, valid
            except _NONE:
                continue
            except Exception:
                # Nobody knows: not for long.
                valid = RETRY
        self.counts["ptr_unconfirmed"] += 1
        return names[0], False, valid


class _Resolver:
    """dnspython's resolver for one thread; it is made again when resolv.conf has changed."""

    def __init__(
        self, nameservers: list[dns.nameserver.Nameserver], closed: threading.Event, counts: Counter[str]
    ) -> None:
        self._configured = bool(nameservers)
        self._closed = closed
        self._counts = counts
        # When the thread may ask the next question, by the monotonic clock.
        self._next = 0.0
        # The time of the resolv.conf that was read.
        self._read = -1.0
        self._resolver = dns.resolver.Resolver(configure=False)
        self._resolver.nameservers = list(nameservers)

    def ask(self, name: Any, kind: dns.rdatatype.RdataType) -> Any:
        """Ask one question, no sooner than the rate allows."""
        if self._closed.wait(max(0.0, self._next - time.monotonic())):
            raise dns.resolver.NoNameservers
        self._next = time.monotonic() + WORKERS / RATE
        self._counts["ptr_asked"] += 1
        return self.get().resolve(name, kind, search=False)

    def get(self) -> dns.resolver.Resolver:
        """Return the resolver; OSError or NoResolverConfiguration where nobody is to be asked."""
        if not self._configured and (changed := os.stat(RESOLV_CONF).st_mtime) != self._read:
            self._resolver = dns.resolver.Resolver(filename=RESOLV_CONF)
            self._read = changed
        # One dead server of two leaves time for the other.
        self._resolver.timeout = TIMEOUT / 2
        self._resolver.lifetime = TIMEOUT
        return self._resolver


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    host, _, port = text.partition("#")
    return dns.nameserver.Do53Nameserver(host, int(port or 53))
