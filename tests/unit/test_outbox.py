"""wrtflow.outbox: documents go into the disk buffer together, and are counted there."""

import threading
import time
from pathlib import Path

import pytest
from wrtflow import health, outbox


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What syslog-ng says of its buffer."""
    numbers = {"waiting": 0, "dropped": 0, "bytes": 0, "capacity": 1 << 30}
    monkeypatch.setattr(health, "queue", lambda: dict(numbers))
    return numbers


def put(box: outbox.Outbox, *numbers: int) -> None:
    for number in numbers:
        box.put("network-2026.11", f"id{number}", "{}")


def lines(*numbers: int) -> str:
    return "\n".join(
        f'{{"create":{{"_index":"network-2026.11","_id":"id{number}"}}}}\n{{}}' for number in numbers
    )


def test_what_is_there_goes_together_and_in_order(tmp_path: Path, said: dict[str, int]) -> None:
    counted = outbox.Tally(tmp_path / "queue")
    box = outbox.Outbox(counted, together=3)
    posted: list[str] = []
    put(box, *range(7))
    box.stop()
    box.run(posted.append)
    assert posted == [lines(0, 1, 2), lines(3, 4, 5), lines(6)]
    assert counted.waiting == 7


def test_the_first_goes_at_once_and_the_next_together(
    tmp_path: Path, said: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pause, more = threading.Event(), threading.Event()
    monkeypatch.setattr(time, "sleep", lambda _: (pause.set(), more.wait(30)))
    box = outbox.Outbox(outbox.Tally(tmp_path / "queue"))
    posted: list[str] = []
    running = threading.Thread(target=box.run, args=(posted.append,))
    running.start()
    put(box, 0)
    assert pause.wait(30)
    assert posted == [lines(0)]
    put(box, 1, 2, 3)
    box.stop()
    more.set()
    running.join(30)
    assert posted == [lines(0), lines(1, 2, 3)]


def test_what_finds_no_room_is_counted_in_documents(tmp_path: Path, said: dict[str, int]) -> None:
    counted = outbox.Tally(tmp_path / "queue")

    def post(text: str) -> None:
        if said["bytes"] + len(text) > said["capacity"]:
            said["dropped"] += 1
        else:
            said["bytes"] += len(text)

    said["capacity"] = 8 << 20
    text, count, kept, dropped = "x" * 70_000, 0, 0, 0
    while dropped < 30:
        before, count = said["dropped"], count % 7 + 1
        counted.post(post, text, count)
        if said["dropped"] > before:
            dropped += count
        else:
            kept += count
        assert (counted.waiting, counted.dropped) == (kept, dropped)
    assert outbox.read(tmp_path / "queue") == {"waiting": kept, "dropped": dropped, "dropped_ever": dropped}
    # dropped is of this start, as syslog-ng's is.
    after = outbox.Tally(tmp_path / "queue")
    assert after.report() == {"waiting": kept, "dropped": 0, "dropped_ever": dropped}


def test_while_there_is_room_syslog_ng_is_not_asked(
    tmp_path: Path, said: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[None] = []
    monkeypatch.setattr(health, "queue", lambda: (asked.append(None), dict(said))[1])
    counted = outbox.Tally(tmp_path / "queue")
    for _ in range(100):
        counted.post(lambda _: None, "x" * 1000, 1)
    assert len(asked) == 1


def test_drops_are_found_when_syslog_ng_answers_again(
    tmp_path: Path, said: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    monkeypatch.setattr(health, "queue", dict)
    counted = outbox.Tally(tmp_path / "queue")
    counted.post(lambda _: None, "", 5)
    counted.post(lambda _: None, "", 3)
    monkeypatch.setattr(health, "queue", lambda: {**said, "dropped": 2, "bytes": said["capacity"]})
    counted.post(lambda _: None, "", 2)
    assert (counted.waiting, counted.dropped) == (10, 0)
    moment[0] += 2
    counted.post(lambda _: None, "", 1)
    assert (counted.waiting, counted.dropped) == (8, 3)


def test_a_reload_goes_on_with_the_numbers(tmp_path: Path, said: dict[str, int]) -> None:
    counted = outbox.tally(tmp_path / "queue")
    counted.post(lambda _: said.update(dropped=1, bytes=said["capacity"]), "", 4)
    assert outbox.tally(tmp_path / "queue") is counted
    assert outbox.read(tmp_path / "queue") == {"waiting": 0, "dropped": 4, "dropped_ever": 4}


def test_more_can_t_leave_than_was_there(tmp_path: Path) -> None:
    counted = outbox.Tally(tmp_path / "queue")
    counted.settled(3)
    assert counted.waiting == 0


@pytest.mark.parametrize("content", [b"", b"short", b"longer than three numbers"])
def test_a_file_that_is_none_counts_from_0(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "queue").write_bytes(content)
    nothing = {"waiting": 0, "dropped": 0, "dropped_ever": 0}
    assert outbox.Tally(tmp_path / "queue").report() == outbox.read(tmp_path / "queue") == nothing
