"""What outlives a restart, whatever becomes of the file and the disk."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from wrtflow import state
from wrtflow.state import State


class Part:
    """A concern with a table, as the collector's parts have it."""

    def __init__(self, state, name="part", **kind):
        self.memory = {}
        self.table = state.table(name, lambda: list(self.memory.items()), **kind)

    def put(self, key, value):
        self.memory[key] = value
        self.table.put(key, value)

    def delete(self, key):
        self.memory.pop(key, None)
        self.table.delete(key)

    def load(self):
        self.memory.update(self.table.load(lambda key, value: (key, int(value))))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "state/state.sqlite"


def start(file, **kind):
    state = State(file)
    part = Part(state, **kind)
    state.open()
    part.load()
    return state, part


def end(state):
    state.save()
    state.close()


def kept(file, **kind):
    state, part = start(file, **kind)
    state.close()
    return part.memory


def sql(file, *statements):
    database = sqlite3.connect(file)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


def test_rows_outlive_a_restart_and_deleted_ones_do_not(file):
    state, part = start(file)
    part.put("a", 1)
    part.put("b", 2)
    state.save()
    part.put("a", 3)
    part.delete("b")
    part.put("c", 4)
    end(state)
    assert kept(file) == {"a": 3, "c": 4}


def test_the_file_is_nobody_elses_business(file):
    start(file)
    assert file.stat().st_mode & 0o777 == 0o600


def test_rows_come_in_the_order_of_their_last_write(file):
    state, part = start(file)
    for key in "abc":
        part.put(key, 1)
        state.save()
    part.put("a", 2)
    end(state)
    assert list(kept(file)) == ["b", "c", "a"]


def test_a_row_that_is_deleted_before_a_save_never_reaches_the_disk(file):
    state, part = start(file, once=True, numbered=True)
    part.put(1, 1)
    part.delete(1)
    assert part.table.changes() == {}
    part.put(2, 2)
    state.save()
    part.delete(2)
    end(state)
    assert kept(file, once=True, numbered=True) == {}


@pytest.mark.parametrize(
    "row",
    [
        "'x', 'no JSON'",
        "'x', '\"no number\"'",
        "'x', 'null'",
        "'x', '1e999'",
        "x'ff', '1'",
        "'x', x'ff'",
        "7.5, '1'",
        "'x', '" + "[" * 20000 + "'",
    ],
)
def test_a_row_that_can_not_be_read_is_skipped_counted_and_deleted(file, row):
    state, part = start(file)
    part.put("good", 1)
    end(state)
    sql(file, f"INSERT INTO part VALUES ({row})")
    state, part = start(file)
    if "7.5" not in row:  # SQLite makes the text 7.5 of it: a key like any other
        assert part.memory == {"good": 1}
        assert state.report()["rows_skipped"] == 1
        state.close()
        state, part = start(file)
        assert state.report()["rows_skipped"] == 0


@pytest.mark.parametrize("content", [b"", b"garbage " * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_file_is_set_aside(file, content):
    file.parent.mkdir()
    file.write_bytes(content)
    state, part = start(file)
    part.put("a", 1)
    end(state)
    assert kept(file) == {"a": 1}
    assert file.with_name("state.sqlite.damaged").exists() == bool(content)
    assert state.report()["set_aside"] == (1 if content else 0)
    assert "fault" not in state.report()


def test_a_page_in_the_middle_that_is_damaged(file):
    state, part = start(file)
    for number in range(5000):
        part.put(f"key {number}", number)
    end(state)
    content = bytearray(file.read_bytes())
    content[20000:60000] = b"\xff" * 40000
    file.write_bytes(content)
    state, part = start(file)
    part.put("after", 1)
    end(state)
    assert kept(file)["after"] == 1


@pytest.mark.parametrize(
    "statement", ["PRAGMA user_version = 2", "PRAGMA user_version = 0", "ALTER TABLE part ADD COLUMN other"]
)
def test_a_file_of_another_schema_is_set_aside(file, statement):
    end(start(file)[0])
    sql(file, statement)
    state, _ = start(file)
    assert state.report()["set_aside"] == 1
    end(state)
    assert kept(file) == {}


@pytest.mark.parametrize("at", [0, 15, 16, 18, 19, 21, 24, 44, 47, 56, 60, 68])
def test_a_byte_of_the_header_that_is_wrong_stops_no_writing(file, at):
    for value in (0, 3, 5, 255):
        state, part = start(file)
        part.put("a", 1)
        end(state)
        content = bytearray(file.read_bytes())
        content[at] = value
        file.write_bytes(content)
        state, part = start(file)
        part.put("b", 2)
        end(state)
        assert "fault" not in state.report()
        assert kept(file)["b"] == 2


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("more", [(), ("CREATE VIEW part AS SELECT 'a' AS key, 'b' AS value",)])
def test_a_table_that_is_gone_is_written_again(file, running, more):
    state, part = start(file)
    part.put("a", 1)
    state.save()
    if not running:
        state.close()
    sql(file, "DROP TABLE part", *more)
    if not running:
        state, part = start(file)
    part.put("b", 2)
    end(state)
    assert "fault" not in state.report()
    assert kept(file)["b"] == 2


def test_damage_while_it_runs_loses_nothing(file):
    state, part = start(file)
    part.put("a", 1)
    state.save()
    state._database.close()
    sql(file, "PRAGMA user_version = 9")
    state._inode = 0
    part.put("b", 2)
    end(state)
    assert kept(file) == {"a": 1, "b": 2}


@pytest.mark.parametrize("content", [b"", b"garbage " * 5000])
def test_a_file_that_is_written_over_while_it_runs_is_written_again(file, content):
    state, part = start(file)
    part.put("a", 1)
    state.save()
    with file.open("r+b") as open_:
        open_.truncate(0)
        open_.write(content)
    part.put("b", 2)
    end(state)
    assert state.report()["set_aside"] == 1
    assert kept(file) == {"a": 1, "b": 2}


DAMAGE = """
import os, sys
from pathlib import Path
from wrtflow.state import Rows, State
file, what = Path(sys.argv[1]), sys.argv[2]
state = State(file)
rows = Rows(state, "part")
state.open()
def put(begin):
    for number in range(begin, begin + 300):
        rows[str(number)] = "x" * 300
    state.save()
put(0)
for name in os.listdir(file.parent):
    each = file.parent / name
    if what == "gone":
        each.unlink()
    elif what == "cut":
        os.truncate(each, each.stat().st_size // 2)
    else:
        with each.open("r+b") as open_:
            open_.write(os.urandom(each.stat().st_size))
for begin in range(300, 2000, 300):
    put(begin)
assert "fault" not in state.report(), state.report()
"""


@pytest.mark.parametrize("what", ["gone", "cut", "garbage"])
def test_whatever_becomes_of_all_files_of_the_folder_memory_is_written(file, what):
    """In a process of its own: a file that is mapped and cut would end it."""
    code = Path(state.__file__).parents[1]
    subprocess.run([sys.executable, "-c", DAMAGE, file, what], check=True, env={"PYTHONPATH": str(code)})
    after = state.State(file)
    rows = state.Rows(after, "part")
    after.open()
    rows.load(lambda _, value: value)
    after.close()
    assert len(rows) == 2100


def test_a_file_that_is_deleted_while_it_runs_is_written_again(file):
    state, part = start(file)
    part.put("a", 1)
    state.save()
    for name in os.listdir(file.parent):
        (file.parent / name).unlink()
    part.put("b", 2)
    end(state)
    assert kept(file) == {"a": 1, "b": 2}


def test_a_folder_in_place_of_the_file(file):
    file.mkdir(parents=True)
    state, part = start(file)
    part.put("a", 1)
    state.save()
    assert "can't be written" in state.report()["fault"]
    file.rmdir()
    end(state)
    assert kept(file) == {"a": 1}
    assert "fault" not in state.report()


def test_a_file_in_place_of_the_folder(file):
    file.parent.write_text("")
    state, part = start(file)
    part.put("a", 1)
    state.save()
    assert "can't be written" in state.report()["fault"]
    state.close()


class Full(sqlite3.Connection):
    """A database on a full disk."""

    def execute(self, statement, *rest):
        if statement.startswith(("BEGIN", "PRAGMA journal_mode")):
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(statement, *rest)


def test_a_full_disk_while_it_runs(file):
    state, part = start(file)
    part.put("a", 1)
    state.save()
    good, state._database = state._database, sqlite3.connect(file, factory=Full, isolation_level=None)
    part.put("b", 2)
    part.delete("a")
    state.save()
    assert "full" in state.report()["fault"]
    part.put("c", 3)
    state._database.close()
    state._database = good
    end(state)
    assert "fault" not in state.report()
    assert kept(file) == {"b": 2, "c": 3}


def test_a_row_that_can_not_be_written_costs_no_other(file):
    state, part = start(file, once=True, numbered=True)
    part.put(1, 1)
    part.put(2**63, 2)
    state.save()
    assert "can't be written" in state.report()["fault"]
    part.delete(2**63)
    end(state)
    assert "fault" not in state.report()
    assert kept(file, once=True, numbered=True) == {1: 1}


def test_a_full_disk_at_the_start_hides_no_row(file, monkeypatch):
    state, part = start(file)
    part.put("a", 1)
    end(state)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Full))
    state, part = start(file)
    assert part.memory == {"a": 1}
    part.put("b", 2)
    state.save()
    assert "fault" in state.report()
    monkeypatch.undo()
    end(state)
    assert kept(file) == {"a": 1, "b": 2}


def test_too_much_that_waits_is_written_as_a_whole_later(file, monkeypatch):
    monkeypatch.setattr("wrtflow.state._WAITING", 3)
    state, part = start(file)
    part.put("gone", 0)
    state.save()
    good, state._database = state._database, sqlite3.connect(file, factory=Full, isolation_level=None)
    part.delete("gone")
    for key in "abcdef":
        part.put(key, 1)
        state.save()
    assert not part.table._changed
    state._database.close()
    state._database = good
    end(state)
    assert kept(file) == dict.fromkeys("abcdef", 1)


def test_a_successor_gets_what_memory_has_even_if_nothing_could_be_written(file):
    file.parent.write_text("")
    state, part = start(file)
    part.put("a", 1)
    state.save()
    successor = State(file, state)
    other = Part(successor)
    successor.open()
    other.load()
    assert other.memory == {"a": 1}
    file.parent.unlink()
    end(successor)
    assert kept(file) == {"a": 1}


def test_threads_put_while_another_saves(file):
    state, part = start(file, once=True, numbered=True)

    def work(begin):
        for number in range(begin, begin + 3000):
            part.put(number, number)
            if number % 2:
                part.delete(number)

    threads = [threading.Thread(target=work, args=(begin,)) for begin in (0, 10000, 20000)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        state.save()
    end(state)
    assert kept(file, once=True, numbered=True) == part.memory
