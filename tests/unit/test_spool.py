"""wrtflow.state: refused documents are kept within a limit, the oldest dropped first, whatever becomes of the file."""

import dataclasses
import json
import sqlite3
from pathlib import Path

import pytest
from wrtflow import state

LIMIT = 256 * 1024


def refused(number: int, size: int = 1000) -> state.Refused:
    return state.Refused(1e9 + number, "network-2026.11", f"id{number}", 400, "mapping", "why", "x" * size)


def ids(kept: state.Spool) -> list[str]:
    return [document.id for document in kept.documents()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state/refused.sqlite"


@pytest.fixture
def kept(file: Path) -> state.Spool:
    return state.Spool(file, LIMIT)


def test_what_is_added_is_read_in_its_order_byte_for_byte(kept: state.Spool) -> None:
    odd = dataclasses.replace(refused(0), document='{"a":"\u00e4 \udcff \\n"}')
    assert kept.add([odd, refused(1)]) == 0
    assert kept.add([refused(2)]) == 0
    assert list(kept.documents()) == [odd, refused(1), refused(2)]
    assert kept.size()[0] == 3


def test_an_empty_spool_makes_no_file(kept: state.Spool, file: Path) -> None:
    assert (ids(kept), kept.size()) == ([], (0, 0))
    assert not file.exists()


def test_nobody_else_can_read_it(kept: state.Spool, file: Path) -> None:
    kept.add([refused(1)])
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_oldest_make_room_and_are_counted(kept: state.Spool, file: Path) -> None:
    lost = sum(kept.add([refused(number)]) for number in range(1000))
    assert lost > 0
    assert ids(kept) == [f"id{number}" for number in range(lost, 1000)]
    assert kept.size()[0] == 1000 - lost
    # Not more room is made than a hundred documents need.
    assert LIMIT - 150_000 < kept.size()[1] <= LIMIT
    assert file.stat().st_size < LIMIT + 100_000


def test_the_limit_holds_over_restarts(file: Path) -> None:
    lost = sum(state.Spool(file, LIMIT).add([refused(number)]) for number in range(500))
    assert state.Spool(file, LIMIT).size()[0] == 500 - lost
    assert state.Spool(file, LIMIT).size()[1] <= LIMIT


def test_a_document_too_large_for_the_spool_is_dropped_alone(kept: state.Spool) -> None:
    assert kept.add([refused(1), refused(2, LIMIT), refused(3)]) == 1
    assert ids(kept) == ["id1", "id3"]


def test_what_is_sent_again_goes_and_what_comes_meanwhile_stays(kept: state.Spool) -> None:
    kept.add(refused(number) for number in range(5))
    seen = []
    for number, documents in kept.batches(2):
        seen += [document.id for document in documents]
        kept.add([refused(len(seen) + 100)])
        kept.forget(number)
    assert seen == ["id0", "id1", "id2", "id3", "id4"]
    assert ids(kept) == ["id102", "id104", "id105"]
    assert kept.size()[0] == 3


def test_where_nothing_can_be_written_the_documents_are_lost_and_the_fault_is_told(
    kept: state.Spool, file: Path
) -> None:
    file.parent.write_text("a file where the directory should be")
    assert kept.add([refused(1), refused(2)]) == 2
    assert isinstance(kept.fault, OSError)
    assert (ids(kept), kept.size()) == ([], (0, 0))
    file.parent.unlink()
    assert kept.add([refused(3)]) == 0
    assert kept.fault is None


def test_no_space_left_costs_what_comes_then_and_nothing_else(
    kept: state.Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(sqlite3.Connection):
        """A database on a full disk."""

        def executemany(self, *_: object) -> sqlite3.Cursor:  # type: ignore[override]
            raise sqlite3.OperationalError("database or disk is full")

    kept.add([refused(0)])
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Full))
    assert kept.add([refused(1), refused(2)]) == 2
    assert "full" in str(kept.fault)
    monkeypatch.undo()
    assert kept.add([refused(3)]) == 0
    assert ids(kept) == ["id0", "id3"]


def test_a_process_that_holds_the_spool_holds_up_nobody(
    kept: state.Spool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_LOCKED", 0.1)
    kept.add([refused(0)])
    other = sqlite3.connect(file)
    other.execute("BEGIN EXCLUSIVE")
    assert kept.add([refused(1)]) == 1
    assert "locked" in str(kept.fault)
    other.close()


@pytest.mark.parametrize("content", [b"", b"garbage " * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_file_is_set_aside(kept: state.Spool, file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    assert kept.size() == (0, 0)
    assert kept.add([refused(1)]) == 0
    assert ids(kept) == ["id1"]
    assert file.with_name("refused.sqlite.damaged").exists() == bool(content)


@pytest.mark.parametrize(
    "record",
    [
        "{}",
        "[]",
        "null",
        "[" * 30_000,
        json.dumps({**dataclasses.asdict(refused(1)), "when": 1e300}),
        json.dumps({**dataclasses.asdict(refused(1)), "when": "now"}),
        json.dumps({**dataclasses.asdict(refused(1)), "document": 5}),
        json.dumps({**dataclasses.asdict(refused(1)), "status": None}),
        "\x00",
        7,
        b"\xff",
    ],
)
def test_garbage_is_passed_over(kept: state.Spool, file: Path, record: object) -> None:
    kept.add([refused(1)])
    with sqlite3.connect(file) as database:
        database.execute("INSERT INTO refused (record) VALUES (?)", (record,))
    kept.add([refused(2)])
    assert ids(kept) == ["id1", "id2"]
