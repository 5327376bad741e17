"""Where an address is: at home, left out, or somewhere in the world. Each address is placed once, then remembered."""

from __future__ import annotations

import collections
import functools
import ipaddress
import itertools
import json
import operator
import os
import re
import shutil
import threading
import time
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import maxminddb

from wrtflow import health
from wrtflow.clock import Clock
from wrtflow.state import Rows, State
from wrtflow.wellformed import address, spelt

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Their addresses never leave their link: they are never looked up, and always at home.
_LINK = (
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255",
    "::", "::1", "fe80::/10", "ff00::/8",
)  # fmt: skip
# The widest networks that a router may report, by IP version: a false line must not turn the world into the house.
_WIDEST = {4: 16, 6: 44}
# Networks of one sender's routers, of all, and of one router that reports none.
_TOLD, _TOLD_BY_ALL, _SHOWN = 64, 256, 8
# ms that a network stays at home after its router's last report, and after a report without it: flows through it are
# still open.
_SILENT, _FORMER = 30 * 86_400_000, 86_400_000
_SIZE = 50_000  # addresses remembered; when they are more (a scan), the memory is emptied
_TRIED = 1000  # addresses that a database is tried with
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # the last 32 bits are an IPv4 address (RFC 6052)
_MAPPED = ipaddress.ip_network("::ffff:0:0/96")
_IPV4 = re.compile(r"(?<![0-9])([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9])")
_ADDRESS_OR_MAC = re.compile(r"[0-9A-Fa-f:.-]{2,45}")
_dump = functools.partial(json.dumps, ensure_ascii=False, separators=(",", ":"))
# Member of a document's geo -> where GeoLite2-City has it.
_GEO: dict[str, tuple[str | int, ...]] = {
    "continent_code": ("continent", "code"),
    "country_iso_code": ("country", "iso_code"),
    "country_name": ("country", "names", "en"),
    "region": ("subdivisions", 0, "iso_code"),
    "region_name": ("subdivisions", 0, "names", "en"),
    "city_name": ("city", "names", "en"),
}


class _Networks:
    """A set of networks. A look-up takes one step for each prefix length, not for each network."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._prefixes: dict[tuple[int, int], set[int]] = collections.defaultdict(set)
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            self._prefixes[network.version, shift].add(int(network.network_address) >> shift)

    def __contains__(self, address: Address) -> bool:
        version, number = address.version, int(address)
        prefixes = self._prefixes.items()
        return any(number >> shift in found for (of, shift), found in prefixes if of == version)


class LeftOut:
    """The devices that nothing is stored about: by address, network or MAC."""

    def __init__(self, items: Iterable[str]) -> None:
        """Take addresses and networks (CIDR), and MACs (AA-BB-CC-DD-EE-FF); ValueError for anything else."""
        found = set(items)
        self.any = bool(found)  # whether anything is left out at all
        self.macs = {item for item in found if spelt(item) == item}
        networks = [ipaddress.ip_network(item) for item in found - self.macs]
        self._networks = _Networks(networks)
        # What the addresses of a network begin with.
        ends = [(str(each[0]), str(each[-1])) for each in networks]
        self._texts = [os.path.commonprefix(each) for each in ends]  # noqa: RUF071 (texts, no paths)

    def address(self, ip: str) -> bool:
        """Tell whether an address is left out; the MAC that has it may be left out all the same."""
        if not self.any:
            return False
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return False
        return address in self._networks or _inside(address) in self._networks

    def mac(self, mac: str | None) -> bool:
        """Tell whether a MAC (AA-BB-CC-DD-EE-FF) is left out."""
        return mac in self.macs

    def begins(self, text: str) -> bool:
        """Tell whether a text may be the beginning of an address or a MAC that is left out."""
        return any(known.startswith(text) or text.startswith(known) for known in self._texts) or any(
            mac.startswith(text.upper().replace(":", "-")) for mac in self.macs
        )

    def words(self, text: str) -> Iterator[str]:
        """Go through a text's addresses and MACs, each in its usual spelling."""
        yield from (".".join(str(int(part)) for part in parts) for parts in _IPV4.findall(text))
        for word in _ADDRESS_OR_MAC.findall(text):
            yield from filter(None, (address(part) or spelt(part) for part in (word, word.strip(":.-"))))


def _inside(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for; any other as it is."""
    if address.version == 4:
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


@dataclass(slots=True, eq=False)
class Place:
    """One address."""

    ip: str
    version: int
    home: bool = False
    left_out: bool = False
    country: str | None = None
    system: int | None = None  # the number of the autonomous system
    json: str = ""  # members of source or destination: the place and the autonomous system


class Places(dict[str, Place]):
    """The addresses met so far, by their text, and the home networks; ValueError for what is no address on the wire.

    At home are the configured networks, those that routers report, and the addresses that other routers translate to.
    """

    def __init__(
        self, configured: Iterable[str], left_out: LeftOut, databases: Databases, state: State, clock: Clock
    ) -> None:
        """configured: home networks in CIDR."""
        super().__init__()
        self._configured = (*_LINK, *configured)
        self._left_out, self._databases, self._clock = left_out, databases, clock
        # By router: its networks, and until when each is at home (ms, steady).
        self._told: Rows[dict[str, int]] = Rows(state, "networks", lambda told: list(told.items()))
        self._lock = threading.Lock()
        self._unite()

    def __missing__(self, text: str) -> Place:
        """Meet an address."""
        found = ipaddress.ip_address(text)
        if found.version == 6 and (found.scope_id or found.ipv4_mapped):
            raise ValueError(f"{text} is no address on the wire")
        with self._lock:
            place = Place(str(found), found.version, found in self._home, self._left_out.address(text))
            # Home, link-local and multicast addresses are nowhere.
            if not place.home:
                self._databases.look_up(place, str(_inside(found)))
            if len(self) >= _SIZE:
                self.clear()
            self[text] = place
            return place

    def load(self) -> None:
        """Read the networks that routers reported before."""
        latest = self._clock.now() + _SILENT
        self._told.load(
            lambda _, row: {_narrow(text): min(int(until or latest), latest) for text, until in row}
        )
        self._unite()

    def tell(self, router: str, networks: list[str]) -> bool:
        """Take a router's networks and addresses, in place of those before. Returns whether they are others.

        ValueError if one of them is malformed or too wide, or if there are too many: none is taken then.
        """
        told = set(map(_narrow, networks[: _TOLD + 1]))
        with self._lock:
            room = self._room(router) - len(told)
            if room < 0:
                raise ValueError("too many networks")
            before, now = self._told.get(router, {}), self._clock.now()
            present = {network for network, until in before.items() if until > now + _FORMER}
            # Of those before, the latest stay for a day. What the router has only translated to does not.
            former = sorted(before.keys() - told, key=before.__getitem__)[-room:] if present and room else []
            kept = {each: min(before[each], now + _FORMER) for each in former}
            self._put(router, kept | dict.fromkeys(told, now + _SILENT))
            return told != present

    def shows(self, router: str, address: str) -> bool:
        """Take an address that a router translates to, so it is its own. Returns whether it was taken.

        A router that reports its networks knows better.
        """
        with self._lock:
            before, until = self._told.get(router, {}), self._clock.now() + _FORMER
            known = len(before) >= _SHOWN or any(each > until for each in before.values())
            if known or len(before) >= self._room(router):
                return False
            self._put(router, before | {address: until})
            return True

    def refresh(self) -> None:
        """Delete the networks whose time is over."""
        now = self._clock.now()
        with self._lock:
            for router, told in list(self._told.items()):
                if min(told.values(), default=0) <= now:
                    self._put(router, {network: until for network, until in told.items() if until > now})

    def _room(self, router: str) -> int:
        """Return how many networks a router may have."""
        sender = router.rpartition("@")[2]
        others = {name: len(told) for name, told in self._told.items() if name != router}
        own = sum(count for name, count in others.items() if name.rpartition("@")[2] == sender)
        return min(_TOLD - own, _TOLD_BY_ALL - sum(others.values()))

    def _put(self, router: str, networks: dict[str, int]) -> None:
        before = self._told.drop(router) or {}
        if networks:
            self._told[router] = networks
        if networks.keys() != before.keys():
            self._unite()

    def _unite(self) -> None:
        texts = itertools.chain(self._configured, *self._told.values())
        self._home = _Networks(ipaddress.ip_network(text, strict=False) for text in texts)
        self.clear()


def _narrow(text: str) -> str:
    network = ipaddress.ip_network(text, strict=False)
    # All of IPv4 is inside of these two.
    inside = network.version == 6 and any(network.overlaps(each) for each in (_NAT64, _MAPPED))
    if network.prefixlen < _WIDEST[network.version] or inside:
        raise ValueError(f"{network} is wider than a house's network (/{_WIDEST[network.version]})")
    return str(network)


class Databases:
    """GeoLite2-City.mmdb and GeoLite2-ASN.mmdb of a folder. Without one of them addresses have no such place."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; open() opens them."""
        self._files = [folder / "GeoLite2-City.mmdb", folder / "GeoLite2-ASN.mmdb"]
        # By file: its version, when it was built (s since 1970), and its reader.
        self._open: dict[Path, tuple[tuple[int, int, int], int, maxminddb.Reader]] = {}
        self._faults: dict[Path, str] = {}

    def open(self) -> None:
        """Open the files that are new. A file that can't be used does not replace the one in use."""
        for file in self._files:
            try:
                status = file.stat()
                version = status.st_ino, status.st_size, status.st_mtime_ns
                if file not in self._open or self._open[file][0] != version:
                    self._open[file] = version, *_read(file)
                self._faults.pop(file, None)
            # What a damaged file may raise is nowhere written.
            except Exception as error:
                use = "the one before stays in use" if file in self._open else "addresses have no place"
                self._faults[file] = f"{file} can't be used ({error}): {use}."
                health.say(health.ERROR, self._faults[file])

    def look_up(self, place: Place, ip: str) -> None:
        """Write into the place what the databases have of an address."""
        city, system = (self._get(file, ip) for file in self._files)
        geo = {name: _member(city, str, *path) for name, path in _GEO.items()}
        place.country, region = geo["country_iso_code"], geo.pop("region")
        geo["region_iso_code"] = f"{place.country}-{region}" if place.country and region else None
        latitude, longitude = (_member(city, float, "location", name) for name in ("latitude", "longitude"))
        if latitude is not None and longitude is not None:
            geo["location"] = {"lat": latitude, "lon": longitude}
        geo = {name: value for name, value in geo.items() if value}
        place.json = f',"geo":{_dump(geo)}' if geo else ""
        number = _member(system, float, "autonomous_system_number")
        if number is not None:
            place.system = int(number)
            organization = _member(system, str, "autonomous_system_organization")
            owner = {"organization": {"name": organization}} if organization else {}
            place.json += f',"as":{_dump({"number": place.system, **owner})}'

    def report(self) -> dict[str, object]:
        """Return the databases' ages in days since they were built, for the health record."""
        opened = list(self._open.items())
        ages = {file.stem: round((time.time() - built) / 86400, 1) for file, (_, built, _) in opened}
        return {**ages, **({"fault": " ".join(self._faults.values())} if self._faults else {})}

    def _get(self, file: Path, ip: str) -> object:
        try:
            return self._open[file][2].get(ip) if file in self._open else None
        except Exception as error:
            health.rarely(file.name, health.ERROR, f"{file} is damaged ({error}): look for a new one.")
            return None


def _read(file: Path) -> tuple[int, maxminddb.Reader]:
    """Open a copy of a database in memory: a file that is cut while it is mapped would end the process.

    Python's reader tries it first: the C library is 15 times as fast, but some damaged files make it end the process.
    """
    with file.open("rb") as content:
        # Its name tells in /proc/PID/maps which file it is a copy of.
        descriptor = os.memfd_create(f"{file.name}.{os.fstat(content.fileno()).st_ino}")
        with os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(content, copy, 1 << 20)
            copy.flush()
            name = f"/proc/self/fd/{descriptor}"
            with maxminddb.open_database(name, maxminddb.MODE_MMAP) as tried:
                built = int(tried.metadata().build_epoch)
                for number in range(0, 1 << 32, (1 << 32) // _TRIED):
                    tried.get(str(ipaddress.IPv4Address(number)))
            return built, maxminddb.open_database(name, maxminddb.MODE_AUTO)


def _member(record: typing.Any, kind: type, *path: str | int) -> typing.Any:
    """Return a member of a record, or None if it is missing or of another kind. kind: str, or float for any number."""
    try:
        found = functools.reduce(operator.getitem, path, record)
    except (LookupError, TypeError):
        return None
    if kind is str:
        return found if isinstance(found, str) else None
    return found if type(found) in (int, float) and abs(found) < 2**32 else None
