"""wrtflow.networks: what is inside."""

import ipaddress

import pytest
from wrtflow.networks import Networks

HOME = ("10.77.0.0/24", "fd77:0:0:1::/64")


def home(networks: Networks, address: str) -> bool:
    return networks.is_home(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "10.77.0.20",
        "fd77:0:0:1::20",
        "169.254.1.1",
        "224.0.0.251",
        "255.255.255.255",
        "fe80::1",
        "ff02::fb",
        "::1",
    ],
)
def test_inside(address):
    assert home(Networks(HOME), address)


@pytest.mark.parametrize(
    "address", ["10.78.0.20", "198.18.1.80", "100.64.0.1", "fd77:0:0:2::1", "2001:db8::1"]
)
def test_outside(address):
    """No list of private ranges: what is not at home is looked up, and the databases decide."""
    assert not home(Networks(HOME), address)


def test_what_a_router_tells_replaces_what_it_told(tmp_path):
    networks = Networks(HOME, file=tmp_path / "networks.json")
    assert networks.learn("a@1", ["2001:db8:1::/56", "198.51.100.7"])
    assert networks.learn("b@2", ["192.0.2.0/24"])
    assert not networks.learn("b@2", ["192.0.2.0/24"])
    assert networks.learn("a@1", ["2001:db8:2::/56"])
    for known in (networks, Networks(HOME, file=tmp_path / "networks.json")):
        assert home(known, "2001:db8:2::1")
        assert home(known, "192.0.2.1")
        assert not home(known, "2001:db8:1::1")
        assert not home(known, "198.51.100.7")


def test_what_a_router_translates_to_is_its_own_until_it_tells():
    networks = Networks(HOME)
    assert networks.shows("a@1", "198.51.100.7")
    assert networks.shows("a@1", "2001:db8::7")
    assert home(networks, "198.51.100.7")
    assert home(networks, "2001:db8::7")
    networks.learn("a@1", ["198.51.100.8"])
    assert not home(networks, "198.51.100.7")
    assert not networks.shows("a@1", "198.51.100.9")


def test_a_router_that_translates_to_a_whole_network_shows_a_few_of_it():
    networks = Networks(HOME)
    assert sum(networks.shows("a@1", f"198.51.100.{number}") for number in range(200)) < 10


@pytest.mark.parametrize("told", ["0.0.0.0/0", "::/0", "2000::/3", "0.0.0.0/1", "nonsense", ""])
def test_a_false_line_does_not_turn_the_world_into_the_house(told):
    networks = Networks(HOME)
    with pytest.raises(ValueError):  # noqa: PT011 (the text is Python's own)
        networks.learn("a@1", ["192.0.2.0/24", told])
    assert not home(networks, "192.0.2.1")


def test_a_broken_file_is_no_reason_not_to_start(tmp_path):
    (tmp_path / "networks.json").write_text('{"a": ')
    assert not home(Networks(HOME, file=tmp_path / "networks.json"), "192.0.2.1")


def test_left_out():
    networks = Networks(HOME, left_out=["10.77.0.20", "198.18.2.0/24", "02:00:00:00:00:21"])
    assert networks.is_left_out(ipaddress.ip_address("10.77.0.20"))
    assert networks.is_left_out(ipaddress.ip_address("198.18.2.80"))
    assert not networks.is_left_out(ipaddress.ip_address("10.77.0.21"))
