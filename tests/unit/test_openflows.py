"""wrtflow.openflows: what is open is on disk, and what has ended is not."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wrtflow.openflows import Open, OpenFlows


def flows(path: Path) -> OpenFlows:
    made = OpenFlows(path / "open.sqlite")
    made.load()
    return made


def test_open_flows_outlive_a_restart(tmp_path):
    first = flows(tmp_path)
    first.opened("a@1 SRC=1", 1_000_500, "line 1")
    first.opened("a@1 SRC=2", 1_000_600, "line 2")
    first.closed("a@1 SRC=1", 1_000_500)
    first.close()
    second = flows(tmp_path)
    assert second.before("a@1 SRC=1") == []
    assert second.before("a@1 SRC=2") == [1_000_600]
    assert len(second) == 1
    second.closed("a@1 SRC=2", 1_000_600)
    assert second.before("a@1 SRC=2") == []
    second.close()
    assert len(flows(tmp_path)) == 0


def test_a_crash_loses_what_is_not_saved(tmp_path):
    first = flows(tmp_path)
    first.opened("key", 1_000, "saved")
    first.save()
    first.opened("key", 2_000, "not saved")
    assert flows(tmp_path).before("key") == [1_000]


def test_older_flows_are_found_by_time_and_router(tmp_path):
    made = flows(tmp_path)
    made.opened("a@1 x", 1_000, "1")
    made.opened("a@10 x", 2_000, "2")
    made.opened("a@1 y", 3_000, "3")
    assert made.older(2_000) == [Open("a@1 x", 1_000, "1")]
    assert made.older(9_000, "a@1") == [Open("a@1 x", 1_000, "1"), Open("a@1 y", 3_000, "3")]


def test_the_file_does_not_grow_with_what_has_ended(tmp_path):
    made = flows(tmp_path)
    for number in range(200):
        made.opened(f"key {number}", 1_000_000 + number, "line")
        made.save()
        if number:
            made.closed(f"key {number}", 1_000_000 + number)
    made.save()
    for _ in range(60):
        made.save()
    rows = sqlite3.connect(tmp_path / "open.sqlite").execute("SELECT flows FROM opened").fetchall()
    assert rows == [("1000000\tkey 0\tline",)]


def test_a_flow_that_ends_before_the_next_save_never_reaches_the_disk(tmp_path):
    made = flows(tmp_path)
    for number in range(3):
        made.opened(f"key {number}", 1_000 + number, "line")
    made.closed("key 1", 1_001)
    made.save()
    database = sqlite3.connect(tmp_path / "open.sqlite")
    assert database.execute("SELECT flows FROM opened").fetchall() == [
        ("1000\tkey 0\tline\n1002\tkey 2\tline",)
    ]
    assert database.execute("SELECT * FROM closed").fetchall() == []
    assert len(made) == 2


def test_nothing_is_lost_while_the_disk_refuses(tmp_path):
    made = flows(tmp_path)
    blocker = sqlite3.connect(tmp_path / "open.sqlite", isolation_level=None)
    made._database.execute("PRAGMA busy_timeout=1")
    blocker.execute("BEGIN EXCLUSIVE")
    made.opened("a", 1_000, "1")
    with pytest.raises(sqlite3.Error):
        made.save()
    made.closed("a", 1_000)
    made.opened("b", 2_000, "2")
    blocker.execute("ROLLBACK")
    made.close()
    again = flows(tmp_path)
    assert (again.before("a"), again.before("b")) == ([], [2_000])


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["open", "close", "save", "restart"]), st.integers(0, 5)), max_size=40
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(ACTIONS)
def test_disk_and_memory_never_differ(tmp_path_factory, actions):
    path = tmp_path_factory.mktemp("open")
    made, expected, clock = flows(path), {}, 0
    for action, number in actions:
        clock += 700
        key = f"r@1 {number}"
        if action == "open" and key not in expected:
            made.opened(key, clock, f"line {clock}")
            expected[key] = clock
        elif action == "close" and key in expected:
            made.closed(key, expected.pop(key))
        elif action == "save":
            made.save()
        elif action == "restart":
            made.close()
            made = flows(path)
            assert {key: made.before(key) for key in expected} == {
                key: [start] for key, start in expected.items()
            }
        assert len(made) == len(expected)
    assert {flow.key: flow.start for flow in made.older(10**12)} == expected
    made.close()
