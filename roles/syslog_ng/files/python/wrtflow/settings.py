"""The collector's settings: /etc/syslog-ng/wrtflow/settings.json as typed objects, every value checked.

The role writes the file and has the defaults (roles/syslog_ng/defaults/main.yml explains each one). What may be
missing here means "none". `wrtflow check` is the same check, for the role and for people.
"""

from __future__ import annotations

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Names:
    """Names of devices and sites (wrtflow.names)."""

    # Address or MAC (AA-BB-CC-DD-EE-FF) -> name.
    devices: dict[str, str] = field(default_factory=dict)
    # Whom to ask for reverse DNS: address or address#port; empty: what /etc/resolv.conf names.
    resolvers: tuple[str, ...] = ()
    # What a device's name at home may end with, and is called without.
    local_domains: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delivery:
    """Where documents go (wrtflow.store)."""

    url: str
    # Other nodes of the same cluster, for while that one is away.
    more_urls: tuple[str, ...] = ()
    # Where the role puts them.
    ca_file: str = "/etc/syslog-ng/wrtflow/elasticsearch-ca.crt"
    api_key_file: str = "/etc/syslog-ng/wrtflow/collector.api-key"
    # Of health documents.
    health_key_file: str = "/etc/syslog-ng/wrtflow/health.api-key"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything; the sections of the parts are objects of their own."""

    index_prefix: str
    # What is inside beyond what the routers tell: CIDR.
    home_networks: tuple[str, ...]
    # Nothing is stored about these: addresses, networks (CIDR) or MACs (AA-BB-CC-DD-EE-FF).
    left_out: tuple[str, ...] = ()
    # Seconds without a DESTROY after which a flow ends as flow-timeout.
    flow_timeout: int
    # The routers' uci log_prefix: only then is a flow behind it a flow.
    log_prefix: str = ""
    state_directory: str
    # Where unparsed.log is.
    log_directory: str = "/var/log/wrtflow"
    geolite_directory: str
    # Of the house, for wrtflow.hour and wrtflow.weekday; empty: this machine's.
    timezone: str = ""
    names: Names = field(default_factory=Names)
    delivery: Delivery

    def state_file(self, name: str) -> Path:
        """Where a part keeps what has to survive a restart."""
        return Path(self.state_directory) / name


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


# What is allowed, as it is told, and how a value of the right type is taken: None where it is refused.
_Allowed = tuple[str, Callable[[typing.Any], object]]

_PATH: _Allowed = (
    "an absolute path of letters, digits and . _ @ + -, without .. and not / itself",
    # It also stands in syslog-ng's configuration and in its unit.
    _matching(r"(/(?!\.\.?(/|$))[A-Za-z0-9._@+-]{1,255}){1,40}/?"),
)
# By a setting's name; for a list, what each entry is, and for names of devices, what each name is.
_ALLOWED: dict[str, _Allowed] = {
    "index_prefix": (
        "a name for Elasticsearch: a-z, 0-9, - _ and ., beginning with a letter or digit, at most 100 characters",
        _matching(r"[a-z0-9][a-z0-9._-]{0,99}"),
    ),
    "home_networks": (
        "an address or a network, as 192.168.1.0/24, no wider than /8 (IPv6: /7, and not ::ffff:)",
        _network,
    ),
    "left_out": (
        "an address, a network no wider than /8 (IPv6: /7), as 192.168.1.0/24, or the MAC of one device,"
        " as 02:00:00:00:00:21",
        lambda text: _network(text) or _mac(text),
    ),
    "flow_timeout": (
        f"a whole number of seconds from 1 to {_LONGEST_FLOW_TIMEOUT}",
        lambda number: number if 0 < number <= _LONGEST_FLOW_TIMEOUT else None,
    ),
    "log_prefix": (
        "what log_prefix is on the routers: at most 64 printable ASCII characters, no blank at either end",
        _matching(r"([!-~]([ -~]{0,62}[!-~])?)?"),
    ),
    "state_directory": _PATH,
    "log_directory": _PATH,
    "geolite_directory": _PATH,
    "timezone": ("the name of a time zone, as Europe/Berlin, or nothing for this machine's", _timezone),
    "devices": (
        "a name of at most 255 printable characters",
        lambda name: name if name.strip() and name.isprintable() and len(name) < 256 else None,
    ),
    "resolvers": ("the address of a name server, or address#port with a port of 1 to 65535", _resolver),
    "local_domains": ("a host name: a-z, 0-9, - and _, at most 63 of them between dots", wellformed.hostname),
    "url": ("https://HOST:PORT, without user, ? or # (http:// would send the key readable)", _url),
    "more_urls": ("https://HOST:PORT, without user, ? or #", _url),
    "ca_file": _PATH,
    "api_key_file": _PATH,
    "health_key_file": _PATH,
}
_DEVICE: _Allowed = (
    "an address without /, or the MAC of one device, as 02:00:00:00:00:21",
    lambda text: wellformed.address(text) or _mac(text),
)


def load(path: str | os.PathLike[str] | None = None) -> Settings:
    """Read the settings from path, else $WRTFLOW_SETTINGS, else FILE; SettingsError names all that is wrong."""
    path = path or os.environ.get("WRTFLOW_SETTINGS", FILE)
    check = _Check()
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise ValueError(f"larger than {_LARGEST} bytes")
        read = json.loads(content.decode("utf-8"), object_pairs_hook=check.once)
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

    def once(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        """Make the object of JSON's pairs."""
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                self.faults.append(f"{_shown(key)} stands twice in one object: keep one of them")
            found[key] = value
        return found

    def section(self, kind: typing.Any, content: object, where: str) -> object:
        """Make a dataclass of an object of JSON; where is its key, empty for the whole."""
        if not isinstance(content, dict):
            return self._wrong(where or "the whole", content, "an object { }")
        inside = f"{where}." if where else ""
        types = typing.get_type_hints(kind)
        for key in content:
            if key not in types:
                self.faults.append(f"{inside}{_shown(key)[1:-1]} is no setting; there are {', '.join(types)}")
        values = {}
        for item in dataclasses.fields(kind):
            name = item.name
            if name in content:
                values[name] = self._setting(name, types[name], content[name], f"{inside}{name}")
            elif item.default is item.default_factory is dataclasses.MISSING:
                self.faults.append(f"{inside}{name} is missing")
        return None if self.faults else kind(**values)

    def _setting(self, name: str, kind: typing.Any, value: object, where: str) -> object:
        if dataclasses.is_dataclass(kind):
            return self.section(kind, value, where)
        shape = typing.get_origin(kind)
        if shape is tuple and isinstance(value, list):
            return tuple(self._one(_ALLOWED[name], entry, f"{where}[{at}]") for at, entry in enumerate(value))
        if shape is dict and isinstance(value, dict):
            return self._devices(value, where)
        if shape is None:
            return self._one(_ALLOWED[name], value, where, kind)
        return self._wrong(where, value, "a list [ ]" if shape is tuple else "an object { }")

    def _devices(self, names: dict[str, object], where: str) -> dict[object, object]:
        """Check names by address or MAC. One device has one name, however it is spelt."""
        found: dict[object, tuple[str, object]] = {}
        for key, name in names.items():
            here = f"{where}[{_shown(key)}]"
            device = self._one(_DEVICE, key, f"a key of {where}")
            called = self._one(_ALLOWED["devices"], name, here)
            first, known = found.setdefault(device, (here, called))
            if device and known != called:
                self.faults.append(
                    f"{here} is {_shown(name)}, and {first} is the same device with another name: keep one of them"
                )
        return {device: called for device, (_, called) in found.items()}

    def _one(self, allowed: _Allowed, value: object, where: str, kind: type = str) -> object:
        told, take = allowed
        taken = take(value) if type(value) is kind else None
        return self._wrong(where, value, told) if taken is None else taken

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


# By itself it needs nothing but Python: the role checks settings on the control machine.
if __name__ == "__main__":
    sys.exit(check(sys.argv[1]))
