"""wrtflow.outbox: documents go into the disk buffer together, and are counted there."""

import sqlite3
import threading
import time
from pathlib import Path

import pytest
from wrtflow import health, outbox, state


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What syslog-ng says of its buffer."""
    numbers = {"waiting": 0, "dropped": 0, "bytes": 0, "capacity": 1 << 30}
    monkeypatch.setattr(health, "queue", lambda: dict(numbers))
    return numbers


def made() -> outbox.Outbox:
    return outbox.Outbox(state.State(Path("/nonexistent/state.sqlite")))


def post(box: outbox.Outbox, count: int) -> list[str]:
    """Send documents as one message."""
    posted: list[str] = []
    put(box, *range(count))
    box.stop()
    box.run(posted.append)
    return posted


def put(box: outbox.Outbox, *numbers: int) -> None:
    for number in numbers:
        box.put(lines(number))


def lines(*numbers: int) -> str:
    return "\n".join(
        f'{{"create":{{"_index":"network-2026.11","_id":"id{number}"}}}}\n{{}}' for number in numbers
    )


def test_what_is_there_goes_together_and_in_order(
    said: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "TOGETHER", 3)
    box = made()
    posted: list[str] = []
    put(box, *range(7))
    box.stop()
    box.run(posted.append)
    assert posted == [lines(0, 1, 2), lines(3, 4, 5), lines(6)]
    assert box.numbers["waiting"] == 7


def test_the_first_goes_at_once_and_the_next_together(
    said: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pause, more = threading.Event(), threading.Event()
    monkeypatch.setattr(time, "sleep", lambda _: (pause.set(), more.wait(30)))
    box = made()
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


def test_what_finds_no_room_is_counted_in_documents(
    said: dict[str, int], capfd: pytest.CaptureFixture[str]
) -> None:
    box, kept, dropped = made(), 0, 0
    for number in range(40):
        count = number % 7 + 1
        assert len(post(box, count)) == 1
        if number % 3:
            kept += count
            said["waiting"] += 1
        else:
            dropped += count
            said["dropped"] += 1
        told = {**said, "waiting": kept, "dropped": dropped, "dropped_ever": dropped}
        assert (box.report(), box.report()) == (told, told)
    assert capfd.readouterr().err.splitlines() == [
        "<3>wrtflow: The disk buffer is full: 1 documents have been dropped since syslog-ng's start."
    ]


def test_drops_are_found_when_syslog_ng_answers_again(
    said: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "queue", dict)
    box = made()
    for count in (5, 3, 2):
        post(box, count)
        assert box.report() == {}
    monkeypatch.setattr(health, "queue", lambda: {**said, "dropped": 2, "waiting": 1})
    box.report()
    assert (box.numbers["waiting"], box.dropped) == (5, 5)


def test_a_reload_goes_on_with_the_numbers(tmp_path: Path, said: dict[str, int]) -> None:
    def after(before: outbox.Outbox | None, kept: state.State) -> outbox.Outbox:
        box = outbox.Outbox(kept, before)
        kept.open()
        box.load()
        return box

    kept = state.State(tmp_path / "state.sqlite")
    box = after(None, kept)
    post(box, 4)
    said.update(dropped=1, waiting=1)
    assert box.report()["dropped"] == 4
    post(box, 2)
    # Other settings: another state, which takes what the first has in memory.
    box = after(box, state.State(tmp_path / "state.sqlite", kept))
    assert box.report() == {**said, "waiting": 2, "dropped": 4, "dropped_ever": 4}
    kept.save()
    # dropped is of this start, as syslog-ng's is.
    box = after(None, state.State(tmp_path / "state.sqlite"))
    assert (box.numbers["waiting"], box.dropped, box.numbers["dropped"]) == (2, 0, 4)


def test_an_empty_buffer_sets_right_what_was_counted_wrong(said: dict[str, int]) -> None:
    box = made()
    box.numbers.add("waiting", 7)
    assert box.report(in_hand=True)["waiting"] == 7
    assert box.report()["waiting"] == 0


def test_no_syslog_ng_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "queue", dict)
    box = made()
    box.numbers.add("waiting", 7)
    assert (box.report(), box.numbers["waiting"]) == ({}, 7)


def test_more_can_t_leave_than_was_there() -> None:
    numbers = outbox.Numbers()
    numbers.add("waiting", 2)
    numbers.add("waiting", -3)
    assert numbers["waiting"] == 0


@pytest.mark.parametrize("value", ["7", "-1", "1.5", "true", "null", "[]", "9" * 30, "\x00"])
def test_a_row_that_is_no_number_counts_from_0(tmp_path: Path, value: str) -> None:
    kept = state.State(tmp_path / "state.sqlite")
    box = outbox.Outbox(kept)
    kept.open()
    with sqlite3.connect(tmp_path / "state.sqlite") as database:
        database.execute("INSERT INTO store VALUES ('waiting', ?), ('indexed', '3')", (value,))
    box.load()
    assert (box.numbers["waiting"], box.numbers["indexed"]) == (7 if value == "7" else 0, 3)
    kept.close()
