"""wrtflow.places: addresses at home, addresses left out, and the places of all others."""

import functools
import ipaddress
import json
import os
import random
import sys
import threading
import time
import timeit
from pathlib import Path

import pytest
from fakes import DAY, LAPTOP, OUTER, SITE, YEAR, Clock, line, told
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from wrtflow import places
from wrtflow.places import Databases, LeftOut, Place, Places
from wrtflow.state import State

HOME = ("10.77.0.0/24", "fd77:0:0:1::/64")
SHENZHEN = {
    "continent": {"code": "AS", "names": {"en": "Asia"}},
    "country": {"iso_code": "CN", "names": {"en": "China"}},
    "subdivisions": [{"iso_code": "GD", "names": {"en": "Guangdong"}}],
    "city": {"names": {"en": "Shenzhen"}},
    "location": {"latitude": 22.5455, "longitude": 114.0683},
}
CLOUD = {"autonomous_system_number": 64502, "autonomous_system_organization": 'Gadget "C" Cloud'}


def write(
    folder: Path, city: object = SHENZHEN, system: object = CLOUD, network: str = "198.18.2.0/24"
) -> None:
    """Replace both databases, as the download does: by new files."""
    for name, record in (("City", city), ("ASN", system)):
        writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type=f"GeoLite2-{name}")
        writer.insert_network(IPSet([network]), record)
        writer.to_db_file(str(folder / "new"))
        os.replace(folder / "new", folder / f"GeoLite2-{name}.mmdb")


class Made:
    """Places with their parts."""

    def __init__(self, folder: Path, left_out: tuple[str, ...] = (), clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.state = State(folder / "state.sqlite")
        self.databases = Databases(folder)
        self.places = Places(HOME, LeftOut(left_out), self.databases, self.state, self.clock)
        self.databases.open()
        self.clock.keep(self.state)
        self.state.open()
        self.clock.load()
        self.places.load()

    def home(self, address: str) -> bool:
        return self.places[address].home

    def members(self, text: str = "198.18.2.80") -> dict:
        return json.loads(f'{{"ip":"{self.places[text].ip}"{self.places[text].json}}}')

    def again(self, folder: Path, clock: Clock) -> "Made":
        self.clock.note()
        self.state.save()
        self.state.close()
        return Made(folder, clock=clock)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


# Places


def test_everything_that_is_known_is_told(tmp_path):
    write(tmp_path)
    made = Made(tmp_path)
    place = made.places["198.18.2.80"]
    assert (place.country, place.system) == ("CN", 64502)
    assert made.members() == {
        "ip": "198.18.2.80",
        "geo": {
            "continent_code": "AS", "country_iso_code": "CN", "country_name": "China", "region_iso_code": "CN-GD",
            "region_name": "Guangdong", "city_name": "Shenzhen", "location": {"lat": 22.5455, "lon": 114.0683},
        },
        "as": {"number": 64502, "organization": {"name": 'Gadget "C" Cloud'}},
    }  # fmt: skip
    assert made.members("198.18.3.80") == {"ip": "198.18.3.80"}


ODD = [
    None,
    {},
    [],
    "",
    0,
    5,
    "x",
    {"names": {"en": ""}},
    {"names": 5},
    {"iso_code": 7},
    {"latitude": 5},
    [[]],
    [{}],
]


@pytest.mark.parametrize("member", [*SHENZHEN, *CLOUD])
def test_what_is_missing_or_odd_is_absent_and_nothing_else(tmp_path, member):
    write(tmp_path)
    whole = Made(tmp_path).members()
    for odd in ODD:
        # The writer has no null.
        city = {k: odd if k == member else v for k, v in SHENZHEN.items() if k != member or odd is not None}
        system = {k: odd if k == member else v for k, v in CLOUD.items() if k != member or odd is not None}
        write(tmp_path, city, system)
        found = Made(tmp_path).members()
        assert found != whole
        assert not {'""', "null", "NaN", "{}"} & set(json.dumps(found).replace(",", " ").split())


def test_a_country_alone_is_enough(tmp_path):
    write(tmp_path, {"country": {"iso_code": "BR"}}, {})
    assert Made(tmp_path).members() == {"ip": "198.18.2.80", "geo": {"country_iso_code": "BR"}}


@pytest.mark.parametrize(
    "text", [LAPTOP, "fd77:0:0:1::20", "127.0.0.1", "169.254.1.1", "224.0.0.251", "fe80::1", "ff02::fb"]
)
def test_home_and_what_stays_on_the_link_has_no_place(made, text):
    made.databases.look_up = lambda *_: pytest.fail("looked up")
    assert made.home(text)
    assert made.places[text].home
    assert made.places[text].json == ""


@pytest.mark.parametrize(
    "text", [SITE, "10.78.0.1", "192.168.1.1", "fd77:0:0:2::80", "2001:db8::1", "100.64.0.1"]
)
def test_every_other_address_is_looked_up(made, text):
    """Also those that registries call private: the databases alone know."""
    asked = []
    made.databases.look_up = lambda place, ip: asked.append(ip)
    assert not made.places[text].home
    assert asked == [text]


def test_an_address_has_one_form(made):
    assert made.places["FD77:0:0:0002::0080"].ip == "fd77:0:0:2::80"


@pytest.mark.parametrize(
    "text",
    ["", "x", "1.2.3", "1.2.3.4.5", "::1::", "fe80::1%eth0", "::ffff:1.2.3.4", "1.2.3.04", "\u0661.2.3.4"],
)
def test_what_is_no_address_on_the_wire_is_refused(made, text):
    with pytest.raises(ValueError, match="address"):
        made.places[text]
    assert len(made.places) == 0


def test_nat64_has_the_place_of_the_address_inside(tmp_path):
    write(tmp_path)
    made = Made(tmp_path, left_out=("198.18.2.81",))
    assert made.places["64:ff9b::198.18.2.80"].country == "CN"
    assert made.members("64:ff9b::c612:250")["ip"] == "64:ff9b::c612:250"
    assert made.places["64:ff9b::198.18.2.81"].left_out
    assert made.places["64:ff9b:1::198.18.2.80"].country is None


def test_places_are_remembered_and_bounded(made, monkeypatch):
    monkeypatch.setattr(places, "_SIZE", 3)
    assert made.places["198.18.1.1"] is made.places["198.18.1.1"]
    for number in range(10):
        made.places[f"198.18.1.{number}"]
    assert len(made.places) <= 3


# Databases


def test_databases_are_as_old_as_their_makers_say(tmp_path):
    write(tmp_path)
    os.utime(tmp_path / "GeoLite2-City.mmdb", (0, 0))
    report = Made(tmp_path).databases.report()
    assert report == {"GeoLite2-City": 0.0, "GeoLite2-ASN": 0.0}


@pytest.mark.parametrize(
    "content", [None, b"", b"no database", b"\xab\xcd\xefMaxMind.com", b"x" * 5000, "truncated"]
)
def test_a_bad_database_is_said_and_leaves_no_place(tmp_path, capfd, content):
    write(tmp_path)
    file = tmp_path / "GeoLite2-City.mmdb"
    whole = file.read_bytes()
    file.unlink()
    if content is not None:
        file.write_bytes(whole[: len(whole) // 2] if content == "truncated" else content)
    made = Made(tmp_path)
    # The other one is good.
    assert made.members() == {
        "ip": "198.18.2.80",
        "as": {"number": 64502, "organization": {"name": 'Gadget "C" Cloud'}},
    }
    assert "addresses have no place" in made.databases.report()["fault"]
    assert f"{file} can't be used" in capfd.readouterr().err


def test_a_folder_or_a_locked_file_in_place_of_a_database(tmp_path):
    (tmp_path / "GeoLite2-City.mmdb").mkdir()
    (tmp_path / "GeoLite2-ASN.mmdb").symlink_to("GeoLite2-ASN.mmdb")
    assert Made(tmp_path).members() == {"ip": "198.18.2.80"}


@pytest.mark.parametrize("content", [None, b"", b"no database", "truncated", "emptied", "hole"])
def test_a_bad_database_never_replaces_a_good_one(tmp_path, content):
    write(tmp_path)
    made = Made(tmp_path)
    file = tmp_path / "GeoLite2-City.mmdb"
    whole = file.read_bytes()
    # In place, not by a new file.
    if content == "emptied":
        file.write_bytes(b"\0" * len(whole))
    elif content == "hole":
        file.write_bytes(b"\xff" * 600 + whole[600:])
    else:
        file.unlink()
        if content is not None:
            file.write_bytes(whole[:-100] if content == "truncated" else content)
    made.databases.open()
    made.places.clear()
    assert made.members()["geo"]["country_iso_code"] == "CN"
    assert "the one before stays in use" in made.databases.report()["fault"]
    # A good one is used again.
    write(tmp_path, {"country": {"iso_code": "BR"}})
    made.databases.open()
    made.places.clear()
    assert made.members()["geo"] == {"country_iso_code": "BR"}
    assert "fault" not in made.databases.report()


def test_a_database_that_is_cut_while_it_is_in_use_harms_nothing(tmp_path):
    write(tmp_path)
    made = Made(tmp_path)
    for file in tmp_path.glob("*.mmdb"):
        os.truncate(file, 0)
    assert made.places["198.18.2.80"].country == "CN"


def test_databases_leave_no_file_open(tmp_path):
    write(tmp_path)
    made = Made(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        write(tmp_path)
        made.databases.open()
        (tmp_path / "GeoLite2-ASN.mmdb").write_bytes(b"bad")
        made.databases.open()
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_what_is_damaged_inside_never_raises(tmp_path):
    write(tmp_path)
    good = (tmp_path / "GeoLite2-City.mmdb").read_bytes()
    chance = random.Random(1)
    for _ in range(300):
        damaged = bytearray(good)
        for _ in range(chance.randrange(1, 30)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (tmp_path / "GeoLite2-City.mmdb").write_bytes(damaged)
        made = Made(tmp_path)
        found = made.members()
        assert found["ip"] == "198.18.2.80"
        made.databases.report()


# Networks


@pytest.mark.parametrize("address", [SITE, "10.78.0.20", "100.64.0.1", "fd77:0:0:2::1", "2001:db8::1"])
def test_outside(made, address):
    """No list of private ranges: what is not at home is looked up, and the databases decide."""
    assert not made.home(address)


def test_what_a_router_tells_replaces_what_it_told_a_day_later(made, tmp_path):
    assert made.places.tell("a@1", ["2001:db8:1::/56", "198.51.100.7"])
    assert made.places.tell("b@2", ["192.0.2.0/24"])
    assert not made.places.tell("b@2", ["192.0.2.0/24"])
    made.clock.passes(DAY)
    made.places.refresh()
    assert made.places.tell("a@1", ["2001:db8:2::/56"])
    made.clock.passes(DAY - 1)
    for known in (made, made.again(tmp_path, Clock(made.clock.by_wall))):
        known.places.refresh()
        assert all(map(known.home, ("2001:db8:2::1", "192.0.2.1", "2001:db8:1::1", "198.51.100.7")))
        known.clock.passes(1)
        known.places.refresh()
        assert all(map(known.home, ("2001:db8:2::1", "192.0.2.1")))
        assert not any(map(known.home, ("2001:db8:1::1", "198.51.100.7")))


@pytest.mark.parametrize("step", [-10 * YEAR, -2 * DAY, 2 * DAY, 10 * YEAR])
def test_former_networks_stay_home_no_longer_than_a_day(made, tmp_path, step):
    made.places.tell("a@1", ["2001:db8:1::/56"])
    made.places.tell("a@1", ["2001:db8:2::/56"])
    made.clock.steps(step)
    made.clock.passes(DAY // 2)
    made.places.refresh()
    assert made.home("2001:db8:1::1")
    again = made.again(tmp_path, Clock(made.clock.by_wall))
    again.clock.passes(DAY)
    again.places.refresh()
    assert not again.home("2001:db8:1::1")
    assert again.home("2001:db8:2::1")


def test_a_network_that_comes_back_is_home_for_good(made):
    for told_ in ("2001:db8:1::/56", "2001:db8:2::/56", "2001:db8:1::/56"):
        made.places.tell("a@1", [told_])
    made.clock.passes(2 * DAY)
    made.places.refresh()
    assert made.home("2001:db8:1::1")
    assert not made.home("2001:db8:2::1")


@pytest.mark.parametrize(
    "told_",
    [
        "0.0.0.0/0",
        "::/0",
        "2000::/3",
        "8.0.0.0/8",
        "198.18.0.0/15",
        "2001:db8::/43",
        "nonsense",
        "",
        "8.8.8.8/x",
    ],
)
def test_a_false_line_does_not_turn_the_world_into_the_house(made, told_):
    made.places.tell("a@1", ["192.0.2.0/24"])
    with pytest.raises(ValueError):  # noqa: PT011 (the text is Python's own)
        made.places.tell("a@1", ["203.0.113.0/24", told_])
    # None is taken then, and none is lost.
    assert not made.home("203.0.113.1")
    assert made.home("192.0.2.1")


@pytest.mark.parametrize("told_", ["198.18.0.0/16", "2001:db8::/44", "192.0.2.1", "192.0.2.1/24"])
def test_a_house_s_networks_are_taken(made, told_):
    assert made.places.tell("a@1", [told_])
    assert made.home(told_.partition("/")[0])


def test_too_many_networks_are_refused(made):
    def several(first: int, count: int) -> list[str]:
        return [f"192.{first}.{number}.0/24" for number in range(count)]

    with pytest.raises(ValueError, match="too many"):
        made.places.tell("a@1", several(1, places._TOLD + 1))
    routers = places._TOLD_BY_ALL // places._TOLD
    for router in range(routers):
        made.places.tell(f"r{router}@{router}", several(router, places._TOLD))
    with pytest.raises(ValueError, match="too many"):
        made.places.tell("a@1", ["203.0.113.0/24"])
    assert made.home("192.1.1.1")
    assert not made.home("203.0.113.1")
    # The routers that were first go on.
    assert made.places.tell("r1@1", several(100, 3))


def test_one_sender_of_many_names_leaves_room_for_others(made):
    for router in range(2):
        made.places.tell(
            f"r{router}@1", [f"192.{router}.{number}.0/24" for number in range(places._TOLD // 2)]
        )
    with pytest.raises(ValueError, match="too many"):
        made.places.tell("r2@1", ["203.0.113.0/24"])
    assert made.places.tell("a@2", ["203.0.113.0/24"])


def test_a_router_whose_networks_change_all_the_time_has_a_bound(made):
    for number in range(500):
        made.places.tell("a@1", [f"192.{number % 250}.{number % 251}.0/24"])
    assert len(made.places._told["a@1"]) <= places._TOLD
    # Of the former ones the latest.
    assert made.home(f"192.{499 % 250}.{499 % 251}.1")
    made.clock.passes(DAY)
    made.places.refresh()
    assert len(made.places._told["a@1"]) == 1


def test_networks_of_a_router_that_is_gone_for_good_leave_home(made, tmp_path):
    made.places.tell("a@1", ["192.0.2.0/24"])
    made.places.tell("b@2", ["198.51.100.0/24"])
    made.clock.passes(20 * DAY)
    # Each report counts, also one of the same networks.
    assert not made.places.tell("b@2", ["198.51.100.0/24"])
    made.clock.passes(10 * DAY - 1)
    again = made.again(tmp_path, Clock(made.clock.by_wall))
    again.places.refresh()
    assert all(map(again.home, ("192.0.2.1", "198.51.100.1")))
    again.clock.passes(1)
    again.places.refresh()
    assert not again.home("192.0.2.1")
    assert again.home("198.51.100.1")
    # Without reports, what it translates to is its own again.
    assert again.places.shows("a@1", "203.0.113.7")


def test_a_router_that_tells_no_networks_any_more_is_forgotten_in_a_day(made):
    made.places.tell("a@1", ["192.0.2.0/24"])
    made.places.tell("a@1", [])
    assert made.home("192.0.2.1")
    made.clock.passes(DAY)
    made.places.refresh()
    assert not made.home("192.0.2.1")
    assert not made.places._told


@pytest.mark.parametrize(
    ("host", "sender"), [("attic", "192.168.1.1"), ("OpenWrt", "fd77::1")], ids=["renamed", "address"]
)
def test_networks_of_a_router_that_is_called_otherwise_are_home_for_a_day(chain, host, sender):
    def home(ip: str) -> bool:
        return chain.collector._places[ip].home

    chain.send(told("networks 2001:db8:1::/56 2001:db8:2::/56"))
    chain.send(told("networks 2001:db8:2::/56 2001:db8:3::/56", host=host), sender)
    chain.clock.passes(DAY - 1)
    chain.keep()
    assert all(map(home, ("2001:db8:1::1", "2001:db8:2::1", "2001:db8:3::1")))
    chain.clock.passes(1)
    chain.keep()
    assert not home("2001:db8:1::1")
    assert all(map(home, ("2001:db8:2::1", "2001:db8:3::1")))


def test_networks_of_another_router_that_is_alive_stay(chain):
    chain.send(told("networks 2001:db8:1::/56"))
    chain.send(told("x", "procd", host="attic"))
    chain.send(told("x", "procd"))
    chain.send(told("networks 2001:db8:2::/56", host="attic"))
    chain.clock.passes(2 * DAY)
    chain.keep()
    assert chain.collector._places["2001:db8:1::1"].home


def test_what_a_router_translates_to_is_its_own_until_it_tells(made):
    assert made.places.shows("a@1", "198.51.100.7")
    assert made.places.shows("a@1", "2001:db8::7")
    assert made.home("198.51.100.7")
    assert made.home("2001:db8::7")
    made.places.tell("a@1", ["198.51.100.8"])
    assert not made.home("198.51.100.7")
    assert not made.places.shows("a@1", "198.51.100.9")


def test_a_router_that_translates_to_a_whole_network_shows_a_few_of_it(made):
    assert sum(made.places.shows("a@1", f"198.51.100.{number}") for number in range(200)) < 10
    # The next day it has others.
    made.clock.passes(DAY)
    made.places.refresh()
    assert not made.home("198.51.100.1")
    assert made.places.shows("a@1", "198.51.100.100")


def test_what_many_routers_translate_to_has_a_bound(made):
    for router in range(300):
        made.places.shows(f"r{router}@{router}", f"198.18.{router // 250}.{router % 250}")
    assert len(made.places._told) == places._TOLD_BY_ALL


def test_the_keeper_takes_no_router_s_networks_away(made):
    """What one thread lets go of must not cost what another has just learned."""
    going, pause = threading.Event(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def refresh() -> None:
        while not going.is_set():
            made.places.refresh()

    keeper = threading.Thread(target=refresh)
    keeper.start()
    try:
        end = time.monotonic() + 1
        number = 0
        while time.monotonic() < end:
            number += 1
            address = f"192.{number % 200}.{number // 200 % 250}.1"
            made.places.tell("a@1", [address])
            made.clock.passes(DAY // 8)
            assert made.home(address)
            assert max(made.places._told["a@1"].values()) > made.clock.now() + DAY
    finally:
        going.set()
        keeper.join()
        sys.setswitchinterval(pause)


def test_a_refused_line_of_networks_is_told(chain, capfd):
    chain.send(told("networks 8.0.0.0/8"))
    assert chain.counts["unparsed"] == 1
    assert "wider than a house's network" in chain.unparsed
    assert "OpenWrt@192.168.1.1 tells of networks" in capfd.readouterr().err


def test_an_open_flow_keeps_its_device_when_the_prefix_changes(chain):
    ends = ("2001:db8:1::20", "2606:4700::1", 5)
    reply = ("2606:4700::1", "2001:db8:1::20")
    chain.send(told("networks 2001:db8:1::/56"))
    chain.send(line("NEW", *ends, reply=reply))
    chain.send(told("networks 2001:db8:2::/56"))
    chain.names.macs["2001:db8:1::20"] = "02-00-00-00-00-20"
    (found,) = chain.send(line("DESTROY", *ends, reply=reply))
    assert found["network"]["direction"] == "outbound"
    assert found["source"]["mac"] == "02-00-00-00-00-20"
    chain.clock.passes(DAY)
    chain.keep()
    (found,) = chain.send(line("DESTROY", *ends, reply=reply))
    assert found["network"]["direction"] == "external"


# Left out


def test_left_out_is_by_address_network_or_mac():
    found = LeftOut(["10.77.0.20", "198.18.2.0/24", "02-00-00-00-00-21", "02-00-00-00-00-22", "fd77::/64"])
    assert found.any
    for ip in ("10.77.0.20", "198.18.2.80", "fd77::5"):
        assert found.address(ip)
    assert not any(map(found.address, ("10.77.0.21", "x", "", "fd78::5")))
    assert all(found.mac(f"02-00-00-00-00-2{number}") for number in (1, 2))
    assert not found.mac("02-00-00-00-00-20")
    assert not found.mac(None)
    assert not LeftOut([]).any


@pytest.mark.parametrize(
    "item", ["laptop", "", "10.77.0.300", "10.77.0.0/33", "02:00:00:00:00", "02:00:00:00:00:zz"]
)
def test_what_is_none_of_these_is_an_error(item):
    with pytest.raises(ValueError, match="does not appear to be"):
        LeftOut([item])


def test_addresses_and_macs_are_found_in_any_text():
    text = 'SRC=10.77.0.66 "ip":"fd77:0::66", 02:00:00:00:00:66: DST=10.77.0.67. 1.2.3.4.5 020000000068'
    found = {"10.77.0.66", "fd77::66", "02-00-00-00-00-66", "10.77.0.67", "02-00-00-00-00-68"}
    assert found <= set(LeftOut([]).words(text))


@pytest.mark.parametrize("text", ["::ffff:10.77.0.66", "64:ff9b::a4d:42", "10.77.0.66", "::FFFF:a4d:42"])
def test_an_address_is_left_out_in_every_form(text):
    assert LeftOut(["10.77.0.66"]).address(text)
    assert not LeftOut(["10.77.0.67"]).address(text)


def test_a_place_is_left_out_by_its_address(tmp_path):
    made = Made(tmp_path, left_out=("10.77.0.66",))
    assert made.places["10.77.0.66"].left_out
    assert not made.places["10.77.0.67"].left_out
    assert Place(OUTER, 4).json == ""


def test_many_networks_cost_as_little_as_few():
    """Forged lines can make many of them, and each new address is looked up."""
    stranger = ipaddress.ip_address("198.18.2.80")
    few, many = (
        places._Networks(
            ipaddress.ip_network(f"10.{number // 250}.{number % 250}.0/24") for number in range(size)
        )
        for size in (10, 2000)
    )
    assert ipaddress.ip_address("10.7.249.9") in many
    cost_of_few, cost_of_many = (
        min(timeit.repeat(functools.partial(networks.__contains__, stranger), number=2000, repeat=5))
        for networks in (few, many)
    )
    assert cost_of_many < 5 * cost_of_few
