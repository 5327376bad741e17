"""wrtflow.wellformed: the one form of names, addresses and MACs."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wrtflow.wellformed import address, hostname, mac


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("www.Example.COM.", "www.example.com"),
        ("camera", "camera"),
        ("_dmarc.example", "_dmarc.example"),
        ("xn--bro-hoa.example", "xn--bro-hoa.example"),
        ("r4---sn-4g5e6nz7.example", "r4---sn-4g5e6nz7.example"),
        ("1.2.3.4.in-addr.arpa", "1.2.3.4.in-addr.arpa"),
        ("3com", "3com"),
        ("1-2", "1-2"),
        ("a" * 63 + ".b", "a" * 63 + ".b"),
        (".".join(["a" * 49] * 5) + ".bcd", ".".join(["a" * 49] * 5) + ".bcd"),
    ],
)
def test_a_name(text: str, name: str) -> None:
    assert hostname(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        ".a",
        "a b",
        "a\n",
        "a\n.b",
        "-a",
        "a.-b",
        "*.a",
        "a/b",
        "1.2.3.4",
        "1234",
        "a.1",
        "fd77::1",
        "a" * 64,
        "a." * 126 + "ab",
        "a" * 1_000_000,
        "b\u00fcro",
        "\u212aelvin.example",  # the Kelvin sign: lower() makes a k of it
        "a\u0131",
        "a\udce9",
        "SRC=1",
        'a"b',
        "a\x00",
    ],
)
def test_no_name(text: str) -> None:
    assert hostname(text) is None


@given(st.text())
def test_a_name_is_its_own_form_and_plain(text: str) -> None:
    name = hostname(text)
    if name is not None:
        assert hostname(name) == name
        assert name.isascii()
        assert name.isprintable()
        assert " " not in name
        with pytest.raises(ValueError, match="does not appear to be"):
            ipaddress.ip_address(name)


@given(st.ip_addresses())
def test_an_address_has_one_form(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    form = address(ip.exploded.upper())
    assert form is not None
    assert ipaddress.ip_address(form) == ip
    assert address(form) == form


@pytest.mark.parametrize(
    "text",
    ["", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.4/8", "fe80::1%eth0", "::g", "1.2.3.4\x00", "\udce9:"],
)
def test_no_address(text: str) -> None:
    assert address(text) is None


@pytest.mark.parametrize("text", ["02:aa:bb:cc:dd:01", "02-AA-BB-CC-DD-01"])
def test_a_mac(text: str) -> None:
    assert mac(text) == "02-AA-BB-CC-DD-01"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02:aa:bb:cc:dd",
        "02:aa:bb:cc:dd:01:02",
        "02:aa-bb:cc:dd:01",
        "00:00:00:00:00:00",
        "ff:ff:ff:ff:ff:ff",
        "33:33:00:00:00:01",
        "06-02:aa:bb:cc:dd:01",
        "0g:aa:bb:cc:dd:01",
        "02aabbccdd01",
        "02:aa:bb:cc:dd:01\n",
    ],
)
def test_no_mac(text: str) -> None:
    assert mac(text) is None
