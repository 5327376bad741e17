"""The names of devices and sites. Nothing here waits: only threads of reverse DNS use the network."""

from __future__ import annotations

import threading

from wrtflow.clock import Clock
from wrtflow.devices import Device, Devices
from wrtflow.passive_dns import PassiveDns
from wrtflow.places import LeftOut
from wrtflow.reverse_dns import ReverseDns
from wrtflow.settings import Settings
from wrtflow.state import State
from wrtflow.wellformed import without

# Replaced: what made room for the same device's next. Refused: what found no room.
_COUNTED = (
    "addresses_replaced addresses_refused dns_answers dns_queries dns_queries_refused"
    " dns_queries_replaced dns_refused dns_replaced names_invalid ptr_asked ptr_dropped ptr_failed ptr_found"
    " ptr_none ptr_unconfirmed"
)


class Names:
    """One collector's knowledge of names. Any method may be called from any thread."""

    def __init__(self, chosen: Settings, state: State, clock: Clock, left_out: LeftOut) -> None:
        """Know nothing yet: load() reads what was kept, start() starts the threads."""
        self._clock = clock
        self._local_domains = chosen.names.local_domains
        self._passive = PassiveDns(state, lambda ip: self._devices.identity(ip))
        self._devices = Devices(state, chosen.names, left_out, self._passive.shares.forget)
        self._reverse = ReverseDns(state, clock, chosen.names.resolvers)
        # For changes; look-ups need none.
        self._lock = threading.Lock()
        self.mac = self._devices.mac
        self.want, self.start, self.stop = self._reverse.want, self._reverse.start, self._reverse.stop

    def load(self) -> None:
        """Read the names of before. After State.open()."""
        with self._lock:
            for part in (self._devices, self._passive, self._reverse):
                part.load(self._clock.now())

    def observe(self, router: str, program: str, text: str) -> None:
        """Take a line of dnsmasq's query log, of its DHCP server, of odhcpd or of the router's own script."""
        with self._lock:
            if program == "dnsmasq":
                self._passive.observe(router, text, self._clock.now())
            else:
                self._devices.observe(text, self._clock.now())

    def asked(self, device_ip: str, remote_ip: str, at: int | None = None) -> str | None:
        """Return the name that led a device to a remote: the one it asked for last until at (ms, steady; None: now)."""
        owner, name = self.mac(device_ip), self._passive.name
        when = self._clock.now() if at is None else at
        # Before its MAC was known, the device was its address.
        return (owner and name(owner, remote_ip, when)) or name(device_ip, remote_ip, when)

    def reverse(self, ip: str) -> tuple[str | None, str]:
        """Return an address's name by reverse DNS, and its wrtflow.domain_source: ptr, ptr_unconfirmed or none."""
        name, confirmed = self._reverse.name(ip)
        return name, "none" if name is None else "ptr" if confirmed else "ptr_unconfirmed"

    def device(self, ip: str) -> Device:
        """Return what is known of a device at home; without a name of its own it has that of its reverse DNS.

        Confirmed or not: the house's own resolver often knows no address of such a name ("camera" without a domain).
        """
        device = self._devices.device(ip)
        if device.name is not None:
            return device
        self._reverse.want(ip, "home")
        name, _ = self._reverse.name(ip)
        return Device(name and without(name, self._local_domains), device.mac)

    def addresses(self, mac: str) -> list[str]:
        """Return the addresses that the MAC of a device left out has."""
        return list(self._devices.hidden.owners.get(mac, ()))

    def refresh(self) -> None:
        """Forget what is too old."""
        now = self._clock.now()
        with self._lock:
            self._devices.refresh(now)
            self._passive.shares.refresh(now)
        self._reverse.refresh(now)

    def stats(self) -> dict[str, int]:
        """Return the counters since the start, and the present sizes, for the health record."""
        return {
            **dict.fromkeys(_COUNTED.split(), 0),
            **(self._passive.counts + self._reverse.counts + self._devices.counts),
            "dns_kept": len(self._passive.records),
            "ptr_waiting": self._reverse.waiting,
            "ptr_kept": len(self._reverse.names),
            "devices_known": len(self._devices.owners),
            "addresses_known": len(self._devices.addresses),
        }
