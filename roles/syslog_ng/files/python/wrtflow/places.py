"""Where an address is: at home, left out, or somewhere in the world. Each address is placed once, then remembered."""

from __future__ import annotations

import collections
import functools
import ipaddress
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

# They never leave their link: never looked up, never "outside".
_LINK = (
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32",
    "::/128", "::1/128", "fe80::/10", "ff00::/8",
)  # fmt: skip

# The widest networks that a router may tell, by IP version: a false line must not turn the world into the house.
_WIDEST = {4: 16, 6: 44}
# Networks of one sender's routers, and of all.
_TOLD = 64
_TOLD_BY_ALL = 256
# ms that a network stays home after its router tells it no more: flows through it are still open.
_FORMER = 86_400_000
# Addresses that a router translates to: the last ones that are kept, and ms until another one replaces the oldest. Each
# change has all addresses placed again, and a router may translate to a whole network.
_SHOWN = 8
_PAUSE = 60_000
# Addresses remembered. A flood of new ones (a scan) begins the memory again.
_SIZE = 50_000
# Addresses that a database is tried with.
_TRIED = 1000
# NAT64 (RFC 6052): the last 32 bits are an IPv4 address.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_MAPPED = ipaddress.ip_network("::ffff:0:0/96")

# Four numbers, whatever is glued to them.
_IPV4 = re.compile(r"(?<![0-9])([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9])")
_ADDRESS_OR_MAC = re.compile(r"[0-9A-Fa-f:.-]{2,45}")


class _Networks:
    """A set of networks. A look-up costs a step for each prefix length in it, however many networks there are."""

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
    """The devices of which nothing is stored: by address, network or MAC."""

    def __init__(self, items: Iterable[str]) -> None:
        """Take addresses and networks (CIDR), and MACs (AA-BB-CC-DD-EE-FF); ValueError for anything else."""
        found = set(items)
        self.macs = {item for item in found if spelt(item) == item}
        networks = [ipaddress.ip_network(item) for item in found - self.macs]
        self._networks = _Networks(networks)
        # What the texts of a network's addresses have in common.
        ends = [(str(each[0]), str(each[-1])) for each in networks]
        self._texts = [os.path.commonprefix(each) for each in ends]  # noqa: RUF071 (texts, no paths)
        self.any = bool(found)  # whether anything is left out at all

    def address(self, ip: str) -> bool:
        """Tell whether an address is left out by itself; its MAC is another question."""
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


class Networks:
    """The home networks: the configured ones, and what the routers tell and show of their own."""

    def __init__(self, configured: Iterable[str], state: State, clock: Clock) -> None:
        """configured: in CIDR."""
        self._configured = [ipaddress.ip_network(text, strict=False) for text in (*_LINK, *configured)]
        self._clock = clock
        # By router: its networks, and until when each is home (ms, steady): None for those of now.
        self._told: Rows[dict[Network, int | None]] = Rows(state, "networks", _row)
        # By router that tells none: when it last showed a new address, and its addresses.
        self._shown: dict[str, tuple[int, collections.deque[Network]]] = {}
        # The parsers tell and show, the keeper refreshes.
        self._lock = threading.Lock()
        self._unite()

    def load(self) -> None:
        """Read what was told before."""
        latest = self._clock.now() + _FORMER

        def decode(_: str, row: typing.Any) -> dict[Network, int | None]:
            return {
                _narrow(ipaddress.ip_network(text)): None if until is None else min(int(until), latest)
                for text, until in row
            }

        self._told.load(decode)
        self._unite()

    def is_home(self, address: Address) -> bool:
        """Tell whether the address is inside or never leaves its link."""
        return address in self._home

    def tell(self, router: str, networks: list[str]) -> bool:
        """Take a router's networks and addresses, in place of those it told before. Returns whether they are others.

        ValueError where one is none or wider than a house's, or there are too many: none is taken then.
        """
        narrow = (_narrow(ipaddress.ip_network(text, strict=False)) for text in networks[: _TOLD + 1])
        told: dict[Network, int | None] = dict.fromkeys(narrow)
        with self._lock:
            before = self._told.get(router, {})
            sender = router.rpartition("@")[2]
            others = {name: len(items) for name, items in self._told.items() if name != router}
            own = sum(number for name, number in others.items() if name.rpartition("@")[2] == sender)
            if own + len(told) > _TOLD or sum(others.values()) + len(told) > _TOLD_BY_ALL:
                raise ValueError("too many networks")
            if told.keys() == {network for network, until in before.items() if until is None}:
                return False
            # Those of before stay for a day: the latest, as far as there is room.
            day = self._clock.now() + _FORMER
            former = {network: until or day for network, until in before.items() if network not in told}
            latest = sorted(former, key=former.__getitem__, reverse=True)
            told |= {network: former[network] for network in latest[: max(0, _TOLD - own - len(told))]}
            self._shown.pop(router, None)
            self._put(router, told)
            self._unite()
            return True

    def shows(self, router: str, address: str) -> bool:
        """Take an address that a router translates home addresses to: it is its own. Returns whether it is new.

        A router that tells its networks knows better.
        """
        if router in self._told or (router not in self._shown and len(self._shown) >= _TOLD_BY_ALL):
            return False
        with self._lock:
            now = self._clock.now()
            last, shown = self._shown.get(router, (now, collections.deque[Network](maxlen=_SHOWN)))
            if len(shown) == _SHOWN and now - last < _PAUSE:
                return False
            shown.append(ipaddress.ip_network(address))
            self._shown[router] = now, shown
            self._unite()
            return True

    def refresh(self) -> bool:
        """Let go of networks whose day is over. Returns whether there were any."""
        now = self._clock.now()
        if self._next > now:
            return False
        with self._lock:
            for router, items in list(self._told.items()):
                kept = {network: until for network, until in items.items() if until is None or until > now}
                self._put(router, kept)
            self._unite()
            return True

    def _put(self, router: str, networks: dict[Network, int | None]) -> None:
        if networks:
            self._told[router] = networks
        else:
            self._told.drop(router)

    def _unite(self) -> None:
        told = [network for items in self._told.values() for network in items]
        shown = [network for _, networks in self._shown.values() for network in networks]
        self._home = _Networks([*self._configured, *told, *shown])
        # When the next former one is to go.
        untils = (until for items in self._told.values() for until in items.values())
        self._next = min(filter(None, untils), default=2**63)


def _row(networks: dict[Network, int | None]) -> list[tuple[str, int | None]]:
    return [(str(network), until) for network, until in networks.items()]


def _narrow(network: Network) -> Network:
    # All of IPv4 is inside of these two.
    inside = network.version == 6 and any(network.overlaps(each) for each in (_NAT64, _MAPPED))
    if network.prefixlen < _WIDEST[network.version] or inside:
        raise ValueError(f"{network} is wider than a house's network (/{_WIDEST[network.version]})")
    return network


@dataclass(slots=True, eq=False)
class Place:
    """One address."""

    ip: str
    version: int
    home: bool = False
    left_out: bool = False
    # What the databases say.
    country: str | None = None
    system: int | None = None  # the number of the autonomous system
    json: str = ""  # members of source or destination: the place and the autonomous system


class Places(dict[str, Place]):
    """The addresses met so far, by their text; ValueError for what is no address on the wire."""

    def __init__(self, networks: Networks, left_out: LeftOut, databases: Databases) -> None:
        """Remember nothing yet."""
        super().__init__()
        self._networks = networks
        self._left_out = left_out
        self._databases = databases

    def __missing__(self, text: str) -> Place:
        """Meet an address."""
        found = ipaddress.ip_address(text)
        if found.version == 6 and (found.scope_id or found.ipv4_mapped):
            raise ValueError(f"{text} is no address on the wire")
        place = Place(str(found), found.version, self._networks.is_home(found), self._left_out.address(text))
        # Home, link-local and multicast addresses are nowhere.
        if not place.home:
            self._databases.look_up(place, str(_inside(found)))
        if len(self) >= _SIZE:
            self.clear()
        self[text] = place
        return place


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
        country = _text(city, "country", "iso_code")
        region = _text(city, "subdivisions", 0, "iso_code")
        latitude, longitude = (_number(city, "location", name) for name in ("latitude", "longitude"))
        known = latitude is not None and longitude is not None
        geo = {
            "continent_code": _text(city, "continent", "code"),
            "country_iso_code": country,
            "country_name": _text(city, "country", "names", "en"),
            "region_name": _text(city, "subdivisions", 0, "names", "en"),
            "region_iso_code": f"{country}-{region}" if country and region else None,
            "city_name": _text(city, "city", "names", "en"),
            "location": {"lat": latitude, "lon": longitude} if known else None,
        }
        geo = {name: value for name, value in geo.items() if value}
        number = _number(system, "autonomous_system_number")
        place.country, place.json = country, f',"geo":{_dump(geo)}' if geo else ""
        if number is not None:
            place.system = int(number)
            organization = _text(system, "autonomous_system_organization")
            owner = {"organization": {"name": organization}} if organization else {}
            place.json += f',"as":{_dump({"number": place.system, **owner})}'

    def report(self) -> dict[str, object]:
        """Return the databases' ages in days since they were built, for the health record."""
        opened = list(self._open.items())
        ages = {file.stem: round((time.time() - built) / 86400, 1) for file, (_, built, _) in opened}
        return {**ages, **({"fault": " ".join(self._faults.values())} if self._faults else {})}

    def _get(self, file: Path, ip: str) -> object:
        if file not in self._open:
            return None
        try:
            return self._open[file][2].get(ip)
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


def _text(record: object, *path: str | int) -> str | None:
    found = _member(record, path)
    return found if isinstance(found, str) else None


def _number(record: object, *path: str | int) -> float | None:
    found = _member(record, path)
    return found if type(found) in (int, float) and abs(found) < 2**32 else None


def _member(record: typing.Any, path: Iterable[str | int]) -> typing.Any:
    try:
        return functools.reduce(operator.getitem, path, record)
    except (LookupError, TypeError):
        return None


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
