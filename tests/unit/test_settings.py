"""wrtflow.settings: the settings file becomes typed objects, and everything that is wrong with it is reported."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from wrtflow import settings

ROLE = Path(__file__).parents[2] / "roles/syslog_ng"

GOOD: dict = {
    "index_prefix": "network",
    "home_networks": ["10.77.0.0/24", "192.168.1.1/16", "fc00::/7"],
    "left_out": [],
    "flow_timeout": 604800,
    "log_prefix": "",
    "state_directory": "/var/lib/wrtflow",
    "geolite_directory": "/var/lib/GeoIP",
    "names": {"devices": {}, "resolvers": [], "local_domains": ["lan", "home.arpa"]},
    "delivery": {"url": "https://storage:9200"},
}


def changed(**values: object) -> dict:
    """Return the good settings with some changed: names__devices is names.devices."""
    made = json.loads(json.dumps(GOOD))
    for name, value in values.items():
        section, _, inner = name.rpartition("__")
        (made[section] if section else made)[inner] = value
    return made


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "settings.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def faults(tmp_path: Path, content: object) -> list[str]:
    path = written(tmp_path, content)
    with pytest.raises(settings.SettingsError) as raised:
        settings.load(path)
    assert all(fault.startswith(f"{path}: ") and fault.isascii() for fault in raised.value.faults)
    assert max(map(len, raised.value.faults)) < 500
    return [fault.removeprefix(f"{path}: ") for fault in raised.value.faults]


def test_values_become_typed_and_are_spelt_alike(tmp_path: Path) -> None:
    loaded = settings.load(
        written(
            tmp_path,
            changed(
                left_out=["10.77.0.20", "2001:DB8::/32", "02:00:00:00:00:aB", "020000000022"],
                names__devices={"10.77.0.20": "Laptop", "0200.0000.0021": "phone", "2001:db8:0::1": "tv."},
                names__resolvers=["10.77.0.1", "::1#5353"],
                log_prefix="attic: OpenWrt",
            ),
        )
    )
    assert loaded.home_networks == ("10.77.0.0/24", "192.168.0.0/16", "fc00::/7")
    assert loaded.left_out == ("10.77.0.20/32", "2001:db8::/32", "02-00-00-00-00-AB", "02-00-00-00-00-22")
    assert loaded.flow_timeout == 604800
    assert loaded.names.devices == {
        "10.77.0.20": "Laptop",
        "02-00-00-00-00-21": "phone",
        "2001:db8::1": "tv.",
    }
    assert loaded.names.resolvers == ("10.77.0.1", "::1#5353")
    assert loaded.names.local_domains == ("lan", "home.arpa")
    assert loaded.log_prefix == "attic: OpenWrt"
    assert loaded.delivery.url == "https://storage:9200"
    assert loaded.log_directory == "/var/log/wrtflow"
    assert loaded.state_file("state.sqlite") == Path("/var/lib/wrtflow/state.sqlite")


def test_what_is_nested_too_deep_is_told(tmp_path: Path) -> None:
    for depth in (*range(850, 1000), 100_000):
        content = b'{"index_prefix": ' + b"[" * depth + b"]" * depth + b"}"
        with pytest.raises(settings.SettingsError):
            settings.load(written(tmp_path, content))


def test_what_is_missing_is_none_or_told(tmp_path: Path) -> None:
    for name in ("left_out", "log_prefix", "names"):
        settings.load(written(tmp_path, {key: value for key, value in GOOD.items() if key != name}))
    assert faults(tmp_path, {}) == [
        f"{name} is missing"
        for name in (
            "index_prefix", "home_networks", "flow_timeout", "state_directory", "geolite_directory", "delivery",
        )
    ]  # fmt: skip
    assert faults(tmp_path, changed(delivery={})) == ["delivery.url is missing"]


NO_NETWORK = ["0.0.0.0/0", "8.0.0.0/7", "::/0", "fc00::/6", "10.0.0.0/33", "10.0.0", "laptop", "", " 10.0.0.0/8", 10,
              True, None, "10.0.0.0/255.0.0.0", "10.0.0.0/", "fe80::1%eth0", "::ffff:10.0.0.0/104", "010.0.0.1",
              "10.0.0.1\n", "10.0.0.1;", "1" * 5000, "\ud800", ["10.0.0.0/8"]]  # fmt: skip
NO_MAC = ["laptop", "02:00:00:00:00", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", ""]
NO_NAME = [
    "Camera (hall)",
    "",
    "10.0.0.1",
    "a b",
    "tv;",
    "käse",
    "-tv",
    "a" * 64,
    ".lan",
    "a..b",
    "1234",
    None,
    7,
    "x" * 500,
]
NO_PATH = [
    "",
    "/",
    "var/lib",
    "/var/../etc",
    "/var/./lib",
    "~/x",
    "/a b",
    '/a"b',
    "/a\n",
    "/a\0b",
    "/x" * 200,
    3,
    None,
    "//",
    "/%n",
]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("home_networks", [*([item] for item in NO_NETWORK), "10.0.0.0/8", {}, None]),
        ("left_out", [*([item] for item in [*NO_NETWORK, *NO_MAC]), "10.0.0.1", None]),
        ("flow_timeout", [-1, 0, 31_536_001, 10**30, 3600.0, 1e400, float("nan"), True, "3600", "", None, []]),
        ("index_prefix", ["", "Network", "_network", "-network", "+network", ".network", "net work",
                          "a/b", "a*", "a,b", "a#b", "a:b", 'a"b', "a" * 101, "ä", 1, None, "a\n", ".", ".."]),
        ("log_prefix", [" x", "x ", "x\n", "\0", "ä", "x" * 65, 1, None, []]),
        ("state_directory", NO_PATH),
        ("geolite_directory", NO_PATH),
        ("log_directory", NO_PATH),
        ("names__resolvers", [*([item] for item in [
            "dns.lan", "", "10.0.0.1#0", "10.0.0.1#65536", "10.0.0.1#", "10.0.0.1#-1", "10.0.0.1#5 3", "10.0.0.1#٥٣",
            "10.0.0.1:53", "0.0.0.0", "::", "10.0.0.0/8", None, 1]), "10.0.0.1"]),
        ("names__local_domains", [*([item] for item in NO_NAME), "lan"]),
        ("names__devices", [*({"10.0.0.1": item} for item in ("", " ", "a\n", "\0", "x" * 256, 1, None, [])),
                            *({item: "tv"} for item in NO_MAC), []]),
        ("names", [[], None, "x"]),
        ("delivery__url", ["", "storage:9200", "http://storage:9200", "https://", "https://:9200", "https://a:0",
                           "https://a:65536", "https://a:", "https://a:x", "https://u:p@a", "https://a?x", "https://a#x",
                           "https://a b", "https://a\n", "https://[::1", "https://ä", 1, None,
                           "ftp://a", "https://-a"]),
        ("delivery__more_urls", [["http://storage:9200"], ["https://storage:9200", ""]]),
        ("delivery__ca_file", ["ca.crt"]),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_told(tmp_path: Path, name: str, values: list) -> None:
    where = name.replace("__", ".")
    for value in values:
        (fault,) = faults(tmp_path, changed(**{name: value}))
        assert re.match(rf"(a key of )?{re.escape(where)}[ \[]", fault), (value, fault)
        assert "; allowed is " in fault


def test_everything_is_told_at_once(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        changed(
            flow_timeout=-1,
            left_out=["10.0.0.1", "laptop", "tv"],
            names__devices={"10.0.0.1/32": "tv"},
            flow_timeuot=60,
            names__resolver=[],
        ),
    )
    assert [re.split(r" is ", fault)[0] for fault in found] == [
        "flow_timeuot", "left_out[1]", "left_out[2]", "flow_timeout", "names.resolver", "a key of names.devices",
    ]  # fmt: skip
    assert found[3] == "flow_timeout is -1; allowed is a whole number of seconds from 1 to 31536000"


def test_a_device_has_one_name_however_it_is_spelt(tmp_path: Path) -> None:
    twice = {"02:00:00:00:00:AB": "phone", "02-00-00-00-00-ab": "phone", "0200.0000.00ab": "tv"}
    (fault,) = faults(tmp_path, changed(names__devices=twice))
    assert 'names.devices["0200.0000.00ab"] is "tv"' in fault
    assert 'names.devices["02:00:00:00:00:AB"]' in fault
    (fault,) = faults(tmp_path, changed(names__devices={"fd00::1": "a", "fd00:0::1": "b"}))
    assert "the same device with another name" in fault


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "can't be read"),
        (b"{", "can't be read"),
        (b"\xff", "can't be read"),
        (b"\xef\xbb\xbf{}", "can't be read"),
        (b"[" * 100_000, "can't be read"),
        (b'{"flow_timeout": ' + b"9" * 5000 + b"}", "can't be read"),
        (b" " * 2_000_000, "larger than 1048576 bytes"),
        (b"[]", "the whole is []; allowed is an object"),
        (b"NaN", "the whole is NaN"),
        (b"null", "the whole is null"),
    ],
)
def test_what_is_no_settings_file_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    (fault,) = faults(tmp_path, content)
    assert said in fault


def test_a_key_that_stands_twice_is_told(tmp_path: Path) -> None:
    text = json.dumps(GOOD)
    assert faults(tmp_path, text.replace("{", '{"flow_timeout": 60, ', 1).encode()) == [
        '"flow_timeout" stands twice in one object: keep one of them'
    ]
    devices = text.replace('"devices": {}', '"devices": {"10.0.0.1": "a", "10.0.0.1": "b"}')
    (fault,) = faults(tmp_path, devices.encode())
    assert '"10.0.0.1" stands twice' in fault


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(settings.SettingsError, match=str(path)):
            settings.load(path)


def role_settings() -> dict:
    """What the role writes to settings.json: the variables' names in place of values."""
    return yaml.safe_load((ROLE / "vars/main.yml").read_text())["__syslog_ng_settings"]


def leaves(value: object, name: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {name}
    return {leaf for inner in value for leaf in leaves(value[inner], f"{name}.{inner}" if name else inner)}


def fields(kind: type, name: str = "") -> set[str]:
    sections = {"names": settings.Names, "delivery": settings.Delivery}
    return {
        inner
        for field in dataclasses.fields(kind)
        for inner in (
            fields(sections[field.name], f"{field.name}.")
            if field.name in sections
            else {f"{name}{field.name}"}
        )
    }


# Where the role installs things.
FIXED = {"log_directory", "delivery.ca_file", "delivery.api_key_file", "delivery.health_key_file"}


def test_the_role_writes_every_setting_and_no_other() -> None:
    assert leaves(role_settings()) == fields(settings.Settings) - FIXED
