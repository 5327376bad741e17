"""wrtflow.parsers: what the classes in syslog-ng's configuration put on a message, and what they let pass."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from wrtflow import core, parsers

SENDER = "192.168.1.1"
TUPLE = "SRC=10.77.0.20 DST=198.18.1.80 PROTO=TCP SPT=57534 DPT=443"
KEY = f"OpenWrt@{SENDER} {TUPLE}"


def line(event: str, counters: tuple[int, int, int, int] = (0, 0, 0, 0), tuple_: str = TUPLE) -> str:
    packets, octets, packets_back, octets_back = counters
    return (
        f"<150>Nov 24 03:13:47 OpenWrt ulogd[1868]: [{event}] ORIG: {tuple_} PKTS={packets} BYTES={octets}"
        f" , REPLY: SRC=198.18.1.80 DST=198.18.0.1 PROTO=TCP SPT=443 DPT=57534 PKTS={packets_back} BYTES={octets_back} "
    )


class Message(dict[str, bytes]):
    """As syslog-ng's: what is put as text comes back as bytes."""

    def __init__(self, text: str, **more: str) -> None:
        super().__init__()
        for name, value in {"MESSAGE": text, "SOURCEIP": SENDER, **more}.items():
            self[name] = value

    def __setitem__(self, name: str, value: str | bytes) -> None:
        super().__setitem__(name, value if isinstance(value, bytes) else value.encode())


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings."""
    path = tmp_path / "settings.json"
    write(path)
    monkeypatch.setenv("WRTFLOW_SETTINGS", str(path))
    monkeypatch.setattr(parsers, "_core", None)
    return path


def write(path: Path, **changes: object) -> None:
    content = {
        "state_directory": str(path.parent), "log_directory": str(path.parent), "home_networks": ["10.77.0.0/24"],
        "names": {"resolvers": ["127.0.0.1#1"]}, **changes,
    }  # fmt: skip
    path.write_text(json.dumps(content))


class Parsers:
    """The four of a configuration, started in a process of their own."""

    def __init__(self) -> None:
        parsers._core = None
        self.line, self.json = parsers.Line(), parsers.Json()
        self.document, self.placed = parsers.Document(), parsers.PlacedDocument()
        self._all = (self.line, self.json, self.document, self.placed)
        assert all(parser.init({}) for parser in self._all)

    def stop(self) -> None:
        for parser in self._all:
            parser.deinit()


@pytest.fixture
def chain(file: Path) -> Iterator[Parsers]:
    started = Parsers()
    yield started
    started.stop()


def test_a_new_is_cut_down_to_its_key(chain):
    message = Message(line("NEW"))
    assert chain.line.parse(message)
    assert set(message) == {"MESSAGE", "SOURCEIP", "flow.opened"}
    assert message["MESSAGE"].decode() == KEY
    start, _, stamp = message["flow.opened"].decode().partition(" ")
    assert abs(int(start) - core.now()) < 10_000
    assert stamp == "Nov 24 03:13:47"


def test_a_destroy_keeps_its_line(chain):
    text = line("DESTROY", (9, 3371, 8, 1301))
    message = Message(text)
    assert chain.line.parse(message)
    assert message == {"MESSAGE": KEY.encode(), "SOURCEIP": SENDER.encode(), "flow.closed": text.encode()}


@pytest.mark.parametrize(
    "text",
    [
        line("UPDATE"),
        "<30>Nov 24 03:13:40 OpenWrt procd: - init complete -",
        "<30>Nov 24 03:13:40 OpenWrt dnsmasq-dhcp[1]: DHCPACK(br-lan) 10.77.0.20 02:77:00:00:00:20 laptop",
        "<30>Nov 24 03:13:40 OpenWrt wrtflow-net: ",
    ],
)
def test_nothing_but_flows_passes(chain, file, text):
    message = Message(text)
    assert not chain.line.parse(message)
    assert message == Message(text)
    assert not (file.parent / "unparsed.log").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        line("NEW")[:90],
        line("NEW").replace("443", "65536"),
        "<30>Nov 24 03:13:40 O wrtflow-net: networks x",
    ],
)
def test_what_can_t_be_trusted_is_counted_and_kept(chain, file, text):
    assert not chain.line.parse(Message(text))
    assert chain.line.core.stats()["unparsed"] == 1
    (kept,) = (file.parent / "unparsed.log").read_text().splitlines()
    assert f" {SENDER} " in kept


def test_bytes_that_are_no_text_are_kept_too(chain, file):
    message = Message("")
    message["MESSAGE"] = b"\x00\xff\xfe"
    assert not chain.line.parse(message)
    assert "ufffd" in (file.parent / "unparsed.log").read_text()


def ended(chain: Parsers, opened: str = "") -> Message:
    """A flow as grouping-by() lets it go."""
    message = Message(line("DESTROY", (9, 3371, 8, 1301)))
    assert chain.line.parse(message)
    if opened:
        message["flow.opened"] = opened
    return message


def documents(chain: Parsers) -> list[tuple[str, str, dict]]:
    """What has come into the outbox: index, id and document of each."""
    posted: list[str] = []
    chain.line.core.outbox.stop()
    chain.line.core.outbox.run(posted.append)
    lines = [json.loads(line) for text in posted for line in text.split("\n")]
    return [
        (*action["create"].values(), document)
        for action, document in zip(lines[0::2], lines[1::2], strict=True)
    ]


def test_a_document_asks_for_places_once(chain):
    message = ended(chain, "1795522328064 Nov 24 03:13:40")
    assert chain.document.parse(message)
    assert (message["place.source"], message["place.destination"]) == (b"", b"198.18.1.80")
    assert documents(chain) == []
    message["place.destination.city.country.iso_code"] = "DE"
    assert not chain.placed.parse(message)
    ((index, identity, document),) = documents(chain)
    assert document["destination"]["geo"] == {"country_iso_code": "DE"}
    assert document["event"]["start"] == "2026-11-24T12:12:08.064Z"
    assert index == f"network-{document['event']['end'][:7].replace('-', '.')}"
    assert len(identity) == 12
    # The next flow to that address needs nobody.
    again = ended(chain)
    assert not chain.document.parse(again)
    ((_, _, document),) = documents(chain)
    assert document["destination"]["geo"] == {"country_iso_code": "DE"}


def test_a_reload_looks_places_up_anew(chain):
    message = ended(chain)
    assert chain.document.parse(message)
    assert not chain.placed.parse(message)
    again = parsers.Document()
    assert again.init({})
    asked = ended(chain)
    assert again.parse(asked)
    assert asked["place.destination"] == b"198.18.1.80"
    again.deinit()


def test_a_flow_that_is_lost_is_a_timeout(chain):
    opened = Message(line("NEW"))
    assert chain.line.parse(opened)
    start = opened["flow.opened"].decode().split()[0]
    lost = Message(
        KEY, **{"flow.opened": opened["flow.opened"].decode(), "flow.lost": f"{start} {line('NEW')}"}
    )
    assert not chain.placed.parse(lost)
    ((_, _, document),) = documents(chain)
    assert document["event"]["action"] == "flow-timeout"
    assert "bytes" not in document["network"]


def test_a_flow_that_is_lost_and_has_ended_is_nothing(chain):
    lost = Message(KEY, **{"flow.lost": f"5 {line('NEW')}"})
    assert not chain.placed.parse(lost)
    assert documents(chain) == []


def test_two_pings_of_the_same_moment_have_both_a_start(chain, monkeypatch):
    monkeypatch.setattr(core, "now", lambda: 1_795_522_328_064)
    ping = "SRC=10.77.0.20 DST=198.18.1.80 PROTO=ICMP TYPE=0 CODE=8"
    reply = "SRC=198.18.1.80 DST=198.18.0.1 PROTO=ICMP TYPE=0 CODE=0"

    def event(name: str, octets: int) -> str:
        counters = f"PKTS=1 BYTES={octets}"
        return f"<150>Nov 24 03:13:47 OpenWrt ulogd: [{name}] ORIG: {ping} {counters} , REPLY: {reply} {counters} "

    opened = []
    for _ in range(2):
        message = Message(event("NEW", 0))
        assert chain.line.parse(message)
        opened.append(message["flow.opened"].decode())
    # grouping-by() has both at the first DESTROY, and none at the second.
    for octets, openings in ((84, ",".join(opened)), (85, "")):
        message = Message(event("DESTROY", octets))
        assert chain.line.parse(message)
        message["flow.opened"] = openings
        assert not chain.placed.parse(message)
    assert ["start" in document["event"] for _, _, document in documents(chain)] == [True, True]


ATTIC = "10.77.0.2"
AT_THE_EDGE = TUPLE.replace("10.77.0.20", ATTIC)


def behind(chain: Parsers) -> None:
    """An access point tells of itself and of a flow of the device 192.168.8.20."""
    role = "<30>Nov 24 03:13:40 attic wrtflow-net: role ap"
    opened = line("NEW", tuple_=TUPLE.replace("10.77.0.20", "192.168.8.20"))
    for text in (role, opened.replace("OpenWrt", "attic").replace("198.18.0.1", ATTIC)):
        chain.line.parse(Message(text, SOURCEIP=ATTIC))


@pytest.mark.parametrize("first", [True, False], ids=["told before", "told after"])
def test_a_timeout_of_a_device_left_out_behind_an_access_point_is_nothing(file, first):
    write(file, left_out=["192.168.8.20"])
    chain = Parsers()
    if first:
        behind(chain)
    opened = Message(line("NEW", tuple_=AT_THE_EDGE))
    assert chain.line.parse(opened) is not first
    behind(chain)
    if not first:
        begun = opened["flow.opened"].decode()
        text = line("NEW", tuple_=AT_THE_EDGE)
        found = {"flow.opened": begun, "flow.lost": f"{begun.split()[0]} {text}"}
        lost = Message(opened["MESSAGE"].decode(), **found)
        assert not chain.placed.parse(lost)
    assert documents(chain) == []
    assert len(chain.line.core.open) == 0
    chain.stop()


def test_an_object_s_destroy_passes_alone(chain, file):
    found = {
        "dvc": "OpenWrt", "orig.ip.protocol": 6, "orig.l4.sport": 57534, "orig.l4.dport": 443, "orig.raw.pktlen": 60,
        "orig.raw.pktcount": 1, "reply.l4.sport": 443, "reply.l4.dport": 57534, "reply.raw.pktlen": 40,
        "reply.raw.pktcount": 1, "ct.id": 7, "ct.event": 4, "src_ip": "10.77.0.20", "dest_ip": "198.18.1.80",
        "reply.ip.saddr.str": "198.18.1.80", "reply.ip.daddr.str": "198.18.0.1",
    }  # fmt: skip
    message = Message(json.dumps(found))
    assert chain.json.parse(message)
    assert message["flow.closed"].decode() == json.dumps(found)
    assert not chain.json.parse(Message(json.dumps(found | {"ct.event": 1})))
    assert not (file.parent / "unparsed.log").exists()
    assert not chain.json.parse(Message("{"))
    assert "not JSON" in (file.parent / "unparsed.log").read_text()


def test_open_flows_outlive_a_stop(file):
    first = Parsers()
    first.line.parse(Message(line("NEW")))
    first.stop()
    second = Parsers()
    message = ended(second)
    assert not second.placed.parse(message)
    ((_, _, document),) = documents(second)
    assert "start" in document["event"]
    second.stop()


def test_a_cut_line_is_known_after_a_stop_too(file):
    """By the flows that are open since: the last number of this one has lost its end."""
    first = Parsers()
    first.line.parse(Message(line("NEW")))
    first.stop()
    second = Parsers()
    assert not second.line.parse(Message(line("DESTROY", (9, 3371, 8, 1301))[:-2]))
    assert "the end of the line is missing" in (file.parent / "unparsed.log").read_text()
    second.stop()


@pytest.mark.parametrize("changed", [False, True])
def test_a_reload_keeps_the_core_unless_settings_have_changed(chain, file, changed):
    before = chain.line.core
    chain.line.parse(Message(line("UPDATE")))
    chain.stop()
    write(file, **({"left_out": ["10.77.0.20"]} if changed else {}))
    for parser in (chain.line, chain.json, chain.document, chain.placed):
        assert parser.init({})
    assert (chain.line.core is not before) == changed
    assert chain.line.parse(Message(line("NEW"))) != changed
    # The counters go on, as syslog-ng's do.
    assert chain.line.core.stats()["lines"] == 2


def test_unusable_settings_stop_the_start(file, capfd):
    write(file, flow_timeuot=1)
    assert not parsers.Line().init({})
    assert "flow_timeuot" in capfd.readouterr().err


def test_both_transports_make_alike_documents(chain):
    """But for the precision of the times."""
    by_line = ended(chain, "1795522328064 Nov 24 03:13:40")
    by_object = Message(
        json.dumps(
            {
                "dvc": "OpenWrt", "orig.ip.protocol": 6, "orig.l4.sport": 57534, "orig.l4.dport": 443,
                "orig.raw.pktlen": 3371, "orig.raw.pktcount": 9, "reply.l4.sport": 443, "reply.l4.dport": 57534,
                "reply.raw.pktlen": 1301, "reply.raw.pktcount": 8, "ct.id": 7, "ct.event": 4, "src_ip": "10.77.0.20",
                "dest_ip": "198.18.1.80", "reply.ip.saddr.str": "198.18.1.80", "reply.ip.daddr.str": "198.18.0.1",
                "flow.start.sec": core.now() // 1000 - 9, "flow.start.usec": 0,
                "flow.end.sec": core.now() // 1000, "flow.end.usec": 0,
            }
        )
    )  # fmt: skip
    assert chain.json.parse(by_object)
    for message in (by_line, by_object):
        assert not chain.placed.parse(message)
    alike = [document for _, _, document in documents(chain)]
    for document in alike:
        del (
            document["@timestamp"],
            document["event"]["start"],
            document["event"]["end"],
            document["event"]["duration"],
        )
        document["wrtflow"].pop("first_seen", None)
    assert alike[0] == alike[1]


def test_strangers_are_what_syslog_ng_has_and_we_do_not(chain, monkeypatch):
    received = 3
    monkeypatch.setattr(core.health, "received", lambda: received)
    chain.line.parse(Message(line("NEW")))
    assert chain.line.core._senders() == {"strangers": 2}
    # A line that is being read is no stranger's.
    received = 0
    assert chain.line.core._senders() == {"strangers": 0}
    received = None
    assert chain.line.core._senders() == {}


def test_endings_are_posted_with_their_start(chain, monkeypatch):
    source = parsers.Endings()
    assert source.init({})
    posted: list[dict] = []
    monkeypatch.setattr(parsers, "LogMessage", lambda text: {"MESSAGE": text})
    source.post_message = posted.append
    source.core.endings.put(core.Open(KEY, 5, line("NEW")))
    source.request_exit()
    source.run()
    assert posted == [{"MESSAGE": KEY, "flow.lost": f"5 {line('NEW')}"}]
    source.deinit()


def test_documents_are_posted_to_the_last_that_an_ending_makes(chain, monkeypatch):
    """syslog-ng asks both sources to exit at once; what the endings make meanwhile comes through all the same."""
    endings, source = parsers.Endings(), parsers.Documents()
    posted: list[dict] = []
    monkeypatch.setattr(parsers, "LogMessage", lambda *text: {"MESSAGE": text})
    opened = Message(line("NEW"))
    assert chain.line.parse(opened)
    begun = opened["flow.opened"].decode()

    def correlated(message: dict) -> None:
        lost = Message(KEY, **{"flow.lost": message["flow.lost"], "flow.opened": begun})
        assert not chain.placed.parse(lost)

    endings.post_message, source.post_message = correlated, posted.append
    assert endings.init({})
    assert source.init({})
    running = threading.Thread(target=source.run)
    running.start()
    endings.core.endings.put(core.Open(KEY, int(begun.split()[0]), line("NEW")))
    source.request_exit()
    running.join(0.2)
    assert running.is_alive()
    endings.request_exit()
    endings.run()
    running.join(30)
    assert not running.is_alive()
    ((_, document),) = [message["wrtflow.documents"].split("\n") for message in posted]
    assert json.loads(document)["event"]["action"] == "flow-timeout"
    source.deinit()
    endings.deinit()
