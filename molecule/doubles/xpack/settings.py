"""elasticsearch.yml: which settings are X-Pack's, which go to the core, and where to listen."""

import ipaddress
import re
import socket
import subprocess
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from . import keystore

SSL = ("enabled", "key", "certificate", "certificate_authorities", "client_authentication", "verification_mode",
       "supported_protocols", "cipher_suites", "keystore.path", "keystore.type", "truststore.path",
       "truststore.type")  # fmt: skip

# The settings of X-Pack and of Elasticsearch's modules that roles and tests set. Any other name reaches the core, which
# does not start with an unknown setting, as Elasticsearch does not.
KNOWN = (
    "xpack.security.enabled",
    "xpack.security.autoconfiguration.enabled",
    "xpack.security.enrollment.enabled",
    *(f"xpack.security.{layer}.ssl.{name}" for layer in ("http", "transport") for name in SSL),
    "xpack.ml.enabled",
    "ingest.geoip.downloader.enabled",
)


class BadSettingsError(Exception):
    """elasticsearch.yml can't be used; the text says why."""


@dataclass
class Settings:
    """The settings of elasticsearch.yml, divided between the double and the core."""

    xpack: dict[str, Any]
    core: dict[str, Any]
    config: Path
    hosts: list[str]
    port: int

    @property
    def security(self) -> bool:
        """Security is on unless switched off."""
        return _true(self.xpack.get("xpack.security.enabled", True))

    @property
    def tls(self) -> bool:
        """TLS on the HTTP port is off unless switched on, and a part of security."""
        return self.security and _true(self.xpack.get("xpack.security.http.ssl.enabled", False))

    def file(self, name: str) -> Path:
        """Return the path of a file setting of the HTTP port's TLS (relative to the configuration's folder)."""
        value = self.xpack.get(f"xpack.security.http.ssl.{name}")
        if isinstance(value, list):
            value = value[0]
        if not value:
            raise BadSettingsError(
                f"invalid SSL configuration for xpack.security.http.ssl - server ssl configuration requires a key"
                f" and certificate, but these have not been configured; you must set either"
                f" [xpack.security.http.ssl.keystore.path], or both [xpack.security.http.ssl.key] and"
                f" [xpack.security.http.ssl.certificate] ({name} is missing)"
            )
        return self.config / str(value)


def read(config: Path) -> Settings:
    """Read elasticsearch.yml of a configuration folder."""
    flat = flatten(yaml.safe_load((config / "elasticsearch.yml").read_text()) or {})
    xpack = {name: value for name, value in flat.items() if any(fnmatchcase(name, known) for known in KNOWN)}
    core = {name: value for name, value in flat.items() if name not in xpack}
    _check_halves([*xpack, *keystore.load(config)])
    hosts = core.pop("http.host", core.get("network.host", "_local_"))
    port = str(core.pop("http.port", "9200")).split("-")[0]
    _check_transport(core, xpack)
    return Settings(xpack, core, config, addresses(hosts if isinstance(hosts, list) else [hosts]), int(port))


def _check_halves(names: list[str]) -> None:
    """Stop where TLS is configured, in elasticsearch.yml or in the keystore, and neither switched on nor off."""
    for layer in ("http", "transport"):
        prefix = f"xpack.security.{layer}.ssl."
        found = sorted(name for name in names if name.startswith(prefix))
        if found and prefix + "enabled" not in found:
            raise BadSettingsError(
                f"invalid configuration for {prefix[:-1]} - [{prefix}enabled] is not set, but the following settings"
                f" have been configured in elasticsearch.yml : [{','.join(found)}]"
            )


def _check_transport(core: dict[str, Any], xpack: dict[str, Any]) -> None:
    """Stop as Elasticsearch's bootstrap check does when nodes would talk in the clear."""
    hosts = core.get("transport.host", core.get("network.host", "_local_"))
    if (
        core.get("discovery.type") != "single-node"
        and set(hosts if isinstance(hosts, list) else [hosts]) - {"_local_", "localhost", "127.0.0.1", "::1"}
        and _true(xpack.get("xpack.security.enabled", True))
        and not _true(xpack.get("xpack.security.transport.ssl.enabled", False))
    ):
        raise BadSettingsError(
            "Transport SSL must be enabled if security is enabled. Please set [xpack.security.transport.ssl.enabled]"
            " to [true] or disable security by setting [xpack.security.enabled] to [false]"
        )


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a settings tree with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def addresses(hosts: list[str]) -> list[str]:
    """Return the addresses that Elasticsearch's names for them mean on this machine."""
    found: list[str] = []
    for host in hosts:
        if host == "_local_":
            found += ["127.0.0.1", *(["::1"] if "::1" in _own() else [])]
        elif host in ("_site_", "_global_"):
            fitting = [a for a in _own() if _site(a) == (host == "_site_") and not _special(a)]
            if not fitting:
                raise BadSettingsError(f"No up-and-running {host.strip('_')} addresses found, got {_own()}")
            found += fitting
        else:
            found += [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    return list(dict.fromkeys(found))


def _own() -> list[str]:
    listing = subprocess.run(["/sbin/ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    return re.findall(r" inet6? ([^/ ]+)", listing)


def _site(address: str) -> bool:
    """As Java's isSiteLocalAddress(), which is false for an IPv6 ULA."""
    ranges = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fec0::/10")
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(r) for r in ranges)


def _special(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return ip.is_loopback or ip.is_link_local


def _true(value: Any) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise BadSettingsError(f"Failed to parse value [{value}] as only [true] or [false] are allowed.")
    return str(value).lower() == "true"


def jvm_options(config: Path, version: int = 21) -> list[str]:
    """Return the options of jvm.options and jvm.options.d/*.options that hold for this Java version."""
    options = []
    for file in [config / "jvm.options", *sorted((config / "jvm.options.d").glob("*.options"))]:
        for line in file.read_text().splitlines():
            found = re.fullmatch(r"(?:(\d+)(-(\d+)?)?:)?(-.*)", line.strip())
            if not found:
                continue
            first, span, last, option = found.groups()
            low = int(first or 0)
            high = int(last) if last else (low if first and not span else 999)
            if low <= version <= high:
                options.append(option)
    return options
