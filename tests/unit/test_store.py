"""wrtflow.store: whatever Elasticsearch answers, each document is in the end there once, or in the spool once.

Over real TLS against molecule/doubles/bulk. The tests do what syslog-ng does with a destination: it keeps what
flush() did not settle, asks open() every second, and then sends it again.
"""

import importlib.util
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from wrtflow import collector as collectors
from wrtflow import health, outbox, parsers, settings, state, store

specification = importlib.util.spec_from_file_location(
    "bulk", Path(__file__).parents[2] / "molecule" / "doubles" / "bulk" / "bulk.py"
)
assert specification is not None
assert specification.loader is not None
bulk = importlib.util.module_from_spec(specification)
sys.modules["bulk"] = bulk
specification.loader.exec_module(bulk)

KEY = "aWQ6c2VjcmV0"


def certificate(directory: Path, name: str) -> Path:
    """A certificate of its own authority for localhost, with its key in the same file."""
    path = directory / f"{name}.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name}"
        f" -addext subjectAltName=DNS:localhost -keyout {path}.key -out {path}".split(),
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + Path(f"{path}.key").read_bytes())
    return path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("certificates")
    return certificate(directory, "ours"), certificate(directory, "other")


@pytest.fixture
def double(certificates: tuple[Path, Path]) -> Iterator[typing.Any]:
    server = bulk.Bulk(("localhost", 0), str(certificates[0]), KEY)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def put(storing: store.Store, items: Sequence[store.Document]) -> None:
    """Add documents as they come out of the disk buffer: several in a message."""
    for begin in range(0, len(items), 4):
        storing.add("".join(item.lines() for item in items[begin : begin + 4])[:-1].encode())


class Collector:
    """A store in its directory, and syslog-ng's part: the queue of what isn't settled."""

    def __init__(self, directory: Path, chosen: settings.Delivery, size: int = 1 << 20) -> None:
        self.settings = chosen
        self.now = 0.0
        self.spool = state.Spool(directory / "refused.sqlite", size)
        self.store = store.Store(chosen, self.spool)
        self.queue: list[store.Document] = []

    def give(self, *documents: store.Document) -> bool:
        self.queue += documents
        put(self.store, self.queue)
        settled = self.store.flush()
        if settled:
            self.queue = []
        return settled

    def later(self, seconds: float = 60) -> bool:
        """What happens in the seconds to come; whether all is settled then."""
        self.now += seconds
        self.store._next_try -= seconds
        return self.store.due() and self.give()

    @property
    def numbers(self) -> dict[str, int]:
        return {
            name: number
            for name, number in self.store.numbers.under("").items()
            if number and not name.startswith("refusals.")
        }


@pytest.fixture
def collector(tmp_path: Path, double: typing.Any, certificates: tuple[Path, Path]) -> Iterator[Collector]:
    (tmp_path / "ca.crt").write_bytes(certificates[0].read_bytes())
    (tmp_path / "key").write_text(f"{KEY}\n")
    made = Collector(
        tmp_path,
        settings.Delivery(
            url=f"https://localhost:{double.server_port}",
            ca_file=str(tmp_path / "ca.crt"),
            api_key_file=str(tmp_path / "key"),
        ),
    )
    yield made
    made.store.close()


def document(number: int, source: str | None = None, index: str = "network-2026.11") -> store.Document:
    text = json.dumps({"number": number}) if source is None else source
    return store.Document(index, f"id{number}", text)


def documents(number: int) -> list[store.Document]:
    return [document(i) for i in range(number)]


def taken(double: typing.Any) -> list[str]:
    return sorted(id_ for index in double.documents.values() for id_ in index)


def ids(number: int) -> list[str]:
    return sorted(f"id{i}" for i in range(number))


# --- What is delivered


def test_documents_arrive_as_they_are_in_their_index(collector: Collector, double: typing.Any) -> None:
    assert collector.give(document(1, '{"city":"Malm\u00f6"}'), document(2, "{}", "network-2026.12"))
    assert double.documents == {
        "network-2026.11": {"id1": '{"city":"Malm\u00f6"}'},
        "network-2026.12": {"id2": "{}"},
    }
    assert collector.numbers == {"indexed": 2}


def test_what_is_there_already_is_delivered(collector: Collector, double: typing.Any) -> None:
    assert collector.give(document(1))
    assert collector.give(document(1), document(2))
    assert collector.numbers == {"indexed": 2, "duplicates": 1}


def test_the_connection_is_kept(collector: Collector, double: typing.Any) -> None:
    assert all(collector.give(document(i)) for i in range(5))
    assert double.connections == 1


def test_an_address_with_a_path_is_a_proxys(collector: Collector, double: typing.Any, tmp_path: Path) -> None:
    paths = []
    double.RequestHandlerClass = type(
        "Seen",
        (bulk.Request,),
        {"do_POST": lambda self: (paths.append(self.path), bulk.Request.do_POST(self))},
    )
    changed = {**vars(collector.settings), "url": f"{collector.settings.url}/elastic/"}
    assert Collector(tmp_path, settings.Delivery(**changed)).give(document(1))
    assert paths[0].startswith("/elastic/_bulk?")


# --- What makes all documents wait

WHOLE = [
    {"status": 401, "type": "security_exception"},
    {"status": 403, "type": "security_exception"},
    {"status": 429, "type": "es_rejected_execution_exception"},
    {"status": 500, "type": "exception"},
    {"status": 503, "type": "cluster_block_exception"},
    {"status": 502, "body": "<html>bad gateway</html>"},
    {"status": 404, "body": "not here"},
    {"status": 302, "body": ""},
    {"status": 400, "body": "<html>The plain HTTP request was sent to HTTPS port</html>"},
    {"status": 200, "body": "<html>please log in</html>"},
    {"status": 200, "body": '{"items":[]}'},
    {"status": 200, "body": "[]"},
]


@pytest.mark.parametrize("behaviour", WHOLE, ids=lambda behaviour: json.dumps(behaviour))
def test_a_refused_request_waits_and_is_sent_again(
    collector: Collector,
    double: typing.Any,
    capfd: pytest.CaptureFixture[str],
    behaviour: dict[str, object],
) -> None:
    double.behaviour = [behaviour]
    assert not collector.give(*documents(3))
    assert not collector.later()
    assert not collector.later()
    assert (taken(double), collector.spool.size()) == ([], (0, 0))
    assert collector.store.report()["state"] == "waiting"
    (sentence,) = capfd.readouterr().err.splitlines()
    assert sentence.startswith("<3>wrtflow: ")
    assert sentence.endswith(" 3 documents wait.")
    assert str(behaviour["status"]) in sentence or behaviour["status"] == 200

    double.behaviour = [{}]
    assert collector.later()
    assert taken(double) == ids(3)
    assert collector.numbers == {"indexed": 3, "failed_requests": 3}
    assert "takes documents again" in capfd.readouterr().err
    assert collector.store.report()["state"] == "delivering"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, "cluster_block_exception"),
        (503, "unavailable_shards_exception"),
        (500, "exception"),
        (403, "security_exception"),
        (404, "index_not_found_exception"),
        (400, "validation_exception"),
    ],
)
def test_only_those_documents_wait_that_are_not_delivered(
    collector: Collector, double: typing.Any, status: int, kind: str
) -> None:
    double.behaviour = [{"item": status, "type": kind, "match": "[02468]"}]
    assert not collector.give(*documents(10))
    assert taken(double) == ["id1", "id3", "id5", "id7", "id9"]
    assert not collector.later()
    double.behaviour = [{}]
    assert collector.later()
    assert taken(double) == ids(10)
    # Nothing was sent twice, and nothing was spooled.
    assert collector.numbers == {"indexed": 10, "failed_requests": 2}


def test_the_sentence_about_a_wrong_key_says_what_to_do(
    collector: Collector, double: typing.Any, capfd: pytest.CaptureFixture[str]
) -> None:
    double.api_key = "another"
    assert not collector.give(*documents(2))
    said = capfd.readouterr().err
    assert "refuses the API key" in said
    assert "401 security_exception: unable to authenticate" in said
    assert "run the playbook" in said
    report = collector.store.report()
    assert "401" in str(report["reason"])


def test_a_new_key_is_used_without_a_restart(
    collector: Collector, double: typing.Any, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("wrong")
    assert not collector.give(*documents(2))
    assert not collector.later(0.5)
    assert double.requests == 1
    (tmp_path / "key").write_text(KEY)
    assert collector.later(1)
    assert taken(double) == ids(2)


def test_a_key_that_was_revoked_while_the_connection_was_kept(
    collector: Collector, double: typing.Any, tmp_path: Path
) -> None:
    assert collector.give(document(0))
    double.api_key = "rotated"
    (tmp_path / "key").write_text("rotated")
    assert not collector.give(document(1))
    assert collector.later(1)
    assert collector.numbers == {"indexed": 2, "failed_requests": 1}


def test_another_authority_is_refused_and_the_right_one_is_taken(
    collector: Collector,
    double: typing.Any,
    tmp_path: Path,
    certificates: tuple[Path, Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "ca.crt").write_bytes(certificates[1].read_bytes())
    assert not collector.give(document(0))
    assert "is not trusted" in capfd.readouterr().err
    assert (double.requests, taken(double)) == (0, [])
    (tmp_path / "ca.crt").write_bytes(certificates[0].read_bytes())
    assert collector.later(1)
    assert taken(double) == ["id0"]


def test_a_certificate_for_another_name_is_refused(
    collector: Collector, double: typing.Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changed = {**vars(collector.settings), "url": f"https://127.0.0.1:{double.server_port}"}
    assert not Collector(tmp_path, settings.Delivery(**changed)).give(document(0))
    assert "is not trusted (IP address mismatch" in capfd.readouterr().err
    assert double.requests == 0


@pytest.mark.parametrize("missing", ["key", "ca.crt"])
def test_a_missing_file_makes_wait(
    collector: Collector, tmp_path: Path, missing: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content = (tmp_path / missing).read_bytes()
    (tmp_path / missing).unlink()
    assert not collector.give(document(0))
    assert "can't be used" in capfd.readouterr().err
    (tmp_path / missing).write_bytes(content)
    assert collector.later(1)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://nobody.invalid:9200", "has no address"),
        ("https://localhost:1", "is not reached"),
    ],
)
def test_an_address_that_does_not_work_makes_wait(
    collector: Collector, tmp_path: Path, url: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    changed = {**vars(collector.settings), "url": url}
    assert not Collector(tmp_path, settings.Delivery(**changed)).give(document(0))
    assert said in capfd.readouterr().err


def test_the_next_address_is_asked_while_one_is_away(
    collector: Collector, double: typing.Any, tmp_path: Path
) -> None:
    right = collector.settings.url
    changed = {**vars(collector.settings), "url": "https://localhost:1", "more_urls": (right,)}
    other = Collector(tmp_path, settings.Delivery(**changed))
    assert not other.give(document(0))
    assert other.later(1)
    # It stays there, and goes on from there.
    assert other.give(document(1))
    double.behaviour = [{"status": 503}, {}]
    assert not other.give(document(2))
    assert not other.later(1), "the first address was left out"
    assert other.later(2)
    assert taken(double) == ids(3)
    other.store.close()


def test_a_server_that_speaks_no_tls_makes_wait(
    collector: Collector, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def answer(server: socket.socket) -> None:
        with server.accept()[0] as connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("localhost", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        changed = {**vars(collector.settings), "url": f"https://localhost:{server.getsockname()[1]}"}
        assert not Collector(tmp_path, settings.Delivery(**changed)).give(document(0))
        thread.join()
    assert "is not reached" in capfd.readouterr().err


def test_a_server_that_does_not_answer_makes_wait_and_doubles_nothing(
    collector: Collector,
    double: typing.Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(store, "LIMIT", 0.3)
    double.behaviour = [{"wait": 0.8}, {}]
    assert not collector.give(*documents(3))
    assert "does not answer within 0.3 s" in capfd.readouterr().err
    assert collector.later()
    assert taken(double) == ids(3)
    assert collector.numbers == {"duplicates": 3, "failed_requests": 1}


# --- Pauses


def test_the_pause_grows_to_its_limit_and_starts_anew(collector: Collector, double: typing.Any) -> None:
    double.behaviour = [{"status": 503}]
    assert not collector.give(document(0))
    pauses, before = [], 1
    for _ in range(150):
        assert not collector.later(1)
        if double.requests > before:
            pauses.append(collector.now)
            before = double.requests
    steps = [later - earlier for earlier, later in zip([0.0, *pauses], pauses, strict=False)]
    assert steps[:8] == [1, 2, 4, 8, 16, 30, 30, 30]
    double.behaviour = [{}]
    assert collector.later(30)
    double.behaviour = [{"status": 503}]
    assert not collector.give(document(1))
    double.behaviour = [{}]
    assert collector.later(1)


def test_after_a_pause_few_are_sent_first(collector: Collector, double: typing.Any) -> None:
    sizes = []
    create = double.create

    def counted(body: bytes, behaviour: dict[str, object]) -> object:
        sizes.append(body.count(b"\n") // 2)
        return create(body, behaviour)

    double.create = counted
    double.behaviour = [{"status": 429}, {}]
    assert not collector.give(*documents(100))
    assert collector.later()
    assert sizes == [1, 4, 16, 64, 15]
    assert taken(double) == ids(100)


# --- Connections that end


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_cut_connection_loses_and_doubles_nothing(
    collector: Collector, double: typing.Any, moment: str
) -> None:
    double.behaviour = [{"cut": moment}, {}]
    assert not collector.give(*documents(3))
    assert collector.later()
    assert taken(double) == ids(3)
    there = {"duplicates": 3} if moment == "after" else {"indexed": 3}
    assert collector.numbers == {**there, "failed_requests": 1}


@pytest.mark.parametrize("behaviour", [{"close": True}, {"cut": "before"}], ids=["idle", "in use"])
def test_a_kept_connection_may_end_at_any_time(
    collector: Collector, double: typing.Any, behaviour: dict[str, object]
) -> None:
    if "close" in behaviour:
        double.behaviour = [behaviour, {}]
        assert collector.give(document(0))
    else:
        assert collector.give(document(0))
        double.behaviour = [behaviour, {}]
    assert collector.give(document(1))
    assert collector.give(document(2))
    assert collector.numbers == {"indexed": 3}


# --- Requests that are refused for what is in them


def test_a_request_that_is_too_large_is_split(collector: Collector, double: typing.Any) -> None:
    double.behaviour = [{"limit": 1000}]
    assert collector.give(*documents(100))
    assert taken(double) == ids(100)
    assert collector.numbers == {"indexed": 100}


def test_a_document_that_is_too_large_goes_to_the_spool(collector: Collector, double: typing.Any) -> None:
    double.behaviour = [{"limit": 1000}]
    large = document(9, json.dumps({"text": "x" * 2000}))
    assert collector.give(*documents(5), large)
    assert taken(double) == ids(5)
    (kept,) = collector.spool.documents()
    assert (kept.id, kept.status, kept.document) == ("id9", 413, large.source)


def test_what_breaks_large_requests_without_a_word_does_not_block(
    collector: Collector, double: typing.Any
) -> None:
    double.behaviour = [{"limit": 1000, "cut": "before"}]
    assert not collector.give(*documents(100))
    # A try that gets some of them through is followed by the next at once.
    assert any(collector.later(1) for _ in range(30))
    assert taken(double) == ids(100)
    assert collector.numbers["indexed"] == 100


def test_one_document_that_spoils_a_request_is_found(collector: Collector, double: typing.Any) -> None:
    double.behaviour = [{"status": 400, "type": "illegal_argument_exception", "match": "37"}]
    assert collector.give(*documents(50))
    assert taken(double) == sorted(set(ids(50)) - {"id37"})
    (kept,) = collector.spool.documents()
    assert (kept.id, kept.status, kept.kind) == ("id37", 400, "illegal_argument_exception")


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"no document",
        document(7).lines().encode(),
        b"{}\n" + document(7).lines()[:-1].encode(),
        b"\n".join([b'{"create":{"_index":"network"}}', b"{}", b"x"]),
    ],
)
def test_what_would_break_a_request_is_never_sent(
    collector: Collector, double: typing.Any, odd: bytes
) -> None:
    collector.store.add(odd)
    assert collector.give(document(0), document(1))
    assert taken(double) == ["id0", "id1"]
    assert [kept.document.encode() for kept in collector.spool.documents()] == ([odd] if odd else [])


def test_a_document_without_a_name_is_found(collector: Collector, double: typing.Any) -> None:
    double.behaviour = [{"status": 400, "type": "x_content_parse_exception", "match": "odd"}]
    collector.store.add(b'{"create":{}}\n{"odd":1}')
    assert collector.give(document(0), document(1))
    assert taken(double) == ["id0", "id1"]
    assert [kept.document for kept in collector.spool.documents()] == ['{"odd":1}']


# --- Documents that are refused


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "document_parsing_exception"),
        (400, "strict_dynamic_mapping_exception"),
    ],
)
def test_a_refused_document_goes_to_the_spool_and_the_others_pass(
    collector: Collector,
    double: typing.Any,
    capfd: pytest.CaptureFixture[str],
    status: int,
    kind: str,
) -> None:
    double.behaviour = [{"item": status, "type": kind, "reason": "because", "match": "[13]"}]
    assert collector.give(*documents(5))
    assert taken(double) == ["id0", "id2", "id4"]
    kept = list(collector.spool.documents())
    assert [store.Document(each.index, each.id, each.document) for each in kept] == [document(1), document(3)]
    assert {(refused.status, refused.kind, refused.reason) for refused in kept} == {(status, kind, "because")}
    report = collector.store.report()
    assert report["refusals"] == {f"{status} {kind}": 2}
    assert report["state"] == "delivering"
    assert collector.numbers == {"indexed": 3, "refused": 2}
    # Each kind is said once, not each document.
    (sentence,) = capfd.readouterr().err.splitlines()
    assert f"({status} {kind}: because)" in sentence


def test_a_refused_document_is_spooled_once_although_others_wait(
    collector: Collector, double: typing.Any
) -> None:
    refused = {"item": 400, "type": "document_parsing_exception", "match": "1"}
    double.behaviour = [{**refused, "also": {"item": 429, "match": "2"}}]
    assert not collector.give(*documents(4))
    assert not collector.later()
    double.behaviour = [{}]
    assert collector.later()
    assert [kept.id for kept in collector.spool.documents()] == ["id1"]
    assert taken(double) == ["id0", "id2", "id3"]


# --- An index that is at fault


def month(number: int, name: str) -> store.Document:
    return document(number, index=f"network-2026.{name}")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("blocked", "take its block away (index.blocks.write)"),
        ("closed", "open it"),
        ("no pipeline", "make the pipeline, or take it out of the template"),
        ("no shard", "Elasticsearch has no room for the index network-2026.11"),
    ],
)
def test_documents_wait_for_an_index_that_is_at_fault(
    collector: Collector, double: typing.Any, capfd: pytest.CaptureFixture[str], fault: str, said: str
) -> None:
    # Also when it took some a moment ago.
    assert collector.give(document(100))
    double.behaviour = [{"item": fault, "index": "11"}]
    assert not collector.give(*documents(30))
    assert not collector.later()
    assert not collector.give(document(30)) or not collector.later()
    assert collector.spool.size() == (0, 0)
    (sentence,) = capfd.readouterr().err.splitlines()
    assert said in sentence
    assert "network-2026.11" in sentence
    double.behaviour = [{}]
    assert collector.later()
    assert taken(double) == sorted([*ids(31), "id100"])
    assert collector.spool.size() == (0, 0)


def test_the_first_of_a_month_waits_and_the_month_before_does_not(
    collector: Collector, double: typing.Any, capfd: pytest.CaptureFixture[str]
) -> None:
    double.behaviour = [{"item": "no shard", "index": "12"}]
    assert not collector.give(*(month(i, "11") for i in range(10)), month(10, "12"))
    assert taken(double) == ids(10)
    assert collector.spool.size() == (0, 0)
    said = capfd.readouterr().err
    assert "no room for the index network-2026.12" in said
    assert "free space on its disk, or delete an old month" in said


def test_the_timeout_of_bulk_is_shorter_than_ours() -> None:
    # Once for the index to be made, once for its shard.
    assert 2 * store._SHARD < store.LIMIT


def test_an_answer_of_503_as_a_whole_names_the_index(
    collector: Collector, double: typing.Any, capfd: pytest.CaptureFixture[str]
) -> None:
    double.behaviour = [{"status": 503, "type": "unavailable_shards_exception"}]
    assert not collector.give(document(0))
    assert "no room for the index network-2026.11" in capfd.readouterr().err


@pytest.mark.parametrize("fault", ["blocked", "closed", "no shard", 400])
def test_latecomers_of_an_old_month_hold_up_nobody(
    collector: Collector, double: typing.Any, fault: object
) -> None:
    double.behaviour = [{"item": fault, "index": "2026.09"}]
    # Alone it waits: whose fault it is shows what comes behind it.
    assert not collector.give(month(0, "09"))
    collector.queue += [month(1, "11"), month(2, "11")]
    assert collector.later()
    assert taken(double) == ["id1", "id2"]
    assert [kept.id for kept in collector.spool.documents()] == ["id0"]


def test_what_waited_for_last_month_is_not_taken_for_latecomers(
    collector: Collector, double: typing.Any
) -> None:
    double.behaviour = [{"item": "blocked", "index": "11"}]
    assert not collector.give(*(month(i, "11") for i in range(20)), *(month(i + 20, "12") for i in range(5)))
    assert taken(double) == [f"id{i}" for i in range(20, 25)]
    assert collector.spool.size() == (0, 0)


@pytest.mark.parametrize("kind", ["strict_dynamic_mapping_exception", "document_parsing_exception"])
def test_a_template_gone_wrong_does_not_fill_the_spool(
    collector: Collector, double: typing.Any, kind: str
) -> None:
    double.behaviour = [{"item": 400, "type": kind}]
    assert not collector.give(*documents(50))
    assert not collector.later()
    assert collector.spool.size() == (0, 0)
    double.behaviour = [{}]
    assert collector.later()
    assert taken(double) == ids(50)


def test_an_index_that_changes_its_mind_may_refuse_a_few(collector: Collector, double: typing.Any) -> None:
    assert collector.give(document(0))
    double.behaviour = [{"item": 400, "type": "strict_dynamic_mapping_exception"}]
    # In a quiet house each request has one document.
    assert all(collector.give(document(i)) for i in range(1, 21))
    assert not collector.give(document(21))
    assert not collector.give(document(22))
    assert collector.spool.size()[0] == 20
    double.behaviour = [{}]
    assert collector.later()
    assert taken(double) == ["id0", "id21", "id22"]


def test_one_bad_document_waits_no_longer_than_for_a_good_one(
    collector: Collector, double: typing.Any
) -> None:
    double.behaviour = [{"item": 400, "match": "13"}]
    assert not collector.give(document(13))
    assert not collector.later()
    collector.queue.append(document(14))
    assert collector.later()
    assert taken(double) == ["id14"]
    assert [kept.id for kept in collector.spool.documents()] == ["id13"]
    assert not collector.store._settled


def test_what_is_refused_again_is_kept_again(collector: Collector, double: typing.Any) -> None:
    assert collector.give(document(100))
    double.behaviour = [{"item": 400, "match": "[0-9]"}]
    assert collector.give(*documents(5))
    double.behaviour = [{"item": 400, "match": "[13]"}]
    sending = store.Store(collector.settings, collector.spool)
    sending.resend()
    assert sorted(kept.id for kept in collector.spool.documents()) == ["id1", "id3"]
    assert (sending.numbers["indexed"], sending.numbers["refused"]) == (3, 2)
    # All of them, and of an index that is at fault.
    double.behaviour = [{"item": "closed"}]
    sending.resend()
    assert len(list(collector.spool.documents())) == 2
    double.behaviour = [{"status": 503}]
    with pytest.raises(store.Unavailable):
        sending.resend()
    assert len(list(collector.spool.documents())) == 2
    double.behaviour = [{}]
    sending.resend()
    assert collector.spool.size() == (0, 0)
    assert taken(double) == sorted([*ids(5), "id100"])


@pytest.mark.parametrize(
    "odd",
    [
        document(7, '{"a":\n1}'),
        document(7, ""),
        store.Document("network", "", "{}"),
        store.Document("", "id7", "{}"),
        store.Document("network", 'id"7', "{}"),
        store.Document("network\n", "id7", "{}"),
    ],
)
def test_what_would_break_a_request_is_not_sent_again(
    collector: Collector, double: typing.Any, odd: store.Document
) -> None:
    collector.spool.add(
        state.Refused(1.0, *each[:2], 400, "", "", each.source) for each in (document(0), odd)
    )
    store.Store(collector.settings, collector.spool).resend()
    assert taken(double) == ["id0"]
    (kept,) = collector.spool.documents()
    assert (kept.index, kept.id, kept.document) == odd


# --- A limit on the whole answer


def test_an_answer_that_drips_makes_wait(
    collector: Collector,
    double: typing.Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(store, "LIMIT", 0.5)
    double.behaviour = [{"drip": 0.05, "bytes": 200}, {}]
    begun = time.monotonic()
    assert not collector.give(*documents(3))
    # 200 bytes take 10 s.
    assert time.monotonic() - begun < 3
    assert "does not answer within 0.5 s" in capfd.readouterr().err
    assert collector.later()
    assert collector.numbers == {"duplicates": 3, "failed_requests": 1}


def test_an_answer_without_end_makes_wait(
    collector: Collector,
    double: typing.Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(store, "ANSWER", 1000)
    double.behaviour = [{"status": 200, "body": " " * 5000}]
    assert not collector.give(document(0))
    assert "does not come to an end" in capfd.readouterr().err
    double.behaviour = [{}]
    assert collector.later()


def test_many_slow_answers_make_wait(
    collector: Collector, double: typing.Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk_, monotonic, passed = store.Client.bulk, time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + passed[0])

    def slow(client: store.Client, batch: store.Batch) -> list[store.Answer] | store.Answer:
        passed[0] += store.LIMIT * 0.6
        return bulk_(client, batch)

    monkeypatch.setattr(store.Client, "bulk", slow)
    double.behaviour = [{"limit": 300}]
    assert not collector.give(*documents(40))
    assert double.requests == 2
    # Each further try settles some.
    assert any(collector.later() for _ in range(20))
    assert taken(double) == ids(40)


def test_the_cause_is_part_of_the_reason() -> None:
    error = {
        "type": "t",
        "reason": "failed to parse",
        "caused_by": {"type": "n", "reason": 'For input string: "x"'},
    }
    assert store.Answer.of(400, error) == (400, "t", 'failed to parse: For input string: "x"')


def test_a_full_spool_drops_the_oldest_and_counts_them(
    collector: Collector, double: typing.Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = Collector(tmp_path, collector.settings, 20_000)
    assert small.give(document(50))
    double.behaviour = [{"item": 400, "match": "x"}]
    assert all(
        small.give(document(i + 100, "{}"), document(i, json.dumps({"text": "x" * 500}))) for i in range(50)
    )
    kept = [refused.id for refused in small.spool.documents()]
    assert small.numbers == {"indexed": 51, "refused": 50, "lost": 50 - len(kept)}
    assert kept == [f"id{i}" for i in range(50 - len(kept), 50)]
    assert capfd.readouterr().err.count("is full: the oldest are dropped") == 1


def test_a_spool_that_can_not_be_written_blocks_nothing(
    collector: Collector, double: typing.Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "refused.sqlite").mkdir()
    double.behaviour = [{"item": 400, "match": "1"}]
    assert collector.give(*documents(3))
    assert collector.numbers == {"indexed": 2, "refused": 1, "lost": 1}
    assert "can't be kept and are lost" in capfd.readouterr().err


def test_a_fault_of_our_own_makes_wait_and_is_said(
    collector: Collector,
    double: typing.Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(store.Answer, "of", lambda status, error: 1 // 0)
        double.behaviour = [{"item": 400}, {}]
        assert not collector.give(*documents(2))
        assert "ZeroDivisionError" in capfd.readouterr().err
    assert collector.later()
    assert taken(double) == ids(2)


# --- Any order of anything


class Scripted:
    """In the client's place: each request meets the next fate; documents() is what Elasticsearch would hold."""

    def __init__(self, fates: Sequence[typing.Any]) -> None:
        self.fates = list(fates)
        self.held: list[str] = []

    def close(self) -> None:
        pass

    def bulk(self, batch: store.Batch) -> list[store.Answer] | store.Answer:
        fate = self.fates.pop(0) if self.fates else 0
        if fate == "unavailable":
            raise store.Unavailable("503", "Away.")
        if fate == "unfit":
            return store.Answer(413)
        return [self._one(item, (fate + position) % 7) for position, item in enumerate(batch.documents)]

    def _one(self, item: store.Document, fate: int) -> store.Answer:
        if item.id in self.held:
            return store.Answer(409)
        if fate in {3, 5}:
            return store.Answer(429 if fate == 3 else 400, "some_exception")
        self.held.append(item.id)
        return store.Answer(201)


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    fates=st.lists(st.one_of(st.sampled_from(["unavailable", "unfit"]), st.integers(0, 6)), max_size=30),
    number=st.integers(1, 40),
    lines=st.integers(1, 15),
)
def test_nothing_is_lost_and_nothing_is_doubled_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, fates: list[typing.Any], number: int, lines: int
) -> None:
    kept = state.Spool(tmp_path_factory.mktemp("any") / "refused.sqlite", 1 << 20)
    server = Scripted(fates)
    sending = store.Store(settings.Delivery(url=""), kept)
    sending._client = typing.cast("store.Client", server)
    queue = documents(number)
    connected = True
    for _ in range(1000):
        sending._next_try = 0
        connected = connected or sending.due()
        if not connected:
            continue
        batch = queue[:lines]
        put(sending, batch)
        connected = sending.flush()
        if connected:
            queue = queue[lines:]
        if not queue:
            break
    assert queue == []
    spooled = [refused.id for refused in kept.documents()]
    assert sorted(server.held + spooled) == sorted(item.id for item in documents(number))
    assert sending.numbers["duplicates"] == 0
    assert not sending._settled


# --- syslog-ng's side


@pytest.fixture
def destination(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], parsers.Elasticsearch]]:
    """Start the destination, as after a restart of the process."""
    monkeypatch.setattr(health, "_reports", {})
    # The record is written by the test, not in the background.
    monkeypatch.setattr(health, "start", lambda _path: None)
    monkeypatch.setattr(collectors, "stop", lambda: None)
    states: list[state.State] = []

    def start() -> parsers.Elasticsearch:
        for before in states:
            before.save()
            before.close()
        kept = state.State(tmp_path / "state.sqlite")
        states[:] = [kept]
        box = outbox.Outbox(kept)
        kept.open()
        box.load()
        chosen = types.SimpleNamespace(delivery=collector.settings, state_file=lambda name: tmp_path / name)
        started = types.SimpleNamespace(settings=chosen, outbox=box)
        monkeypatch.setattr(collectors, "start", lambda: started)
        made = parsers.Elasticsearch()
        assert made.init({})
        return made

    yield start
    for kept in states:
        kept.close()


def message(*numbers: int) -> dict[str, bytes]:
    return {"wrtflow.documents": "".join(document(number).lines() for number in numbers)[:-1].encode()}


def test_a_message_of_syslog_ng_is_delivered(
    destination: Callable[[], parsers.Elasticsearch], double: typing.Any
) -> None:
    started = destination()
    assert started.flush() == started.SUCCESS
    assert started.open()
    assert [started.send(message(i)) for i in range(3)] == [started.QUEUED] * 3
    assert started.flush() == started.SUCCESS
    started.close()
    assert taken(double) == ids(3)


def test_documents_are_sent_as_soon_as_they_fill_a_request(
    destination: Callable[[], parsers.Elasticsearch], double: typing.Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LINES", outbox.TOGETHER + 5)
    started = destination()
    assert started.send(message(0, 1, 2)) == started.QUEUED
    assert started.send(message(3, 4, 5)) == started.SUCCESS
    assert taken(double) == ids(6)
    assert double.requests == 1
    # No request is longer than it may be, whatever the buffer was written with.
    assert started.send(message(*range(6, 120))) == started.SUCCESS
    assert taken(double) == ids(120)
    assert double.requests == 3
    double.behaviour = [{"status": 503}]
    assert started.send(message(*range(120, 126))) == started.NOT_CONNECTED
    started.close()


def test_what_waits_is_counted_in_documents(
    destination: Callable[[], parsers.Elasticsearch],
    double: typing.Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(health, "queue", lambda: {"waiting": len(messages)})

    def waiting() -> object:
        return health.collect()["queue"]["waiting"]  # type: ignore[index]

    started = destination()
    for count in (3, 2):
        for _ in range(count):
            started.collector.outbox.put('{"create":{"_index":"network-2026.11","_id":"id"}}\n{}')
        started.collector.outbox.stop()
        started.collector.outbox.run(messages.append)
    assert waiting() == 5
    double.behaviour = [{"status": 503}]
    started.send(message(0, 1, 2))
    assert waiting() == 5
    assert started.flush() == started.NOT_CONNECTED
    assert " 5 documents wait." in capfd.readouterr().err
    started.close()
    assert waiting() == 5
    # A restart knows it, too.
    started = destination()
    assert waiting() == 5
    started.send(message(0, 1, 2))
    assert started.flush() == started.NOT_CONNECTED
    started.close()
    double.behaviour = [{}]
    started.store._next_try = 0
    assert started.open()
    started.send(message(0, 1, 2))
    assert started.flush() == started.SUCCESS
    messages.pop()
    assert waiting() == 2
    # After a kill -9 they may have gone without being counted; an empty buffer sets that right.
    messages.pop()
    assert waiting() == 0
    # Each message has a document, whatever was counted.
    messages += ["c", "d"]
    assert waiting() == 2
    started.close()


def test_syslog_ng_keeps_what_waits(
    destination: Callable[[], parsers.Elasticsearch], double: typing.Any
) -> None:
    double.behaviour = [{"status": 503}]
    started = destination()
    assert started.open()
    started.send(message(0))
    assert started.flush() == started.NOT_CONNECTED
    started.close()
    assert not started.open()
    double.behaviour = [{}]
    started.store._next_try = 0
    assert started.open()
    # syslog-ng sends it again.
    started.send(message(0))
    assert started.flush() == started.SUCCESS
    started.close()
    assert taken(double) == ["id0"]
    assert double.requests == 2


def test_the_numbers_go_on_after_a_restart(
    destination: Callable[[], parsers.Elasticsearch], double: typing.Any
) -> None:
    double.behaviour = [{"item": 400, "type": "t", "match": "1[012]|31"}]
    for number in range(3):
        started = destination()
        started.send(message(number, number + 10, number + 30))
        started.flush()
        started.close()
        started.deinit()
    destination()
    record = health.collect()["delivery"]
    assert isinstance(record, dict)
    assert {name: record[name] for name in ("indexed", "refused", "refusals")} == {
        "indexed": 5,
        "refused": 4,
        "refusals": {"400 t": 4},
    }
    assert record["spool"]["documents"] == 4


def test_unusable_settings_keep_syslog_ng_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings, "FILE", str(tmp_path / "nowhere"))
    assert not parsers.Elasticsearch().init({})
    assert "the settings can't be used" in capfd.readouterr().err


def test_an_authority_without_key_usage_is_trusted(collector: Collector, double: typing.Any) -> None:
    # openssl's self-signed certificates have none, and Elastic's tool makes none; Python 3.13 refuses them by default.
    assert collector.give(document(0))
    context = collector.store._client._connection._context  # type: ignore[union-attr,attr-defined]
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
