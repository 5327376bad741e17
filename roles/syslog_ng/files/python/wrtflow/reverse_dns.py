"""Reverse DNS in the background: want() and name() never wait; a few threads ask, and remember the answers.

What is bounded: the threads, the addresses that wait, the look-ups a second (each costs CPU that the parsers
would have), the time one look-up takes, and the answers that are kept.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import dns.exception
import dns.nameserver
import dns.rdatatype
import dns.resolver
import dns.reversename
from dns.rdtypes.ANY.PTR import PTR

from .kept import Kept
from .wellformed import hostname

_log = logging.getLogger(__name__)

RESOLV_CONF = "/etc/resolv.conf"
# Seconds that an answer stands at least, however short its TTL.
SHORTEST = 300.0

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
        self._queue: queue.Queue[str | None] = queue.Queue(waiting)
        # Waiting or being asked for: no address is asked for twice at a time.
        self._wanted: set[str] = set()
        self._stopping = threading.Event()
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
        self._stopping.clear()
        for number in range(self._workers):
            thread = threading.Thread(target=self._work, name=f"wrtflow-ptr-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop asking; returns within the time-out of a look-up."""
        self._stopping.set()
        self._drain()
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + self._timeout + 1
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._threads = []
        self._drain()

    def want(self, ip: str) -> None:
        """Ask for the name of an address in the background, unless it is known or asked for already."""
        entry = self.names.get(ip)
        if (entry is not None and entry[1] > self._clock()) or ip in self._wanted:
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
        return entry[0] if entry is not None and entry[1] > self._clock() else None

    @property
    def waiting(self) -> int:
        """How many addresses wait to be asked for."""
        return self._queue.qsize()

    def _drain(self) -> None:
        try:
            while True:
                ip = self._queue.get_nowait()
                if ip is not None:
                    self._wanted.discard(ip)
        except queue.Empty:
            pass

    def _work(self) -> None:
        source = _Resolver(self._resolvers, self._resolv_conf, self._timeout)
        while (ip := self._queue.get()) is not None:
            started = time.monotonic()
            try:
                name, valid = self._look_up(source, ip)
                self.names.put(ip, (name, self._clock() + valid))
            except Exception:
                # Whatever a server sends: the thread lives on, and the address is asked for again later.
                self.failed += 1
                self.names.put(ip, (None, self._clock() + self._retry))
                _log.debug("reverse DNS of %s", ip, exc_info=True)
            finally:
                self._wanted.discard(ip)
            self._stopping.wait(max(0.0, self._pause - (time.monotonic() - started)))

    def _look_up(self, source: _Resolver, ip: str) -> tuple[str | None, float]:
        """Return the name, if there is one, and for how many seconds that stands."""
        question = dns.reversename.from_address(ip)
        self.asked += 1
        try:
            answer = source.get().resolve(question, dns.rdatatype.PTR, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            self.none += 1
            return None, self._negative_ttl
        except dns.exception.DNSException:
            self.failed += 1
            return None, self._retry
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
    return dns.nameserver.Do53Nameserver(host, int(port or 53))


def _entry(row: Any) -> Entry:
    name, until = row
    return (None if name is None else str(name)), float(until)
