"""wrtflow health, ledger and spool: what a person sees, and the exit status that a monitor sees."""

import collections
import json
import time
import typing
from pathlib import Path

import house
import pytest
from wrtflow import __main__, health, ledger, store
from wrtflow.state import Refused, Spool, State


class Client:
    """Elasticsearch, as far as the tool sees it: takes all but what is refused, until it is away."""

    refused: typing.ClassVar[set[str]] = set()
    away_after = 10_000
    taken: typing.ClassVar[list[store.Document]] = []

    def __init__(self, _settings: object) -> None:
        pass

    def close(self) -> None:
        pass

    def bulk(self, batch: store.Batch) -> list[store.Answer]:
        if len(self.taken) >= self.away_after:
            raise store.Unavailable("503", "Elasticsearch is away.")
        answers = []
        for document in batch.documents:
            if document.id in self.refused:
                answers.append(store.Answer(400, "mapping", "still"))
            elif document in self.taken:
                answers.append(store.Answer(409))
            else:
                answers.append(store.Answer(201))
                self.taken.append(document)
        return answers


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> type[Client]:
    made = type("Fresh", (Client,), {"taken": [], "refused": set()})
    monkeypatch.setattr(store, "Client", made)
    monkeypatch.setattr(health, "control", lambda _command: "")
    return made


@pytest.fixture
def state(tmp_path: Path) -> Path:
    chosen = vars(house.settings(tmp_path)) | {"names": {}, "delivery": {"url": "https://localhost:9200"}}
    (tmp_path / "settings.json").write_text(json.dumps(chosen))
    return tmp_path


def run(state: Path, *arguments: str) -> int:
    return __main__.main(["--settings", str(state / "settings.json"), *arguments])


def fill(state: Path, number: int) -> None:
    Spool(state / "refused.sqlite", 1 << 20).add(
        Refused(1e9, "network-2026.11", f"id{i}", 400, "mapping", "not a number", f'{{"n":{i}}}')
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


@pytest.mark.parametrize(
    "content",
    [{"written": 5}, {"written": "now"}, {"written": "2026-11-24"}, {"queue": 1}, {"written": "9" * 99}, []],
)
def test_a_record_that_is_none_is_a_fault(
    state: Path, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    (state / "health.json").write_text(json.dumps(content))
    assert run(state, "health") == 1
    record(state, flows=7, delivery=[1], queue="x")
    assert run(state, "health") == 0


def test_strangers_beside_routers_are_no_fault(state: Path) -> None:
    record(state, flows={"lines": 1}, senders={"strangers": 3})
    assert run(state, "health") == 0


@pytest.fixture
def nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the role's table; the program that lists it is what the test writes."""
    program = tmp_path / "nft"
    monkeypatch.setattr(__main__, "FIREWALL", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return program


def listing(**sets: dict[str, int]) -> str:
    """Return what nft says of sets with counters."""
    return json.dumps(
        {
            "nftables": [
                {"metainfo": {"version": "1.1.3"}},
                {"table": {"family": "inet", "name": "wrtflow"}},
                {"rule": {"chain": "input"}},
                {"rule": {"chain": "routers"}},
                {"set": {"name": "connections4", "elem": [{"elem": {"val": "192.168.1.1"}}]}},
                *(
                    {"set": {"name": name, "elem": [
                        {"elem": {"val": address, "expires": 9, "counter": {"packets": packets, "bytes": 60}}}
                        for address, packets in found.items()
                    ]}}
                    for name, found in sets.items()
                ),
                {"set": {"name": "strangers6", "type": "ipv6_addr"}},
            ]
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("says", "faults"),
    [
        (listing(), []),
        (
            listing(
                strangers4={"192.168.1.7": 2, "192.168.1.8": 9, "192.168.1.9": 1}, strangers6={"fe80::7": 3}
            ),
            ["192.168.1.8, fe80::7, 192.168.1.7 and 1 more called and was refused"],
        ),
        (listing(greedy4={"192.168.1.1": 4}), ["192.168.1.1 wanted too many connections"]),
        ("", ["the ports are open to everybody"]),
        (listing().replace("routers", "router"), ["the ports are open to everybody"]),
        (None, ["the ports are open to everybody"]),
    ],
)
def test_who_is_refused_is_a_fault(
    state: Path, nft: Path, says: str | None, faults: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    record(state)
    nft.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\n" if says else "#!/bin/sh\nexit 1\n")
    if says is not None:
        nft.chmod(0o755)
    assert run(state, "health", "--json") == bool(faults)
    told = json.loads(capsys.readouterr().out)["faults"]
    assert len(told) == len(faults)
    assert all(part in fault for part, fault in zip(faults, told, strict=True))


def test_a_full_port_is_a_fault(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(state)
    lines = (
        'syslogng_socket_max_connections{id="s_wrtflow_syslog#0",driver="afsocket"} 256\n'
        'syslogng_socket_connections{id="s_wrtflow_json#0",driver="afsocket"} 1\n'
        'syslogng_socket_max_connections{id="s_wrtflow_json#0",driver="afsocket"} 256\n'
        'syslogng_socket_connections{id="s_wrtflow_syslog#0",driver="afsocket"} %d\n'
        'syslogng_socket_connections{id="s_own#0",driver="afsocket"} 900\n.\n'
    )
    monkeypatch.setattr(health, "control", lambda _command: lines % 255)
    assert run(state, "health") == 0
    assert "connections.now                          255" in capsys.readouterr().out
    monkeypatch.setattr(health, "control", lambda _command: lines % 256)
    assert run(state, "health") == 1
    assert "all 256 TCP connections are taken" in capsys.readouterr().out


def test_no_record_is_a_fault(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(state, "health") == 1
    assert "there is no health record" in capsys.readouterr().out


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
    assert client.taken[7] == store.Document("network-2026.11", "id7", '{"n":7}')
    assert len(client.taken) == 1200
    assert run(state, "spool", "resend") == 0
    assert len(client.taken) == 1200


def test_what_is_refused_again_stays_with_its_new_reason(
    state: Path, client: type[Client], capsys: pytest.CaptureFixture[str]
) -> None:
    fill(state, 3)
    client.refused = {"id1"}
    assert run(state, "spool", "resend") == 1
    assert "2 indexed, 0 there already, 1 refused again" in capsys.readouterr().out
    assert [(kept.id, kept.reason) for kept in Spool(state / "refused.sqlite", 1 << 20).documents()] == [
        ("id1", "still")
    ]


def test_an_interrupted_resend_loses_and_doubles_nothing(
    state: Path, client: type[Client], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(state, 1200)
    # In the middle of the spool.
    monkeypatch.setattr(store, "LINES", 100)
    client.away_after = 500
    assert run(state, "spool", "resend") == 1
    assert "Elasticsearch is away." in capsys.readouterr().err
    left = {kept.id for kept in Spool(state / "refused.sqlite", 1 << 20).documents()}
    assert 0 < len(left) < 1200
    assert left | {document.id for document in client.taken} == {f"id{i}" for i in range(1200)}
    client.away_after = 10_000
    assert run(state, "spool", "resend") == 0
    assert len(client.taken) == 1200
    assert "700 indexed, 0 there already" in capsys.readouterr().out
    assert Spool(state / "refused.sqlite", 1 << 20).size() == (0, 0)


def test_a_loss_in_the_ledger_is_said_and_exits_1(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = State(state / "state.sqlite")
    table = kept.table("ledger", dict, numbered=True)
    kept.open()
    now = int(time.time() // 60)
    table.put(now - 1, ledger.Row(60_000, collections.Counter({"flows": 3, "indexed": 2})).text())
    table.put(now - 120, ledger.Row(60_000, collections.Counter({"flows": 5, "indexed": 5})).text())
    kept.save()
    assert run(state, "ledger") == 1
    assert "1 documents were made, and it is not known that they were stored" in capsys.readouterr().out
    assert run(state, "ledger", "--json", "--since", "3h", "--until", "90m") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["counts"], told["ms"], told["differences"]) == ({"flows": 5, "indexed": 5}, 60_000, [])
    kept.close()


def test_a_ledger_that_can_not_be_read_is_named(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(state, "ledger") == 1
    assert f"{state}/state.sqlite can't be read" in capsys.readouterr().err


def test_good_settings_pass_without_a_word(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(state, "check") == 0
    assert run(state, "check", str(state / "settings.json")) == 0
    assert capsys.readouterr() == ("", "")


def test_each_fault_of_the_settings_is_a_line(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = json.loads((state / "settings.json").read_text()) | {"flow_timeout": 0, "left_out": ["laptop"]}
    (state / "bad.json").write_text(json.dumps(chosen))
    assert run(state, "check", str(state / "bad.json")) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split(" is ")[0] for line in said.err.splitlines()] == [
        f"wrtflow: {state}/bad.json: {name}" for name in ("left_out[0]", "flow_timeout")
    ]


def test_unreadable_settings_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "health") == 1
    assert "settings.json" in capsys.readouterr().err
