"""The collector's settings: /etc/syslog-ng/wrtflow/settings.json as typed objects, every value checked.

The role writes the file, and its defaults/main.yml explains each setting. One that has a default here may be missing in
the file. `wrtflow check` is the same check, for the role and for people.
"""

from __future__ import annotations

import collections
import dataclasses
import ipaddress
import json
import os
import re
import sys
import typing
import zoneinfo
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Annotated

from wrtflow import wellformed

FILE = "/etc/syslog-ng/wrtflow/settings.json"

# Seconds: a year. Beyond it no flow would ever time out.
_LONGEST_FLOW_TIMEOUT = 31_536_000
# The widest networks of a house, as prefix lengths by IP version: 10.0.0.0/8 and fc00::/7.
_WIDEST = {4: 8, 6: 7}
# Bytes of the file: far above any house's.
_LARGEST = 1 << 20


class SettingsError(ValueError):
    """The settings file can't be used. faults has one sentence for each value that is wrong."""

    def __init__(self, *faults: str) -> None:
        """Take the sentences."""
        super().__init__("; ".join(faults))
        self.faults = faults


def _matching(pattern: str) -> Callable[[str], str | None]:
    return lambda text: text if re.fullmatch(pattern, text) else None


def _network(text: str) -> str | None:
    # ip_network() also takes netmasks and zones, which nothing else here understands.
    if not re.fullmatch(r"[0-9A-Fa-f.:]+(/[0-9]{1,3})?", text):
        return None
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    return None if mapped or network.prefixlen < _WIDEST[network.version] else str(network)


def _mac(text: str) -> str | None:
    return wellformed.mac(wellformed.spelt(text) or "")


def _resolver(text: str) -> str | None:
    address, mark, port = text.partition("#")
    address = wellformed.address(address) or ""
    if address in ("", "0.0.0.0", "::") or (mark and not _is_port(port)):
        return None
    return f"{address}{mark}{port}"


def _is_port(text: str) -> bool:
    return bool(re.fullmatch("[1-9][0-9]{0,4}", text)) and int(text) < 65536


def _url(text: str) -> str | None:
    found = re.fullmatch(
        r"https://(?:\[(.*:.*)\]|([^:/\[\]]*))(?::([^/]*))?(?:/[\w.~%+/-]*)?", text, re.ASCII
    )
    if not found:
        return None
    ipv6, host, port = found.groups()
    known = wellformed.address(ipv6 or host) or wellformed.hostname(ipv6 or host)
    return text if known and (port is None or _is_port(port)) else None


def _timezone(text: str) -> str | None:
    try:
        return text if not text or zoneinfo.ZoneInfo(text) else None
    except (LookupError, ValueError, OSError):
        return None


# Types of values: Python's type, the allowed values in words, and a function that returns the value in the form used
# here, or None if it is not allowed.
_Path = Annotated[
    str,
    "an absolute path of letters, digits and . _ @ + -, without .. and not / itself",
    # It also stands in syslog-ng's configuration and in its unit.
    _matching(r"(/(?!\.\.?(/|$))[A-Za-z0-9._@+-]{1,255}){1,40}/?"),
]
_Index = Annotated[
    str,
    "a name for Elasticsearch: a-z, 0-9, - _ and ., beginning with a letter or digit, at most 100 characters",
    _matching(r"[a-z0-9][a-z0-9._-]{0,99}"),
]
_Network = Annotated[
    str, "an address or a network, as 192.168.1.0/24, no wider than /8 (IPv6: /7, and not ::ffff:)", _network
]
_LeftOut = Annotated[
    str,
    "an address, a network no wider than /8 (IPv6: /7), as 192.168.1.0/24, or the MAC of one device,"
    " as 02:00:00:00:00:21",
    lambda text: _network(text) or _mac(text),
]
_Seconds = Annotated[
    int,
    f"a whole number of seconds from 1 to {_LONGEST_FLOW_TIMEOUT}",
    lambda number: number if 0 < number <= _LONGEST_FLOW_TIMEOUT else None,
]
_LogPrefix = Annotated[
    str,
    "what log_prefix is on the routers: at most 64 printable ASCII characters, no blank at either end",
    _matching(r"([!-~]([ -~]{0,62}[!-~])?)?"),
]
_Timezone = Annotated[
    str, "the name of a time zone, as Europe/Berlin, or nothing for this machine's", _timezone
]
_Device = Annotated[
    str,
    "an address without /, or the MAC of one device, as 02:00:00:00:00:21",
    lambda text: wellformed.address(text) or _mac(text),
]
_Name = Annotated[
    str,
    "a name of at most 255 printable characters",
    lambda name: name if name.strip() and name.isprintable() and len(name) < 256 else None,
]
_Resolver = Annotated[
    str, "the address of a name server, or address#port with a port of 1 to 65535", _resolver
]
_Domain = Annotated[
    str, "a host name: a-z, 0-9, - and _, at most 63 of them between dots", wellformed.hostname
]
_Url = Annotated[str, "https://HOST:PORT, without user, ? or # (http:// would send the key readable)", _url]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Names:
    """Names of devices and sites (wrtflow.names)."""

    # By address or MAC (AA-BB-CC-DD-EE-FF).
    devices: dict[_Device, _Name] = field(default_factory=dict)
    resolvers: tuple[_Resolver, ...] = ()
    local_domains: tuple[_Domain, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delivery:
    """Where documents go (wrtflow.store)."""

    url: _Url
    more_urls: tuple[_Url, ...] = ()
    # The role puts these files there.
    ca_file: _Path = "/etc/syslog-ng/wrtflow/elasticsearch-ca.crt"
    api_key_file: _Path = "/etc/syslog-ng/wrtflow/collector.api-key"
    health_key_file: _Path = "/etc/syslog-ng/wrtflow/health.api-key"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything; the sections of the parts are objects of their own."""

    index_prefix: _Index
    home_networks: tuple[_Network, ...]
    # Networks (CIDR) and MACs (AA-BB-CC-DD-EE-FF).
    left_out: tuple[_LeftOut, ...] = ()
    flow_timeout: _Seconds
    log_prefix: _LogPrefix = ""
    state_directory: _Path
    # Folder of unparsed.log.
    log_directory: _Path = "/var/log/wrtflow"
    geolite_directory: _Path
    timezone: _Timezone = ""
    names: Names = field(default_factory=Names)
    delivery: Delivery

    def state_file(self, name: str) -> Path:
        """Return the path of a file in the state folder."""
        return Path(self.state_directory) / name


def load(path: str | os.PathLike[str] | None = None) -> Settings:
    """Read the settings from path, else $WRTFLOW_SETTINGS, else FILE; SettingsError names all that is wrong."""
    path = path or os.environ.get("WRTFLOW_SETTINGS", FILE)
    check = _Check()
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise ValueError(f"larger than {_LARGEST} bytes")
        read = json.loads(content.decode("utf-8"), object_pairs_hook=check.pairs)
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: it can't be read: {error}") from error
    made = check.section(Settings, read, "")
    if check.faults:
        raise SettingsError(*(f"{path}: {fault}" for fault in check.faults))
    return typing.cast("Settings", made)


class _Check:
    """One check of a file. Once there are faults, what it returns means nothing."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def pairs(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        for name, times in collections.Counter(name for name, _ in pairs).items():
            if times > 1:
                self.faults.append(f"{_shown(name)} stands twice in one object: keep one of them")
        return dict(pairs)

    def section(self, kind: typing.Any, content: object, where: str) -> object:
        """Make a dataclass of an object of JSON; where is its key, empty for the whole."""
        if not isinstance(content, dict):
            return self._wrong(where or "the whole", content, "an object { }")
        inside = f"{where}." if where else ""
        types = typing.get_type_hints(kind, include_extras=True)
        for key in content:
            if key not in types:
                self.faults.append(f"{inside}{_shown(key)[1:-1]} is no setting; there are {', '.join(types)}")
        values = {}
        for item in dataclasses.fields(kind):
            if item.name in content:
                values[item.name] = self._value(types[item.name], content[item.name], f"{inside}{item.name}")
            elif item.default is item.default_factory is dataclasses.MISSING:
                self.faults.append(f"{inside}{item.name} is missing")
        return None if self.faults else kind(**values)

    def _value(self, kind: typing.Any, value: object, where: str) -> object:
        shape, inside = typing.get_origin(kind), typing.get_args(kind)
        if shape is Annotated:
            plain, allowed, take = inside
            taken = take(value) if type(value) is plain else None
            return self._wrong(where, value, allowed) if taken is None else taken
        if shape is tuple and isinstance(value, list):
            return tuple(self._value(inside[0], entry, f"{where}[{at}]") for at, entry in enumerate(value))
        if shape is dict and isinstance(value, dict):
            return self._devices(value, where)
        return self._wrong(where, value, "a list [ ]") if shape is tuple else self.section(kind, value, where)

    def _devices(self, names: dict[str, object], where: str) -> dict[object, object]:
        """Check names by address or MAC. One device has one name, however it is spelt."""
        found: dict[object, tuple[str, object]] = {}
        for key, name in names.items():
            here = f"{where}[{_shown(key)}]"
            device = self._value(_Device, key, f"a key of {where}")
            called = self._value(_Name, name, here)
            first, known = found.setdefault(device, (here, called))
            if device and known != called:
                self.faults.append(
                    f"{here} is {_shown(name)}, and {first} is the same device with another name: keep one of them"
                )
        return {device: called for device, (_, called) in found.items()}

    def _wrong(self, where: str, value: object, allowed: str) -> object:
        self.faults.append(f"{where} is {_shown(value)}; allowed is {allowed}")
        return None


def _shown(value: object) -> str:
    """Return a value as JSON has it, in ASCII and not too long."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "nested too deep"
    return text if len(text) <= 80 else f"{text[:77]}..."


def check(path: str | None) -> int:
    """Print all that is wrong with a settings file, one sentence a line, and return the exit status."""
    try:
        load(path)
    except SettingsError as error:
        for fault in error.faults:
            print(f"wrtflow: {fault}", file=sys.stderr)
        return 1
    return 0


# The role runs this on the control machine: it needs nothing but Python.
if __name__ == "__main__":
    sys.exit(check(sys.argv[1]))
