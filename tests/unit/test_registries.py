"""Names by the public suffix list, MACs by IEEE's lists."""

from pathlib import Path

import pytest
from wrtflow.enrich import PRIVATE, Registries

HEAD = "Registry,Assignment,Organization Name,Organization Address\n"


@pytest.fixture
def ieee(tmp_path: Path) -> Path:
    (tmp_path / "oui.csv").write_text(
        f'{HEAD}MA-L,001122,"Camera Works, Ltd. ",Somewhere\nMA-L,8C1F64,IEEE Registration Authority,US\n'
    )
    (tmp_path / "mam.csv").write_text(f"{HEAD}MA-M,8C1F641,Seven Digits,US\n")
    (tmp_path / "oui36.csv").write_text(f"{HEAD}MA-S,8C1F64AFA,Nine Digits,US\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "owned"),
    [
        ("eu.cdn.photoprint.com", "photoprint.com"),
        ("photoprint.com", "photoprint.com"),
        ("www.shop.co.uk", "shop.co.uk"),
        ("co.uk", None),
        ("com", None),
        ("localhost", None),
        ("me.github.io", "me.github.io"),
        ("any.thing.ck", "any.thing.ck"),
        ("www.ck", "www.ck"),
        # Not listed: the last label is a public suffix.
        ("www.photoprint.example", "photoprint.example"),
        ("xn--85x722f.xn--55qx5d.cn", "xn--85x722f.xn--55qx5d.cn"),
    ],
)
def test_what_an_owner_registered(ieee, name, owned):
    assert Registries(ieee).registered_domain(name) == owned


@pytest.mark.parametrize(
    ("mac", "maker"),
    [
        ("00-11-22-33-44-55", "Camera Works, Ltd."),
        ("8C-1F-64-AF-A0-01", "Nine Digits"),
        ("8C-1F-64-1F-A0-01", "Seven Digits"),
        ("8C-1F-64-2F-A0-01", None),
        ("F0-11-22-33-44-55", None),
        *((f"0{digit}-11-22-33-44-55", PRIVATE) for digit in "26AE"),
    ],
)
def test_who_made_a_device(ieee, mac, maker):
    assert Registries(ieee).manufacturer(mac) == maker


@pytest.mark.parametrize("damage", ["", "nonsense\n\x00\n", None])
def test_a_damaged_list_is_reported_and_the_others_are_read(ieee, damage, capfd):
    (ieee / "mam.csv").unlink()
    if damage is not None:
        (ieee / "mam.csv").write_text(damage)
    registries = Registries(ieee)
    assert registries.manufacturer("8C-1F-64-AF-A0-01") == "Nine Digits"
    assert registries.registered_domain("www.shop.co.uk") == "shop.co.uk"
    # An empty list is a list.
    assert ("can't be read" in capfd.readouterr().err) == (damage != "")
