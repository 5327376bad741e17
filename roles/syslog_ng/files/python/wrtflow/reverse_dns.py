"""Reverse DNS in the background: want() and name() never wait; a few threads ask, and remember the answers.

What is bounded: the threads, the addresses that wait, the look-ups a second (each costs CPU that the parsers
would have), the time one look-up takes, and the answers that are kept.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import dns.nameserver
import dns.rdatatype
import dns.resolver
import dns.reversename
from dns.rdtypes.ANY.PTR import PTR

from .kept import Kept
from .settings import SettingsError
from .wellformed import address, hostname

_log = logging.getLogger(__name__)

RESOLV_CONF = "/etc/resolv.conf"
# Seconds that an answer stands at least, however short its TTL.
SHORTEST = 300.0
# Seconds that a name is told beyond its time, until a new answer is there: an old name is better than none (RFC 8767).
STALE = 86400.0
# Seconds that a stop waits: syslog-ng stands still meanwhile.
LAST_MOMENT = 0.5

# (name, or None where there is none; valid until).
Entry = tuple[str | None, float]


class ReverseDns:
    """Names by address, from the given resolvers ("address" or "address#port"; default: /etc/resolv.conf's)."""

    def __init__(
        self,
        *,
        resolvers: Sequence[str] = (),
        workers: int = 4,
        waiting: int = 2000,
        rate: int = 100,
        timeout: float = 3.0,
        ttl: float = 86400,
        negative_ttl: float = 3600,
        retry: float = 120,
        size: int = 50_000,
        resolv_conf: str = RESOLV_CONF,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Set the bounds: times in seconds, `rate` look-ups a second at most, `waiting` and `size` addresses."""
        self._resolvers = [_nameserver(text) for text in resolvers]
        self._workers = workers
        self._pause = workers / rate
        self._timeout = timeout
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._retry = retry
        self._resolv_conf = resolv_conf
        self._clock = clock
        self._waiting = waiting
        self._queue: queue.Queue[str | None] = queue.Queue(waiting)
        # Waiting or being asked for: no address is asked for twice at a time.
        self._wanted: set[str] = set()
        self._stopping = threading.Event()
        self._stopping.set()
        self._threads: list[threading.Thread] = []
        self.names: Kept[Entry] = Kept("ptr", size, _entry)
        self.asked = 0
        self.found = 0
        self.none = 0
        self.failed = 0
        self.dropped = 0
        self.invalid = 0

    def start(self) -> None:
        """Start asking."""
        # Its own queue: a thread of before a stop() may still be waiting for its last answer.
        self._queue = queue.Queue(self._waiting)
        self._stopping = threading.Event()
        self._wanted.clear()
        for number in range(self._workers):
            name = f"wrtflow-ptr-{number}"
            thread = threading.Thread(
                target=self._work, args=(self._queue, self._stopping), name=name, daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop asking. Who waits for an answer is given a moment, and ends by itself with its time-out."""
        self._stopping.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._queue.put_nowait(None)
        deadline = time.monotonic() + LAST_MOMENT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._threads = []

    def want(self, ip: str) -> None:
        """Ask for the name of an address in the background, unless it is known or asked for already."""
        entry = self.names.get(ip)
        if (entry is not None and entry[1] > self._clock()) or ip in self._wanted or self._stopping.is_set():
            return
        self._wanted.add(ip)
        try:
            self._queue.put_nowait(ip)
        except queue.Full:
            # It is wanted again with its next flow.
            self._wanted.discard(ip)
            self.dropped += 1

    def name(self, ip: str) -> str | None:
        """Return the name of an address as far as it is known now."""
        entry = self.names.get(ip)
        return entry[0] if entry is not None and entry[1] + STALE > self._clock() else None

    @property
    def waiting(self) -> int:
        """How many addresses wait to be asked for."""
        return self._queue.qsize()

    def _work(self, wanted: queue.Queue[str | None], stopping: threading.Event) -> None:
        source = _Resolver(self._resolvers, self._resolv_conf, self._timeout)
        while (ip := wanted.get()) is not None:
            started = time.monotonic()
            if address(ip) is None:
                self.invalid += 1
            else:
                name, valid = self._look_up(source, ip)
                self.names.put(ip, (name, self._clock() + valid))
            self._wanted.discard(ip)
            stopping.wait(max(0.0, self._pause - (time.monotonic() - started)))
        wanted.put(None)  # for the next thread

    def _look_up(self, source: _Resolver, ip: str) -> tuple[str | None, float]:
        """Return the name, if there is one, and for how many seconds that stands."""
        question = dns.reversename.from_address(ip)
        self.asked += 1
        try:
            answer = source.get().resolve(question, dns.rdatatype.PTR, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            self.none += 1
            return None, self._negative_ttl
        except Exception:
            # Nobody answers, or nonsense: whatever a server sends, the thread lives on.
            self.failed += 1
            _log.debug("reverse DNS of %s", ip, exc_info=True)
            return self.name(ip), self._retry
        # Several names: always the same one of them.
        texts = sorted(str(cast("PTR", record).target) for record in answer)
        name = next((name for text in texts if (name := hostname(text))), None)
        if name is None:
            self.invalid += 1
            return None, self._negative_ttl
        self.found += 1
        ttl = float(answer.rrset.ttl) if answer.rrset is not None else 0.0
        return name, min(max(ttl, SHORTEST), self._ttl)


class _Resolver:
    """dnspython's resolver, made again when resolv.conf has changed."""

    def __init__(
        self, nameservers: list[dns.nameserver.Nameserver], resolv_conf: str, timeout: float
    ) -> None:
        self._nameservers = nameservers
        self._resolv_conf = resolv_conf
        self._timeout = timeout
        self._read = -1.0
        self._resolver: dns.resolver.Resolver | None = None

    def get(self) -> dns.resolver.Resolver:
        """Return the resolver; NoResolverConfiguration where nobody is to be asked."""
        if self._nameservers:
            if self._resolver is None:
                self._resolver = dns.resolver.Resolver(configure=False)
                self._resolver.nameservers = list(self._nameservers)
        else:
            try:
                changed = os.stat(self._resolv_conf).st_mtime
            except OSError as error:
                raise dns.resolver.NoResolverConfiguration from error
            if self._resolver is None or changed != self._read:
                self._resolver = dns.resolver.Resolver(filename=self._resolv_conf)
                self._read = changed
        # One dead server of two leaves time for the other.
        self._resolver.timeout = self._timeout / 2
        self._resolver.lifetime = self._timeout
        return self._resolver


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    host, _, port = text.partition("#")
    number = int(port) if port.isdecimal() else 53
    if address(host) is None or (port and not port.isdecimal()) or not 0 < number < 65536:
        raise SettingsError(f"names: resolvers: {text!r} is not address or address#port")
    return dns.nameserver.Do53Nameserver(host, number)


def _entry(row: Any) -> Entry:
    name, until = row
    return (None if name is None else str(name)), float(until)
