"""The collector's settings: /etc/syslog-ng/wrtflow/settings.json as typed objects.

The role renders every value (roles/syslog_ng/defaults/main.yml explains each one); the defaults here are
the same, for whoever runs a part of this package by itself.
"""

from __future__ import annotations

import dataclasses
import json
import os
import typing
from pathlib import Path

FILE = "/etc/syslog-ng/wrtflow/settings.json"


class SettingsError(ValueError):
    """The settings file can't be used; the text says which value and why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Names:
    """Names of devices and sites (wrtflow.names). Times in seconds."""

    # Static map: address or MAC (any case and separator) -> name.
    devices: dict[str, str] = dataclasses.field(default_factory=dict)
    # Whom to ask for reverse DNS: address or address#port; empty: what /etc/resolv.conf names.
    resolvers: tuple[str, ...] = ()
    # What a device's name at home may end with, and is called without.
    local_domains: tuple[str, ...] = ("lan", "home.arpa")
    dns_ttl: int = 86400
    dns_size: int = 50_000
    ptr_workers: int = 4
    ptr_queue: int = 2000
    ptr_rate: int = 100
    ptr_timeout: float = 3.0
    ptr_ttl: int = 86400
    ptr_negative_ttl: int = 3600
    ptr_retry: int = 120
    ptr_size: int = 50_000
    device_ttl: int = 30 * 86400
    device_size: int = 10_000
    save_every: int = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delivery:
    """Where documents go (wrtflow.delivery). Times in seconds, sizes in bytes."""

    url: str = "https://localhost:9200"
    ca_file: str = "/etc/syslog-ng/wrtflow/elasticsearch-ca.crt"
    api_key_file: str = "/etc/syslog-ng/wrtflow/collector.api-key"
    # Documents of one request at most.
    batch_lines: int = 500
    # How long a request may take before it counts as failed.
    timeout: float = 10.0
    # The longest pause between two tries while Elasticsearch takes nothing.
    retry_max: float = 30.0
    # What the spool of refused documents takes at most.
    spool_size: int = 64 * 1024 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything; the sections of the parts are objects of their own."""

    index_prefix: str = "network"
    # What is inside beyond what the routers tell: CIDR.
    home_networks: tuple[str, ...] = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
    # Nothing is stored about these: addresses, networks (CIDR) or MACs.
    left_out: tuple[str, ...] = ()
    # Seconds without a DESTROY after which a flow ends as flow-timeout.
    flow_timeout: int = 7 * 86400
    # Bytes of unparsed.log, and of the one before it.
    unparsed_size: int = 10 * 1024 * 1024
    state_directory: str = "/var/lib/wrtflow"
    log_directory: str = "/var/log/wrtflow"
    geolite_directory: str = "/var/lib/GeoIP"
    names: Names = dataclasses.field(default_factory=Names)
    delivery: Delivery = dataclasses.field(default_factory=Delivery)

    def state_file(self, name: str) -> Path:
        """Where a part keeps what has to survive a restart."""
        return Path(self.state_directory) / name

    @property
    def tally_file(self) -> Path:
        """Where the documents in the disk buffer are counted (wrtflow.outbox)."""
        return self.state_file("queue")


def load(path: str | os.PathLike[str] | None = None) -> Settings:
    """Read the settings from path, else $WRTFLOW_SETTINGS, else FILE; SettingsError names what is wrong."""
    path = path or os.environ.get("WRTFLOW_SETTINGS", FILE)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from error
    return _object(Settings, content, str(path))


_T = typing.TypeVar("_T")


def _object(kind: type[_T], content: object, where: str) -> _T:
    if not isinstance(content, dict):
        raise SettingsError(f"{where}: an object is expected, not {content!r}")
    types = typing.get_type_hints(kind)
    unknown = sorted(set(content) - set(types))
    if unknown:
        raise SettingsError(f"{where}: unknown: {', '.join(unknown)}")
    return kind(**{name: _value(types[name], value, f"{where}: {name}") for name, value in content.items()})


def _value(kind: typing.Any, value: object, where: str) -> object:
    """Convert one JSON value to the type of its field."""
    if dataclasses.is_dataclass(kind):
        return _object(typing.cast("type[object]", kind), value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], item, where) for item in value)
    if origin is dict and isinstance(value, dict):
        return {str(key): _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) in (int, float):
        return float(typing.cast("float", value))
    if origin is None and type(value) is kind:
        return value
    raise SettingsError(f"{where}: {kind} is expected, not {value!r}")
