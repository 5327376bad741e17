"""wrtflow.geo: what a document says of an address, and how old the databases are."""

import json
import os
import time

import pytest
from mmdb_writer import MMDBWriter
from wrtflow import geo
from wrtflow.geo import Place, Places
from wrtflow.networks import Networks

NETWORKS = Networks(["10.77.0.0/24", "fd77:0:0:1::/64"], ["10.77.0.66"])

# As geoip2() names what it finds, below the prefix.
SHENZHEN = {
    "city.continent.code": "AS",
    "city.country.iso_code": "CN",
    "city.country.names.en": "China",
    "city.subdivisions.0.iso_code": "GD",
    "city.subdivisions.0.names.en": "Guangdong",
    "city.city.names.en": "Shenzhen",
    "city.location.latitude": "22.5455",
    "city.location.longitude": "114.0683",
    "asn.autonomous_system_number": "64502",
    "asn.autonomous_system_organization": 'Gadget "C" Cloud',
}


def placed(found: dict[str, str], text: str = "198.18.2.80") -> Place:
    place = Place(text, NETWORKS)
    place.put(lambda name: found.get(name, ""))
    return place


def members(place: Place) -> dict:
    return json.loads(f'{{"ip":"{place.ip}"{place.json}}}')


def test_everything_that_is_known_is_told():
    place = placed(SHENZHEN)
    assert (place.country, place.system, place.looked_up) == ("CN", "64502", True)
    assert members(place) == {
        "ip": "198.18.2.80",
        "geo": {
            "continent_code": "AS", "country_iso_code": "CN", "country_name": "China", "region_iso_code": "CN-GD",
            "region_name": "Guangdong", "city_name": "Shenzhen", "location": {"lat": 22.5455, "lon": 114.0683},
        },
        "as": {"number": 64502, "organization": {"name": 'Gadget "C" Cloud'}},
    }  # fmt: skip


@pytest.mark.parametrize("missing", sorted(SHENZHEN))
def test_what_is_missing_is_absent_and_nothing_else(missing):
    whole, without = members(placed(SHENZHEN)), members(placed({**SHENZHEN, missing: ""}))
    text = json.dumps(without)
    assert '""' not in text
    assert "null" not in text
    assert "NaN" not in text
    assert without != whole


def test_a_country_alone_is_enough():
    assert members(placed({"city.country.iso_code": "BR"})) == {
        "ip": "198.18.2.80",
        "geo": {"country_iso_code": "BR"},
    }


def test_half_a_location_is_none():
    assert members(placed({"city.location.latitude": "1.5"})) == {"ip": "198.18.2.80"}


def test_nothing_is_known_of_an_address_that_is_in_no_database():
    place = placed({})
    assert members(place) == {"ip": "198.18.2.80"}
    assert place.looked_up


@pytest.mark.parametrize(
    "text", ["10.77.0.20", "fd77:0:0:1::20", "127.0.0.1", "169.254.1.1", "224.0.0.251", "fe80::1", "ff02::fb"]
)
def test_home_and_what_stays_on_the_link_is_not_looked_up(text):
    place = Place(text, NETWORKS)
    assert place.home
    assert place.looked_up
    assert place.json == ""


@pytest.mark.parametrize("text", ["198.18.1.80", "10.78.0.1", "192.168.1.1", "fd77:0:0:2::80", "2001:db8::1"])
def test_every_other_address_is(text):
    """Also those that registries call private: the databases alone know."""
    assert not Place(text, NETWORKS).looked_up


def test_an_address_has_one_form():
    assert Place("FD77:0:0:0002::0080", NETWORKS).ip == "fd77:0:0:2::80"


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "1.2.3.4.5", "::1::", "fe80::1%eth0", "::ffff:1.2.3.4"])
def test_what_is_no_address_on_the_wire_is_refused(text):
    with pytest.raises(ValueError, match="address"):
        Place(text, NETWORKS)


def test_left_out_is_by_address():
    assert Place("10.77.0.66", NETWORKS).left_out
    assert not Place("10.77.0.67", NETWORKS).left_out


def test_places_are_remembered_and_bounded(monkeypatch):
    monkeypatch.setattr(geo, "_SIZE", 3)
    places = Places(NETWORKS)
    assert places["198.18.1.1"] is places["198.18.1.1"]
    for number in range(10):
        places[f"198.18.1.{number}"]
    assert len(places) <= 3


def test_databases_are_as_old_as_their_makers_say(tmp_path):
    writer = MMDBWriter(ip_version=6, database_type="GeoLite2-City")
    writer.to_db_file(str(tmp_path / "GeoLite2-City.mmdb"))
    os.utime(tmp_path / "GeoLite2-City.mmdb", (0, 0))
    (tmp_path / "GeoLite2-ASN.mmdb").write_bytes(b"no database")
    (tmp_path / "other.mmdb").write_bytes(b"")
    found = geo.built(tmp_path)
    assert set(found) == {"GeoLite2-City"}
    assert time.time() - 60 < found["GeoLite2-City"] <= time.time()
    assert geo.built(tmp_path / "nowhere") == {}
