"""wrtflow.enrich: the first time a device meets a country or a system, and never again."""

import random

import pytest
from fakes import DAY, HOUR, LAPTOP, SITE, START, TABLET, YEAR, Clock, Kept
from wrtflow import enrich
from wrtflow.enrich import Contacts
from wrtflow.places import LeftOut, Place

MAC, CAMERA = "02-00-00-00-00-20", "02-00-00-00-00-99"


class Made(Kept):
    left_out: tuple[str, ...] = ()

    def kind(self, state, clock) -> Contacts:
        return Contacts(state, clock, LeftOut(self.left_out))

    def meets(self, mac=None, address=LAPTOP, country=None, system=None) -> bool:
        return self.part.meets(mac, address, Place(SITE, 4, country=country, system=system), self.clock.now())


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


def test_first_of_country_or_system(made):
    assert made.meets(None, "10.0.0.1", "DE", 64501)
    assert not made.meets(None, "10.0.0.1", "DE", 64501)
    assert made.meets(None, "10.0.0.1", "DE", 64502)
    assert made.meets(None, "10.0.0.1", "CN", 64501)
    assert made.meets(None, "10.0.0.2", "DE", 64501)
    assert not made.meets(None, "10.0.0.2", None, None)
    assert not made.meets(None, "10.0.0.2", None, 64501)
    assert len(made.part.met) == 6


def test_a_known_device_with_a_new_address_meets_nothing_new(made):
    assert made.meets(MAC, LAPTOP, "DE")
    assert not made.meets(MAC, "10.77.0.99", "DE")


def test_a_new_device_with_a_known_address_does(made):
    assert made.meets(MAC, TABLET, "CN")
    assert made.meets(CAMERA, TABLET, "CN")


def test_a_device_whose_mac_becomes_known_later_stays_the_same(made):
    assert made.meets(None, LAPTOP, "DE", 64501)
    assert not made.meets(MAC, LAPTOP, "DE", 64501)
    assert not made.again().meets(MAC, "10.77.0.99", "DE", 64501)


def test_what_another_device_met_at_the_address_long_ago_hides_nothing(made):
    made.meets(None, TABLET, "CN")
    made.clock.passes(30 * DAY)
    assert made.meets(CAMERA, TABLET, "CN")


@pytest.mark.parametrize("row", [999_999, 100_001, -1, -(10**18), 10**18, 99_999])
def test_a_row_of_a_day_that_can_t_be_harms_no_other(made, row):
    made.meets(MAC, LAPTOP, "DE")
    made.part.met.table.put("x FR", row)
    again = made.again()
    assert not again.meets(MAC, LAPTOP, "DE")
    assert again.meets(MAC, LAPTOP, "CN")


def test_a_host_has_one_room_for_all_addresses_of_its_64(made, monkeypatch):
    monkeypatch.setattr(enrich, "_CONTACTS_OF_ONE", 10)
    assert sum(made.meets(None, f"fd77:0:0:1::{number:x}", "DE") for number in range(1, 31)) == 10
    assert made.meets(None, "fd77:0:0:2::1", "DE")


@pytest.mark.parametrize("left_out", [LAPTOP + "/32", MAC], ids=["address", "MAC"])
def test_contacts_of_who_is_left_out_later_go(made, monkeypatch, left_out):
    made.meets(None, LAPTOP, "DE")
    made.meets(MAC, TABLET, "DE")
    monkeypatch.setattr(Made, "left_out", (left_out,))
    again = made.again()
    assert list(again.part.met) == [f"{MAC} DE" if LAPTOP in left_out else f"{LAPTOP} DE"]
    monkeypatch.setattr(Made, "left_out", ())
    assert len(again.again().part.met) == 1


def test_what_a_mac_took_over_is_the_next_owner_s_no_more(made):
    made.meets(None, TABLET, "CN")
    assert not made.meets(MAC, TABLET, "CN")
    assert made.meets(CAMERA, TABLET, "CN")
    assert made.again().meets(None, TABLET, "CN")


def test_it_outlives_a_restart(made):
    made.meets(None, LAPTOP, "DE", 64501)
    again = made.again()
    assert not again.meets(None, LAPTOP, "DE", 64501)
    assert len(again.part.met) == 2


def test_what_does_not_happen_for_a_year_is_forgotten(made):
    made.meets(MAC, LAPTOP, "DE")
    made.meets(MAC, LAPTOP, "CN")
    for _ in range(9):
        made.clock.passes(45 * DAY)
        assert not made.meets(MAC, LAPTOP, "DE")
        made = made.again()
    assert len(made.part.met) == 1
    assert made.meets(MAC, LAPTOP, "CN")


@pytest.mark.parametrize("years", [-60, -30, -1, 1, 3, 30])
def test_a_wrong_clock_and_a_long_absence_make_nothing_new(made, years):
    """However often it starts, and whatever it writes while the clock is wrong."""
    places = ("DE", "CN", "BR")
    for place in places:
        made.meets(MAC, LAPTOP, place)
    wrong = made.again(Clock(max(START + years * YEAR, HOUR)))
    assert not wrong.meets(MAC, LAPTOP, "DE")
    wrong.clock.passes(2 * DAY)
    assert not wrong.meets(MAC, LAPTOP, "CN")
    wrong = wrong.again()
    assert not wrong.meets(MAC, LAPTOP, "CN")
    right = wrong.again(Clock(START + DAY))
    for _ in range(3):
        for place in places:
            assert not right.meets(MAC, LAPTOP, place)
        right.clock.passes(DAY)
        right = right.again()


def test_one_device_fills_its_own_room_alone_and_is_silent_then(made, monkeypatch):
    monkeypatch.setattr(enrich, "_CONTACTS_OF_ONE", 10)
    raised = [made.meets(MAC, LAPTOP, None, number) for number in range(1, 31)]
    assert raised == [True] * 10 + [False] * 20
    # Again and again: not once more.
    assert not any(made.meets(MAC, LAPTOP, None, number) for number in range(1, 31))
    assert (len(made.part.met), made.part.beyond) == (10, 20)
    assert made.meets(CAMERA, TABLET, "DE")


def test_all_contacts_have_a_bound_and_are_silent_then(made, monkeypatch):
    monkeypatch.setattr(enrich, "_CONTACTS", 10)
    assert sum(made.meets(None, f"10.77.0.{number}", "DE") for number in range(30)) == 10
    assert len(made.part.met) == 10
    assert made.part.beyond == 20
    # A flood ends; what has been known stays known.
    assert not made.meets(None, "10.77.0.3", "DE")


def test_a_device_at_its_bound_still_gets_its_mac(made, monkeypatch):
    monkeypatch.setattr(enrich, "_CONTACTS", 2)
    made.meets(None, LAPTOP, "DE")
    made.meets(None, TABLET, "DE")
    assert not made.meets(MAC, LAPTOP, "DE")
    assert not made.again().meets(MAC, "10.77.0.99", "DE")


def test_nothing_is_left_of_what_is_forgotten(made, monkeypatch):
    monkeypatch.setattr(enrich, "_ASKED", 50)
    for number in range(300):
        made.meets(None, f"10.77.1.{number}", "DE", 5)
        made.meets(f"02-{number}", f"10.77.1.{number}", "DE", 5)
    assert len(made.part._asked) <= 50
    assert len(made.part.met.of) == 300
    made.clock.passes(2 * YEAR)
    made.meets(MAC, LAPTOP, "DE")
    assert (len(made.part.met), len(made.part.met.of)) == (1, 1)
    assert len(made.again().part.met) == 1


def test_counts_never_differ_from_what_is_kept(made):
    chance = random.Random(1)
    for _ in range(3000):
        made.meets(
            chance.choice([None, None, MAC, CAMERA]), chance.choice([LAPTOP, TABLET]),
            chance.choice([None, "DE", "CN"]), chance.choice([None, *range(1, 20)]),
        )  # fmt: skip
        made.clock.passes(chance.choice([0, HOUR, 10 * DAY]))
        if chance.random() < 0.01:
            before = dict(made.part.met)
            made = made.again()
            assert dict(made.part.met) == before
    kept: dict[str, int] = {}
    for contact in made.part.met:
        kept[contact.rpartition(" ")[0]] = kept.get(contact.rpartition(" ")[0], 0) + 1
    assert dict(made.part.met.of) == kept
