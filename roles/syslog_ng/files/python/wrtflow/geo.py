"""Addresses as documents need them: each is read, placed and turned into JSON once, then remembered.

The look-up itself is syslog-ng's: geoip2() in 40-enrich.conf.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from pathlib import Path

import maxminddb

from wrtflow.networks import Networks

# Addresses remembered; a flood of new ones (a scan) starts the memory anew.
_SIZE = 50_000

_GEO = {
    "continent_code": "continent.code",
    "country_iso_code": "country.iso_code",
    "country_name": "country.names.en",
    "region_name": "subdivisions.0.names.en",
    "city_name": "city.names.en",
}


class Place:
    """One address."""

    __slots__ = ("country", "home", "ip", "json", "left_out", "looked_up", "system", "version")

    def __init__(self, text: str, networks: Networks) -> None:
        """Read the address; ValueError where it is none."""
        address = ipaddress.ip_address(text)
        if address.version == 6 and (address.scope_id or address.ipv4_mapped):
            raise ValueError(f"{text} is no address on the wire")
        self.ip = str(address)
        self.version = address.version
        self.home = networks.is_home(address)
        self.left_out = networks.is_left_out(address)
        # Home, link-local and multicast addresses are nowhere.
        self.looked_up = self.home
        self.country: str | None = None
        self.system: str | None = None
        # Members of source or destination: the place and the autonomous system.
        self.json = ""

    def put(self, get: Callable[[str], str]) -> None:
        """Take what the databases say. get(name) returns the value of a name below the prefix, or ""."""
        members = []
        geo: dict[str, object] = {name: get(f"city.{path}") for name, path in _GEO.items()}
        self.country = get("city.country.iso_code") or None
        region = get("city.subdivisions.0.iso_code")
        if self.country and region:
            geo["region_iso_code"] = f"{self.country}-{region}"
        latitude, longitude = get("city.location.latitude"), get("city.location.longitude")
        if latitude and longitude:
            geo["location"] = {"lat": float(latitude), "lon": float(longitude)}
        geo = {name: value for name, value in geo.items() if value}
        if geo:
            members.append(f',"geo":{_dump(geo)}')
        self.system = get("asn.autonomous_system_number") or None
        if self.system:
            system: dict[str, object] = {"number": int(self.system)}
            organization = get("asn.autonomous_system_organization")
            if organization:
                system["organization"] = {"name": organization}
            members.append(f',"as":{_dump(system)}')
        self.json = "".join(members)
        self.looked_up = True


class Places(dict[str, Place]):
    """The addresses met so far, by their text; ValueError for what is no address."""

    def __init__(self, networks: Networks) -> None:
        """Remember nothing yet."""
        super().__init__()
        self._networks = networks

    def __missing__(self, text: str) -> Place:
        """Meet an address."""
        if len(self) >= _SIZE:
            self.clear()
        place = self[text] = Place(text, self._networks)
        return place


def built(folder: Path) -> dict[str, int]:
    """Return when the databases in a folder were made by whoever makes them (s since 1970), by their names.

    Not the files' times, which are those of the download. What can't be read is left out.
    """
    found = {}
    for file in sorted(folder.glob("GeoLite2-*.mmdb")):
        try:
            # Read, not mapped: a file that is cut while it is mapped ends the process.
            with maxminddb.open_database(file, maxminddb.MODE_FILE) as database:
                found[file.stem] = int(database.metadata().build_epoch)
        except (OSError, ValueError, maxminddb.InvalidDatabaseError):
            continue
    return found


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
