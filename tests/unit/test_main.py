"""wrtflow health and wrtflow spool: what a person sees, and the exit status that a monitor sees."""

import json
import time
import typing
from collections.abc import Sequence
from pathlib import Path

import pytest
from wrtflow import __main__, delivery, health, outbox, spool


class Client:
    """Elasticsearch, as far as the tool sees it: takes all but what is refused, until it is away."""

    refused: typing.ClassVar[set[bytes]] = set()
    away_after = 1000
    taken: typing.ClassVar[list[delivery.Document]] = []

    def __init__(self, _settings: object) -> None:
        pass

    def fingerprint(self) -> object:
        return None

    def bulk(self, documents: Sequence[delivery.Document]) -> list[delivery.Answer]:
        if len(self.taken) >= self.away_after:
            raise delivery.Unavailable("503", "Elasticsearch is away.")
        answers = []
        for document in documents:
            if document.id in self.refused:
                answers.append(delivery.Answer(400, "mapping", "still"))
            elif document in self.taken:
                answers.append(delivery.Answer(409))
            else:
                answers.append(delivery.Answer(201))
                self.taken.append(document)
        return answers


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> type[Client]:
    made = type("Fresh", (Client,), {"taken": [], "refused": set()})
    monkeypatch.setattr(delivery, "Client", made)
    monkeypatch.setattr(health, "queue", dict)
    return made


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "settings.json").write_text(json.dumps({"state_directory": str(tmp_path)}))
    return tmp_path


def run(state: Path, *arguments: str) -> int:
    return __main__.main(["--settings", str(state / "settings.json"), *arguments])


def fill(state: Path, number: int) -> None:
    spool.Spool(state / "refused", 1 << 20).add(
        spool.Refused(1e9, "network-2026.11", f"id{i}", 400, "mapping", "not a number", f'{{"n":{i}}}')
        for i in range(number)
    )


def record(state: Path, **sections: object) -> None:
    well = {
        "written": health.timestamp(time.time()),
        "delivery": {"state": "delivering", "indexed": 7, "reason": None},
    }
    health.write(state / "health.json", {**well, **sections})


def test_a_collector_that_is_well(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(state, names={"share": {"dns": 0.8}})
    assert run(state, "health") == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["delivery.indexed", "7"] in lines
    assert ["names.share.dns", "0.8"] in lines


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"written": "2026-11-24T00:00:00+00:00"}, "s old: syslog-ng does not run"),
        ({"delivery": {"reason": "The key is refused (401)."}}, "The key is refused (401)."),
        ({"delivery": {"reason": "Away."}, "queue": {"waiting": 26}}, "Away. Now 26 documents are queued."),
        ({"delivery": {"spool": {"documents": 2}}}, "2 refused documents are kept"),
        ({"names": {"fault": "OSError: gone"}}, "names: OSError: gone"),
        ({"queue": {"dropped": 5}}, "5 documents were dropped"),
        ({"flows": {"lines": 0}, "senders": {"strangers": 3}}, "3 lines came, and none from a router"),
    ],
)
def test_what_is_wrong_is_said_and_exits_1(
    state: Path, sections: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record(state, **sections)
    assert run(state, "health", "--json") == 1
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert said in fault


def test_strangers_beside_routers_are_no_fault(state: Path) -> None:
    record(state, flows={"lines": 1}, senders={"strangers": 3})
    assert run(state, "health") == 0


def test_no_record_is_a_fault(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(state, "health") == 1
    assert "there is no health record" in capsys.readouterr().out


def test_the_numbers_of_the_queue_are_fresh(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(state, queue={"waiting": 0})
    monkeypatch.setattr(health, "queue", lambda: {"waiting": 2, "dropped": 0, "bytes": 4096})
    (state / "queue").write_bytes(outbox._NUMBERS.pack(25, 0, 7))
    assert run(state, "health", "--json") == 0
    expected = {"waiting": 25, "dropped": 0, "dropped_ever": 7, "bytes": 4096}
    assert json.loads(capsys.readouterr().out)["queue"] == expected


def test_the_spool_is_listed_with_the_reasons(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(state, 2)
    assert run(state, "spool", "list") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"2001-09-09T01:46:40+00:00 network-2026.11 id{i} 400 mapping: not a number" for i in range(2)
    ]
    assert run(state, "spool", "list", "--json") == 0
    assert [json.loads(json.loads(line)["document"]) for line in capsys.readouterr().out.splitlines()] == [
        {"n": 0},
        {"n": 1},
    ]


def test_resending_empties_the_spool(
    state: Path, client: type[Client], capsys: pytest.CaptureFixture[str]
) -> None:
    fill(state, 1200)
    assert run(state, "spool", "resend") == 0
    assert capsys.readouterr().out == "1200 indexed, 0 there already, 0 refused again\n"
    assert client.taken[7] == delivery.Document(b"network-2026.11", b"id7", b'{"n":7}')
    assert len(client.taken) == 1200
    assert run(state, "spool", "resend") == 0
    assert len(client.taken) == 1200


def test_what_is_refused_again_stays_with_its_new_reason(
    state: Path, client: type[Client], capsys: pytest.CaptureFixture[str]
) -> None:
    fill(state, 3)
    client.refused = {b"id1"}
    assert run(state, "spool", "resend") == 1
    assert "2 indexed, 0 there already, 1 refused again" in capsys.readouterr().out
    assert [(kept.id, kept.reason) for kept in spool.Spool(state / "refused", 1 << 20).documents()] == [
        ("id1", "still")
    ]


def test_an_interrupted_resend_loses_and_doubles_nothing(
    state: Path, client: type[Client], capsys: pytest.CaptureFixture[str]
) -> None:
    fill(state, 1200)
    # In the middle of a file.
    chosen = {"state_directory": str(state), "delivery": {"batch_lines": 100}}
    (state / "settings.json").write_text(json.dumps(chosen))
    client.away_after = 500
    assert run(state, "spool", "resend") == 1
    assert "Elasticsearch is away." in capsys.readouterr().err
    left = {kept.id for kept in spool.Spool(state / "refused", 1 << 20).documents()}
    assert 0 < len(left) < 1200
    assert left | {document.id.decode() for document in client.taken} == {f"id{i}" for i in range(1200)}
    client.away_after = 10_000
    assert run(state, "spool", "resend") == 0
    assert len(client.taken) == 1200
    assert " 0 there already" not in capsys.readouterr().out
    assert spool.Spool(state / "refused", 1 << 20).size() == (0, 0)


def test_unreadable_settings_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "health") == 1
    assert "settings.json" in capsys.readouterr().err
