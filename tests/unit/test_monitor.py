"""wrtflow.ledger: health documents are those of files/health-document.yml, none is lost, and they hold up nothing."""

import json
from pathlib import Path

import pytest
import yaml
from fakes import SECOND, line, told
from house import settings as house
from wrtflow import health, ledger, store

FIELDS = yaml.safe_load((Path(__file__).parents[2] / "files/health-document.yml").read_text())[
    "health_fields"
]
MINUTE = 60 * SECOND


def flat(document, prefix=""):
    for name, value in document.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


class Client:
    """Elasticsearch's _bulk: takes documents once, or does what the test says."""

    def __init__(self, chosen):
        self.chosen, self.taken, self.answers, self.requests = chosen, {}, None, 0

    def bulk(self, batch):
        self.requests += 1
        if isinstance(self.answers, Exception):
            raise self.answers
        if self.answers:
            return [self.answers] * batch.size
        return [self._take(each) for each in batch.documents]

    def _take(self, each):
        known = each.id in self.taken
        self.taken.setdefault(each.id, (each.target, json.loads(each.source)))
        return store.Answer(409 if known else 201)

    def close(self):
        pass


@pytest.fixture
def sent(chains, monkeypatch, tmp_path):
    """A collector whose health documents go to a Client."""
    monkeypatch.setattr(store, "Client", Client)
    monkeypatch.setattr(ledger.Monitor, "start", lambda self: None)
    monkeypatch.setattr(health, "_last", {})
    (tmp_path / "key").write_text("key")
    delivery = house(tmp_path).delivery.__class__(
        url="https://localhost:9200", health_key_file=str(tmp_path / "key")
    )
    return chains(delivery=delivery)


def minute(chain):
    """Let the minute end, and send. Returns the documents that are there, by kind."""
    chain.clock.passes(MINUTE)
    chain.keep()
    chain.collector._monitor.send()
    return found(chain)


def found(chain):
    documents = [dict(flat(document)) for _, document in chain.collector._monitor._client.taken.values()]
    kinds = "wrtflow.router", "wrtflow.collector"
    return [[each for each in documents if each["event.dataset"] == kind] for kind in kinds]


def test_documents_are_those_of_the_contract(sent):
    sent.send(told("counts 10 0"))
    sent.send(line("NEW"))
    sent.send(line("DESTROY"))
    sent.send(told("counts 11 0"))
    sent.collector.outbox.numbers.delay = 1234
    health._last["names"] = {"fault": "it is broken"}
    sent.collector._databases.report = lambda: {"City": 3.5}
    kinds = minute(sent)
    for kind, documents in zip(("router", "collector"), kinds, strict=True):
        (document,) = documents
        assert set(document) == {each["name"] for each in FIELDS if each["in"] in (kind, "both")}
    (router,), (collector,) = kinds
    assert (router["observer.hostname"], router["observer.ip"]) == ("OpenWrt", "192.168.1.1")
    assert (router["wrtflow.lines"], router["wrtflow.kernel.starts"], router["wrtflow.silence"]) == (4, 1, 60)
    assert (collector["wrtflow.delay"], collector["wrtflow.database_age"]) == (1234, 3.5)
    assert (collector["wrtflow.faults"], collector["error.message"]) == (1, ["names: it is broken"])
    assert collector["wrtflow.sites.none"] == 1
    assert collector["event.duration"] == 60 * 10**9
    # The end of the minute is the document's time, and says which month it belongs to.
    assert {index for index, _ in sent.collector._monitor._client.taken.values()} == {
        "wrtflow-health-2026.11"
    }
    assert router["@timestamp"] == "2026-11-24T03:14:00.000Z"


def test_every_document_has_what_it_always_has(sent):
    sent.send(told("hello", "sshd"))
    for kind, documents in zip(("router", "collector"), minute(sent), strict=True):
        always = {each["name"] for each in FIELDS if each["in"] in (kind, "both") and each.get("always")}
        assert [set(document) for document in documents] == [always]


def test_a_minute_without_lines_has_its_documents_and_sums_are_counts(sent):
    sent.send(line("NEW"))
    minute(sent)
    minute(sent)
    sent.send(line("NEW", port=2))
    sent.send(line("NEW", port=3))
    routers, collectors = minute(sent)
    assert [each["wrtflow.starts"] for each in routers] == [1, 0, 2]
    assert [each["wrtflow.open"] for each in collectors] == [1, 1, 3]


def test_a_silent_router_is_watched_for_a_week(sent):
    sent.send(line("NEW"))
    minute(sent)
    sent.clock.passes(6 * 86_400 * SECOND)
    sent.keep()
    assert [each["wrtflow.silence"] // 86_400 for each in minute(sent)[0]] == [0, 6]
    sent.clock.passes(2 * 86_400 * SECOND)
    sent.keep()
    assert len(minute(sent)[0]) == 2


@pytest.mark.parametrize(
    "answers",
    [store.Unavailable("503", "It is away."), store.Answer(403, "security_exception"), store.Answer(400, "mapping"),
     store.Answer(429), store.Answer(503)],
)  # fmt: skip
def test_an_hour_without_elasticsearch_and_a_restart_lose_none(sent, answers):
    sent.collector._monitor._client.answers = answers
    for port in range(60):
        sent.send(line("NEW", port=port))
        with pytest.raises(store.Unavailable):
            minute(sent)
    sent.restart()
    routers, collectors = minute(sent)
    assert sum(each["wrtflow.starts"] for each in routers) == 60
    assert len(collectors) == 61
    assert sent.collector._monitor.report() == {"minutes_waiting": 0}


def test_what_was_sent_is_not_sent_again(sent):
    sent.send(line("NEW"))
    minute(sent)
    sent.restart()
    sent.collector._monitor.send()
    assert sent.collector._monitor._client.requests == 0


def test_what_is_sent_twice_is_stored_once(sent):
    sent.send(line("NEW"))
    minute(sent)
    kept = sent.collector._ledger
    kept._unsent |= {each for each in kept._rows if each and each != kept._minute}
    sent.collector._monitor.send()
    assert sent.collector._monitor._client.requests == 2
    assert [len(documents) for documents in found(sent)] == [1, 1]


def test_without_a_key_nothing_is_asked(sent, tmp_path):
    (tmp_path / "key").unlink()
    minute(sent)
    assert sent.collector._monitor._client.requests == 0


def test_the_key_is_another_one_than_the_flows(sent, tmp_path):
    assert sent.collector._monitor._client.chosen.api_key_file == str(tmp_path / "key")


def test_a_fault_is_told_once_and_its_end(sent, capfd):
    watching = sent.collector._monitor
    watching._client.answers = store.Unavailable("503", "It is away.")
    rounds = iter([None, None, watching.stop])

    def wait(_):
        if step := next(rounds):
            step()
        elif watching._client.requests == 2:
            watching._client.answers = None

    sent.send(line("NEW"))
    sent.clock.passes(MINUTE)
    sent.keep()
    capfd.readouterr()
    sent.collector._ledger.closed.wait = wait
    watching._run()
    assert [said.partition(" (")[0] for said in capfd.readouterr().err.splitlines()] == [
        "<3>wrtflow: Health documents wait: It is away.",
        "<5>wrtflow: Health documents are sent again",
    ]
    assert watching._client.requests == 3
