"""wrtflow.health: changes are said once, the record is whole at any moment, syslog-ng's numbers are found."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from naming import until
from wrtflow import health


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_reports", {})
    monkeypatch.setattr(health, "_writer", None)
    monkeypatch.setattr(health, "_PERIOD", 3600)


def test_a_condition_says_changes_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    condition = health.Condition("It works again")
    condition.right()
    condition.wrong("401", "The key is refused.")
    condition.wrong("401", "The key is refused, the other documents say.")
    clock.now += 200
    condition.wrong("503", "It is away.")
    condition.right()
    condition.right()
    assert capfd.readouterr().err.splitlines() == [
        "<3>wrtflow: The key is refused.",
        "<3>wrtflow: It is away.",
        "<5>wrtflow: It works again (after 0:03:20).",
    ]


def test_a_sentence_is_one_line_of_the_journal(capfd: pytest.CaptureFixture[str]) -> None:
    health.say(health.WARNING, "a\n<0>b \udcff")
    assert capfd.readouterr().err == "<4>wrtflow: a <0>b ?\n"


def test_rarely_says_a_kind_once_an_hour(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    for kind in ("a", "a", "b"):
        health.rarely(kind, health.WARNING, kind)
    clock.now += 3600
    health.rarely("a", health.WARNING, "a")
    assert capfd.readouterr().err.splitlines() == [f"<4>wrtflow: {kind}" for kind in ("a", "b", "a")]


def test_a_part_that_fails_does_not_hide_the_others(tmp_path: Path) -> None:
    health.register("flows", lambda: {"open": 3})
    health.register("names", lambda: {"rate": 1 // 0})
    record = health.collect()
    assert record["flows"] == {"open": 3}
    assert record["names"] == {"fault": "ZeroDivisionError: integer division or modulo by zero"}


def test_the_record_is_private_and_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    health.write(path, {"a": 1})
    with path.open() as reader:
        health.write(path, {"b": 2})
        assert json.load(reader) == {"a": 1}
    assert health.read(path) == {"b": 2}
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["health.json"]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "\x00", "[" * 100_000])
def test_a_record_that_can_not_be_read_is_an_empty_one(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "health.json").write_text(content)
    assert health.read(tmp_path / "health.json") == {}


def test_it_is_written_by_itself_at_once_after_a_change_and_in_spite_of_errors(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers = {"open": 1}
    health.register("flows", lambda: numbers)
    path = tmp_path / "later" / "health.json"
    health.start(path)
    until(lambda: "can't be written" in capfd.readouterr().err)
    path.parent.mkdir()
    numbers["open"] = 2
    health.changed()
    until(lambda: health.read(path).get("flows") == {"open": 2})
    until(lambda: "is written again" in capfd.readouterr().err)


@pytest.mark.parametrize("name", ["health.json", "health.json.new"])
def test_a_directory_in_its_place_is_said_and_ends_nothing(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "something").touch()
    health.start(tmp_path / "health.json")
    until(lambda: "can't be written" in capfd.readouterr().err)
    assert health.read(tmp_path / "health.json") == {}
    (tmp_path / name / "something").unlink()
    (tmp_path / name).rmdir()
    health.changed()
    until(lambda: health.read(tmp_path / "health.json"))


def test_a_report_that_is_no_json_ends_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    endless: dict[str, object] = {}
    endless["endless"] = endless
    health.register("names", lambda: endless)
    health.start(tmp_path / "health.json")
    until(lambda: "can't be written" in capfd.readouterr().err)
    health.register("names", lambda: {"rate": 1})
    health.changed()
    until(lambda: health.read(tmp_path / "health.json").get("names") == {"rate": 1})


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """syslog-ng's control socket; nobody answers."""
    monkeypatch.setattr(health, "CONTROL_SOCKET", str(tmp_path / "ctl"))
    return tmp_path / "ctl"


STATISTICS = """\
syslogng_output_events_total{driver="python",class="wrtflow.parsers.Elasticsearch",id="d#0",result="queued"} 12
syslogng_output_events_total{driver="python",class="wrtflow.parsers.Elasticsearch",id="d#0",result="dropped"} 3
syslogng_output_events_total{driver="python",class="wrtflow.parsers.Elasticsearch",id="d#0",result="delivered"} 500
syslogng_output_events_total{driver="file",id="other#0",result="queued"} 99
syslogng_disk_queue_disk_usage_bytes{driver="python",class="wrtflow.parsers.Elasticsearch",worker="0"} 4096
syslogng_disk_queue_capacity_bytes{driver="python",class="wrtflow.parsers.Elasticsearch",worker="0"} 1073737728
"""


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            f"{STATISTICS}\n.\n",
            {"waiting": 12, "dropped": 3, "bytes": 4096, "capacity": 1073737728},
        ),
        ("\n.\n", {}),
        (STATISTICS, {}),
    ],
    ids=["whole", "empty", "broken off"],
)
def test_syslog_ng_tells_what_waits(control: Path, answer: str, expected: dict[str, int]) -> None:
    with answering(control, answer) as asked:
        assert health.queue() == expected
    assert asked == [b"STATS PROMETHEUS\n"]


@contextlib.contextmanager
def answering(path: Path, answer: str) -> Iterator[list[bytes]]:
    """syslog-ng's control socket: answers once, and tells what it was asked."""
    asked: list[bytes] = []

    def serve(server: socket.socket) -> None:
        with server.accept()[0] as connection:
            asked.append(connection.recv(100))
            connection.sendall(answer.encode())

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        yield asked
        thread.join()


def test_syslog_ng_tells_what_it_received(control: Path) -> None:
    answer = (
        "source;s_wrtflow_syslog;;a;processed;40\nsource;s_wrtflow_json;;a;processed;2\n"
        "source;s_src;;a;processed;7\nsource;s_wrtflow_endings;;a;processed;3\n\n.\n"
    )
    with answering(control, answer) as asked:
        assert health.received() == 42
    assert asked == [b"STATS CSV\n"]


@pytest.mark.usefixtures("control")
def test_no_syslog_ng_no_numbers() -> None:
    assert health.queue() == {}
    assert health.received() is None
