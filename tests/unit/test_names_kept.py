"""wrtflow.kept: caches that are bounded and kept over a restart, whatever happens to the file."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest
from wrtflow.kept import Kept, KeptFile


def cache(part: str = "a", size: int = 5) -> Kept[int]:
    return Kept(part, size, int)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "names.sqlite"


def saved(path: Path, *caches: Kept[int]) -> KeptFile:
    file = KeptFile(path)
    file.open()
    file.save(caches)
    file.close()
    return file


def loaded(path: Path, *caches: Kept[int]) -> KeptFile:
    file = KeptFile(path)
    file.open()
    file.load(caches)
    file.close()
    return file


def content(path: Path) -> dict[str, str]:
    with sqlite3.connect(path) as database:
        return dict(database.execute("SELECT part || key, value FROM kept ORDER BY at, key"))


def filled(part: str = "a", size: int = 5, count: int = 5) -> Kept[int]:
    made = cache(part, size)
    for number in range(count):
        made.put(str(number), number)
    return made


def test_a_cache_lets_go_of_what_was_put_longest_ago() -> None:
    made = filled()
    made.put("0", 100)
    made.put("new", 1)
    assert (made.get("0"), made.get("1"), made.get("new"), len(made)) == (100, None, 1, 5)
    assert made.get("1", 7) == 7


def test_caches_come_back_each_with_its_own(path: Path) -> None:
    saved(path, filled("a"), filled("b", count=2))
    a, b = cache("a"), cache("b")
    assert loaded(path, a, b).errors == 0
    assert [a.get(str(number)) for number in range(5)] == [0, 1, 2, 3, 4]
    assert (len(b), b.get("1")) == (2, 1)
    # What was read needs no writing.
    assert a.changes() == []


def test_the_file_is_nobody_else_s(path: Path) -> None:
    saved(path, filled())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_only_changes_are_written_and_removals_too(path: Path) -> None:
    made = filled()
    saved(path, made)
    made.put("0", 9)
    made.remove("1".__eq__)
    assert sorted(made.changes()) == ["0", "1"]
    made.put("0", 9)
    made.unsaved(["1"])
    made.remove("2".__eq__)
    saved(path, made)
    assert content(path) == {"a1": "1", "a3": "3", "a4": "4", "a0": "9"}


def test_the_file_is_bounded_as_the_cache_is(path: Path) -> None:
    file = KeptFile(path)
    file.open()
    made = cache(size=5)
    for number in range(50):
        made.put(str(number), number)
        file.save([made])
    file.close()
    assert sorted(content(path).values()) == ["45", "46", "47", "48", "49"]
    small = cache(size=2)
    loaded(path, small)
    assert [small.get("48"), small.get("49"), len(small)] == [48, 49, 2]


def test_many_changes_are_written_in_batches(path: Path) -> None:
    saved(path, filled(size=2500, count=2500))
    again = cache(size=2500)
    loaded(path, again)
    assert len(again) == 2500


def damage_header(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def damage_pages(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[4096:] = os.urandom(len(octets) - 4096)
    path.write_bytes(octets)


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [damage_header, damage_pages, truncate])
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(path: Path, damage: object) -> None:
    saved(path, filled(size=500, count=500))
    damage(path)
    broken = path.read_bytes()
    made = filled(count=3)
    file = KeptFile(path)
    file.open()
    file.load([made])
    assert file.set_aside == 1
    file.save([made])
    file.close()
    assert path.with_name("names.sqlite.corrupt").read_bytes() == broken
    assert sorted(content(path)) == ["a0", "a1", "a2"]


def test_a_file_damaged_while_it_is_open_loses_nothing_that_is_known(path: Path) -> None:
    made = filled(size=2000, count=2000)
    file = KeptFile(path)
    file.open()
    file.save([made])
    file._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damage_pages(path)
    file._database.execute("PRAGMA cache_size=1")
    for number in range(2000):
        made.put(str(number), -number)
    file.save([made])
    assert file.set_aside == 1
    file.save([made])
    file.close()
    again = cache(size=2000)
    assert loaded(path, again).errors == 0
    assert [again.get(str(number)) for number in range(2000)] == [-number for number in range(2000)]


def test_rows_that_are_no_good_are_left_out_and_counted(path: Path) -> None:
    saved(path, filled(count=2))
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO kept VALUES ('a', 'x', 'no json', 0), ('a', 'y', '\"no number\"', 0)")
        database.execute("INSERT INTO kept VALUES ('a', 'z', '[1]', 0)")
    made = cache()
    assert loaded(path, made).errors == 3
    assert len(made) == 2


def test_a_file_that_is_locked_is_written_the_next_time(path: Path) -> None:
    made = filled(size=3000, count=2500)
    file = KeptFile(path)
    file.open()
    file._database.execute("PRAGMA busy_timeout=1")
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        file.save([made])
        assert file.errors == 1
        other.execute("ROLLBACK")
    file.save([made])
    file.close()
    assert len(content(path)) == 2500
    assert file.set_aside == 0


def test_a_place_that_can_not_be_written_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = filled()
    file = saved(tmp_path / "file" / "names.sqlite", made)
    assert file.errors == 2
    assert sorted(made.changes()) == ["0", "1", "2", "3", "4"]
