"""The names of devices and sites: what the collector's parsers ask, and what they tell.

Nothing here waits: lines and look-ups cost microseconds, the network and the disk belong to threads of their own.
"""

from __future__ import annotations

import logging
import threading

from . import health
from . import settings as settings_
from .devices import Device, Devices
from .kept import KeptFile
from .passive_dns import PassiveDns
from .reverse_dns import ReverseDns
from .wellformed import without

__all__ = ["Device", "Names", "shared"]

_log = logging.getLogger(__name__)


class Names:
    """One collector's knowledge of names. Any method may be called from any thread."""

    def __init__(self, settings: settings_.Settings) -> None:
        """Make it, without threads or files: start() has those."""
        self.settings = settings
        names = settings.names
        self._devices = Devices(
            static=names.devices,
            left_out=settings.left_out,
            ttl=names.device_ttl,
            size=names.device_size,
            moved=self._address_moved,
            local_domains=names.local_domains,
        )
        self._passive = PassiveDns(ttl=names.dns_ttl, size=names.dns_size, identity=self._devices.identity)
        self._reverse = ReverseDns(
            resolvers=names.resolvers,
            workers=names.ptr_workers,
            waiting=names.ptr_queue,
            rate=names.ptr_rate,
            timeout=names.ptr_timeout,
            ttl=names.ptr_ttl,
            negative_ttl=names.ptr_negative_ttl,
            retry=names.ptr_retry,
            size=names.ptr_size,
        )
        self._kept = (self._devices.bindings, self._devices.names, self._passive.names, self._reverse.names)
        self._file = KeptFile(settings.state_file("names.sqlite"))
        self._users = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None
        self._sites = {"dns": 0, "ptr": 0, "none": 0}
        self._errors = 0

    def start(self) -> None:
        """Read the caches back and start the threads. Counted: each start() has its stop()."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            self._file.open()
            self._file.load(self._kept)
            self._devices.refresh()
            self._devices.names.remove(self._devices.left_out)
            self._passive.forget(self._devices.left_out)
            self._stopping.clear()
            self._keeper = threading.Thread(target=self._keep, name="wrtflow-names", daemon=True)
            self._keeper.start()
            self._reverse.start()
            health.register("names", self.stats)

    def stop(self) -> None:
        """With the last user gone: end the threads and write the caches."""
        with self._lock:
            if self._users == 0:
                return
            self._users -= 1
            if self._users > 0:
                return
            self._stopping.set()
            self._reverse.stop()
            if self._keeper is not None:
                self._keeper.join()
                self._keeper = None
            self._file.save(self._kept)
            self._file.close()

    def observe_dnsmasq(self, observer: str, program: str, message: str, now: float) -> None:
        """Take a line of dnsmasq's query log, of its DHCP server or of odhcpd, received at `now`. Never raises."""
        try:
            name = program.partition("[")[0]
            if name == "dnsmasq":
                self._passive.observe(observer, message, now)
            elif name == "dnsmasq-dhcp":
                self._devices.observe_dnsmasq(message, now)
            elif name == "odhcpd":
                self._devices.observe_odhcpd(message, now)
        except Exception:
            self._failed("a line of %s", program)

    def observe_neighbour(self, observer: str, line: str, now: float) -> None:
        """Take a line of the router's own script (wrtflow-net), received at `now`. Never raises."""
        try:
            self._devices.observe_neighbour(line, now)
        except Exception:
            self._failed("a line of %s", observer)

    def want(self, ip: str) -> None:
        """See to it that the reverse DNS of an address is known soon."""
        self._reverse.want(ip)

    def site(
        self, device_ip: str, remote_ip: str, now: float, through: str | None = None
    ) -> tuple[str | None, str]:
        """Return the remote's name as the device knew it at `now` (the flow's start), and where it is from.

        dns: the device asked for that name, or the access point that it goes through did for it. ptr: reverse DNS.
        none: there is no name, or not yet.
        """
        name = self._asked_for(device_ip, remote_ip, now)
        if name is None and through is not None:
            name = self._asked_for(through, remote_ip, now)
        source = "dns"
        if name is None:
            name = self._reverse.name(remote_ip)
            source = "ptr" if name is not None else "none"
        self._sites[source] += 1
        return name, source

    def _asked_for(self, device_ip: str, remote_ip: str, now: float) -> str | None:
        owner = self._devices.known[device_ip][0].mac
        name = self._passive.name(owner, remote_ip, now) if owner is not None else None
        # Before its MAC was known, the device was its address.
        return self._passive.name(device_ip, remote_ip, now) if name is None else name

    def device(self, ip: str) -> Device:
        """Return what is known of a device at home; without a name of its own it has that of its reverse DNS."""
        device = self._devices.known[ip][0]
        if device.name is None:
            name = self._reverse.name(ip)
            if name is not None:
                return Device(without(name, self.settings.names.local_domains), device.mac)
            self._reverse.want(ip)
        return device

    def stats(self) -> dict[str, int | float]:
        """Return the counters since the start, and the present sizes, for the health record."""
        devices, passive, reverse = self._devices, self._passive, self._reverse
        return {
            "sites_dns": self._sites["dns"],
            "sites_ptr": self._sites["ptr"],
            "sites_none": self._sites["none"],
            "dns_queries": passive.queries,
            "dns_answers": passive.answers,
            "dns_kept": len(passive.names),
            "ptr_waiting": reverse.waiting,
            "ptr_asked": reverse.asked,
            "ptr_found": reverse.found,
            "ptr_none": reverse.none,
            "ptr_failed": reverse.failed,
            "ptr_dropped": reverse.dropped,
            "ptr_kept": len(reverse.names),
            "devices_addresses": len(devices.bindings),
            "devices_known": len(devices.names),
            "names_invalid": passive.invalid + reverse.invalid + devices.invalid,
            "file_errors": self._file.errors,
            "file_set_aside": self._file.set_aside,
            "errors": self._errors,
        }

    def _keep(self) -> None:
        while not self._stopping.wait(self.settings.names.save_every):
            self._devices.refresh()
            self._file.save(self._kept)

    def _address_moved(self, ip: str) -> None:
        self._passive.forget(ip.__eq__)

    def _failed(self, what: str, of: str) -> None:
        self._errors += 1
        _log.warning(what, of, exc_info=True)


_shared: Names | None = None
_shared_lock = threading.Lock()


def shared(settings: settings_.Settings) -> Names:
    """Return the one instance of this process; another one when the settings are others than before.

    It outlives syslog-ng's reload, which makes new parser objects.
    """
    global _shared
    with _shared_lock:
        if _shared is None or _shared.settings != settings:
            _shared = Names(settings)
        return _shared
