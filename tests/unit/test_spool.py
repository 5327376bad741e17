"""wrtflow.spool: refused documents are kept within a limit, oldest dropped first, and survive being torn."""

import dataclasses
import fcntl
import json
import os
import resource
import signal
from pathlib import Path

import pytest
from wrtflow import spool

LIMIT = 64 * 1024


def refused(number: int, size: int = 1000) -> spool.Refused:
    return spool.Refused(1e9 + number, "network-2026.11", f"id{number}", 400, "mapping", "why", "x" * size)


def test_what_is_added_is_read_in_its_order_byte_for_byte(tmp_path: Path) -> None:
    kept = spool.Spool(tmp_path / "refused", LIMIT)
    odd = dataclasses.replace(refused(0), document='{"a":"\u00e4 \udcff \\n"}')
    assert kept.add([odd, refused(1)]) == 0
    assert kept.add([refused(2)]) == 0
    assert list(kept.documents()) == [odd, refused(1), refused(2)]


def test_an_empty_spool_makes_no_directory(tmp_path: Path) -> None:
    kept = spool.Spool(tmp_path / "refused", LIMIT)
    assert (list(kept.documents()), kept.size(), kept.claim()) == ([], (0, 0), [])
    assert not (tmp_path / "refused").exists()


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    spool.Spool(tmp_path / "refused", LIMIT).add([refused(1)])
    assert (tmp_path / "refused").stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "refused").iterdir()] == [0o600]


def test_the_oldest_make_room_and_are_counted(tmp_path: Path) -> None:
    kept = spool.Spool(tmp_path, LIMIT)
    dropped = sum(kept.add([refused(number)]) for number in range(200))
    left = [document.id for document in kept.documents()]
    assert dropped > 0
    assert left == [f"id{number}" for number in range(dropped, 200)]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= LIMIT
    assert kept.size() == (len(left), sum(path.stat().st_size for path in tmp_path.iterdir()))
    # Not more room than needed is made: a sixteenth of the limit at a time.
    assert kept.size()[1] > LIMIT * 14 // 16


def test_the_limit_holds_over_restarts(tmp_path: Path) -> None:
    dropped = sum(spool.Spool(tmp_path, LIMIT).add([refused(number)]) for number in range(200))
    assert spool.Spool(tmp_path, LIMIT).size()[0] == 200 - dropped
    assert spool.Spool(tmp_path, LIMIT).size()[1] <= LIMIT


def test_a_document_too_large_for_the_spool_is_dropped_alone(tmp_path: Path) -> None:
    kept = spool.Spool(tmp_path, LIMIT)
    assert kept.add([refused(1), refused(2, LIMIT), refused(3)]) == 1
    assert [document.id for document in kept.documents()] == ["id1", "id3"]


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    spool.Spool(tmp_path, LIMIT).add([refused(1), refused(2)])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    after = spool.Spool(tmp_path, LIMIT)
    after.add([refused(3)])
    assert [document.id for document in after.documents()] == ["id1", "id3"]


def test_what_is_claimed_is_out_of_the_adders_way_and_not_lost(tmp_path: Path) -> None:
    kept = spool.Spool(tmp_path, LIMIT)
    kept.add([refused(1)])
    (claimed,) = kept.claim()
    kept.add([refused(2)])
    assert [document.id for document in spool.read(claimed)] == ["id1"]
    assert [document.id for document in kept.documents()] == ["id1", "id2"]
    # The sender was interrupted: the next claim has it again.
    assert len(kept.claim()) == 2


def test_where_nothing_can_be_written_the_documents_are_lost_and_the_fault_is_told(tmp_path: Path) -> None:
    (tmp_path / "refused").write_text("a file where the directory should be")
    kept = spool.Spool(tmp_path / "refused", LIMIT)
    assert kept.add([refused(1), refused(2)]) == 2
    assert isinstance(kept.fault, OSError)
    assert (list(kept.documents()), kept.size(), kept.claim()) == ([], (0, 0), [])
    (tmp_path / "refused").unlink()
    assert kept.add([refused(3)]) == 0
    assert kept.fault is None


def test_after_no_space_left_a_new_file_begins(tmp_path: Path) -> None:
    kept = spool.Spool(tmp_path, LIMIT)
    assert kept.add([refused(0)]) == 0
    size = len((next(tmp_path.iterdir())).read_bytes())
    # As on a full disk: the third record finds room for a part of it.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size * 2 + 100, before[1]))
    try:
        assert kept.add([refused(1), refused(2), refused(3)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert kept.add([refused(4)]) == 0
    assert [document.id for document in kept.documents()] == ["id0", "id1", "id4"]
    assert kept.size()[0] == 3


def test_a_process_that_holds_the_spool_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_LOCKED", 0.1)
    kept = spool.Spool(tmp_path, LIMIT)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert kept.add([refused(1)]) == 1
        assert isinstance(kept.fault, BlockingIOError)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[]",
        "null",
        "[" * 30_000,
        json.dumps({**dataclasses.asdict(refused(1)), "when": 1e300}),
        json.dumps({**dataclasses.asdict(refused(1)), "when": "now"}),
        json.dumps({**dataclasses.asdict(refused(1)), "document": 5}),
        json.dumps({**dataclasses.asdict(refused(1)), "status": None}),
        "\x00\udcff",
    ],
)
def test_garbage_is_passed_over(tmp_path: Path, line: str) -> None:
    kept = spool.Spool(tmp_path, LIMIT)
    kept.add([refused(1)])
    (file,) = tmp_path.iterdir()
    file.write_bytes(line.encode(errors="surrogateescape") + b"\n" + file.read_bytes())
    (tmp_path / "0.jsonl").mkdir()
    kept.add([refused(2)])
    assert [document.id for document in kept.documents()] == ["id1", "id2"]
