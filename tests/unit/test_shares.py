"""wrtflow.shares: at a limit, a device loses entries of its own only."""

import random
from collections import Counter

import pytest
from wrtflow.shares import Shares

TTL, SILENT = 1000, 100


class Made(Shares):
    """Room for six keys, three of them one owner's."""

    def __init__(self) -> None:
        self.gone: list[str] = []
        super().__init__(6, 3, TTL, SILENT, self.gone.append, Counter(), "keys")

    def fill(self, *owners: str, now: int = 0) -> None:
        for owner in owners:
            for number in range(3):
                assert self.put(owner, f"{owner}{number}", now)

    @property
    def keys(self) -> dict[str, list[str]]:
        return {owner: list(own) for owner, own in self.owners.items()}


@pytest.fixture
def shares() -> Made:
    return Made()


def test_an_owner_with_too_many_keys_loses_its_own_oldest(shares):
    shares.fill("a", "b")
    # One that is put again is in use.
    assert shares.put("a", "a0", 1)
    assert shares.put("a", "a3", 2)
    assert shares.keys == {"b": ["b0", "b1", "b2"], "a": ["a2", "a0", "a3"]}
    assert (shares.gone, shares.counts) == (["a1"], {"keys_replaced": 1})


def test_a_newcomer_takes_no_room_of_who_was_there_lately(shares):
    shares.fill("a", "b")
    assert not shares.put("c", "c0", SILENT - 1)
    assert (shares.gone, shares.counts) == ([], {"keys_refused": 1})
    assert shares.put("c", "c0", SILENT)
    assert (shares.gone, shares.count) == (["a0"], 6)


def test_who_has_keys_replaces_one_of_them_where_all_is_full(shares):
    shares.fill("a")
    for owner in "bcd":
        shares.put(owner, owner, 0)
    assert shares.put("b", "b1", 1)
    assert (shares.gone, shares.count) == (["b"], 6)


def test_what_is_too_old_makes_room_without_being_counted(shares):
    shares.fill("a")
    assert shares.put("a", "a3", TTL + 1)
    assert (shares.keys, shares.counts) == ({"a": ["a3"]}, {})


def test_what_is_too_old_is_forgotten(shares):
    shares.fill("a")
    shares.put("b", "b", 0)
    shares.put("a", "a2", 5)
    shares.refresh(TTL + 1)
    assert (shares.keys, shares.count, shares.gone) == ({"a": ["a2"]}, 1, ["b", "a0", "a1"])
    shares.put("a", "a3", 6)
    shares.forget("a", 6)
    assert shares.keys == {"a": ["a3"]}
    shares.forget("a")
    shares.forget("nobody")
    assert (shares.keys, shares.count, shares.gone[3:]) == ({}, 0, ["a2", "a3"])


def test_each_key_goes_once_and_the_count_is_right(shares):
    chance, there = random.Random(1), set()
    for now in range(0, 20_000, 7):
        owner = chance.choice("abcde")
        key, before = f"{owner}{chance.randrange(5)}", len(shares.gone)
        put = shares.put(owner, key, now)
        gone = shares.gone[before:]
        assert there.issuperset(gone)
        there = (there - set(gone)) | ({key} if put else set())
        assert sorted(there) == sorted(key for own in shares.keys.values() for key in own)
        assert shares.count == len(there) <= 6
        assert all(0 < len(own) <= 3 for own in shares.keys.values())
