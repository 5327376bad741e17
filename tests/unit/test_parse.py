"""wrtflow.parse: a line is read as the flow it is, as an ordinary line, or refused; nothing in between."""

import contextlib
import json
import string
from pathlib import Path

import pytest
from fakes import LAPTOP, OBJECT, OUTER, SITE, json_line, line, told
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from wrtflow import parse
from wrtflow.parse import Flow, Line, Reader, Refused, Unparsed, read_json, whole

READER = Reader()
DESTROY = whole(line("DESTROY"))


def read(text: str, reader: Reader = READER) -> Flow:
    found = reader.read(whole(text))
    assert isinstance(found, Flow)
    return found


def other(text: str, reader: Reader = READER) -> Line:
    found = reader.read(whole(text))
    assert isinstance(found, Line)
    return found


def test_every_part_is_read():
    assert read(DESTROY) == Flow(
        stamp="Nov 24 03:13:47",
        host="OpenWrt",
        event="DESTROY",
        tuple="SRC=10.77.0.20 DST=198.18.1.80 PROTO=TCP SPT=57534 DPT=443",
        source="10.77.0.20",
        destination="198.18.1.80",
        protocol="TCP",
        source_port="57534",
        destination_port="443",
        packets="9",
        bytes="3371",
        reply_source="198.18.1.80",
        reply_destination="198.18.0.1",
        reply_source_port="443",
        reply_destination_port="57534",
        reply_packets="8",
        reply_bytes="1301",
    )


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("<150>Nov 24 03:13:47 OpenWrt ", "OpenWrt"),
        ("Nov  4 03:13:47 OpenWrt ", "OpenWrt"),
        ("<150>Nov 24 03:13:47 ", None),
        ("<150>Nov 24 03:13:47 [1795490027.123] OpenWrt ", "OpenWrt"),
        ("<150>2026-11-24T03:13:47.123+01:00 OpenWrt ", "OpenWrt"),
    ],
)
def test_headers_as_they_are_written(header, host):
    body = DESTROY.partition("OpenWrt ")[2]
    assert read(header + body).host == host
    assert other(f"{header}procd: - init -") == Line(read(header + body).stamp, host, "procd", "- init -")


@pytest.mark.parametrize(
    ("written", "number", "name"),
    [
        ("TCP", "6", "tcp"),
        ("ICMP", "1", "icmp"),
        ("58", "58", "ipv6-icmp"),
        ("ICMPv6", "58", "ipv6-icmp"),
        ("253", "253", "253"),
    ],
)
def test_protocols_have_their_names(written, number, name):
    assert parse.protocol(written) == (number, name)


@pytest.mark.parametrize("written", ["256", "00", "tcpx", ""])
def test_unknown_protocols_are_refused(written):
    with pytest.raises(Refused):
        parse.protocol(written)
    with pytest.raises(Refused):
        READER.read(DESTROY.replace("TCP", written))


def test_no_beginning_of_a_line_is_a_flow():
    for end in range(len(DESTROY)):
        with contextlib.suppress(Refused):
            # A shorter counter can't be told from a whole one; everything before the last number can.
            assert isinstance(READER.read(DESTROY[:end]), Line) or end > DESTROY.rindex("BYTES=") + 6


def test_a_logd_strips_the_blank_that_ulogd_writes():
    assert read(line("DESTROY")) == read(DESTROY) == read(f"{DESTROY}\r\n\0")


@pytest.mark.parametrize("character", [*"\0\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"])
def test_what_is_not_one_line_is_none(character):
    for position in range(len(DESTROY)):
        with pytest.raises(Refused):
            READER.read(DESTROY[:position] + character + DESTROY[position:])
    for text in (f"a{character}b: x", f"tag: x{character}{DESTROY}", f"a{character}{DESTROY[33:]}"):
        with pytest.raises(Refused):
            READER.read(f"<30>Nov 24 03:13:40 OpenWrt {text}")


TAIL = DESTROY.partition("ulogd[1868]: ")[2]


@pytest.mark.parametrize(
    "tag",
    [
        "notulogd[1]: ",
        "luci: ",
        "ulogd2: ",
        "Ulogd: ",
        "kernel: ",
        ": ",
        "",
        "edge: ulogd[1]: ",
        "edge ulogd[1]: ",
    ],
)
def test_only_ulogd_tells_flows(tag):
    with pytest.raises(Refused):
        READER.read(f"<30>Nov 24 03:13:40 OpenWrt {tag}{TAIL}")


@pytest.mark.parametrize("text", ["x {}", "{} x", 'request "{}"', "x ulogd[1868]: {}"])
@pytest.mark.parametrize("tag", ["luci: ", "dnsmasq-dhcp[1]: DHCPACK(br-lan) 10.77.0.20 02:00:00:00:00:20 "])
def test_what_others_say_of_a_flow_is_none(tag, text):
    with contextlib.suppress(Refused):
        other(f"<30>Nov 24 03:13:40 OpenWrt {tag}{text.format(TAIL)}")


def test_ulogd_may_have_no_number():
    assert read(DESTROY.replace("[1868]", "")) == read(DESTROY)


@pytest.mark.parametrize("prefix", ["edge", "my router:", "a.*b", "x["])
def test_a_log_prefix_is_read_where_it_is_configured_alone(prefix):
    written = DESTROY.replace("ulogd", f"{prefix.removesuffix(':')}: ulogd")
    assert read(written, Reader(prefix)) == read(DESTROY, Reader(prefix)) == read(DESTROY)
    named = f"<30>Nov 24 03:13:40 OpenWrt {prefix.removesuffix(':')}: dnsmasq[1]: query"
    assert other(named, Reader(prefix)).program == "dnsmasq"
    for reader in (READER, Reader("other")):
        with contextlib.suppress(Refused):
            other(written, reader)
            # It must not be taken for nothing either.
            assert prefix == "x["


@pytest.mark.parametrize(
    ("text", "program", "said"),
    [
        ("<13>Nov 24 22:02:11 OpenWrt : Added device handler type: bridge", "", "Added device handler type: bridge"),
        ("<13>Nov 24 22:02:11 OpenWrt my program[7]: x", "my program", "x"),
        ("<13>Nov 24 22:02:11 OpenWrt no tag at all", "", "no tag at all"),
        ("<30>Nov 24 22:02:11 OpenWrt ulogd[7908]: registering plugin `NFCT'", "ulogd", "registering plugin `NFCT'"),
        ("<30>Nov 24 22:02:11 OpenWrt ulogd[7908]: ", "ulogd", ""),
        ("<30>Nov 24 22:02:11 OpenWrt wrtflow-net: ", "wrtflow-net", ""),
        ("<6>Nov 24 22:02:11 OpenWrt kernel: [    0.000000] Linux", "kernel", "[    0.000000] Linux"),
        ("<6>Nov 24 22:02:11 OpenWrt hostapd: caf\u00e9 \x1b[31m", "hostapd", "caf\u00e9 \x1b[31m"),
    ],
)  # fmt: skip
def test_ordinary_lines_are_no_fault(text, program, said):
    found = other(text)
    assert (found.host, found.program, found.text) == ("OpenWrt", program, said)


@pytest.mark.parametrize("text", ["", "hello", "<30>", "<30>Nov 24", "<9999>Nov 24 03:13:47 a b: c"])
def test_what_no_syslog_wrote_is_refused(text):
    with pytest.raises(Refused, match="not a syslog line"):
        READER.read(text)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    for reader in (READER.read, read_json):
        with contextlib.suppress(Refused):
            reader(text)


@given(st.integers(0, len(DESTROY) - 1), st.characters())
@example(DESTROY.index("3371"), "\u0663")
def test_a_changed_character_gives_a_flow_of_valid_parts_or_none(position, character):
    try:
        found = READER.read(DESTROY[:position] + character + DESTROY[position + 1 :])
    except Refused:
        return
    if isinstance(found, Flow):
        for number in (found.packets, found.bytes, found.reply_packets, found.reply_bytes):
            assert number == str(int(number))
            assert set(number) <= set(string.digits)
        for port in (found.source_port, found.destination_port):
            assert port is None or 0 <= int(port) <= 65535


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
COUNTERS = st.integers(0, 10**18 - 1)
PORTS = st.integers(0, 65535)


@given(ADDRESSES, ADDRESSES, PORTS, PORTS, COUNTERS, COUNTERS, st.sampled_from(["NEW", "UPDATE", "DESTROY"]))
def test_what_ulogd_writes_is_read(source, destination, port, port_back, packets, octets, event):
    found = read(
        f"<150>Nov  4 03:13:49 my-router ulogd: [{event}]"
        f" ORIG: SRC={source} DST={destination} PROTO=UDP SPT={port} DPT={port_back} PKTS={packets}"
        f" BYTES={octets} , REPLY: SRC={destination} DST={source} PROTO=UDP"
        f" SPT={port_back} DPT={port} PKTS={octets} BYTES={packets} "
    )
    assert (found.event, found.source, found.destination) == (event, source, destination)
    assert (found.source_port, found.destination_port) == (str(port), str(port_back))
    assert (found.packets, found.bytes, found.reply_packets, found.reply_bytes) == (
        str(packets), str(octets), str(octets), str(packets),
    )  # fmt: skip


def test_a_port_is_a_number_up_to_65535():
    for number in range(70_000):
        text = DESTROY.replace("SPT=57534", f"SPT={number}")
        if number <= 65535:
            assert read(text).source_port == str(number)
        else:
            with pytest.raises(Refused):
                READER.read(text)
    for written in ("", "00", "080", "-1", "100000", "655350", "99999"):
        with pytest.raises(Refused):
            READER.read(DESTROY.replace("SPT=57534", f"SPT={written}"))


@pytest.mark.parametrize("written", ["", "00", "-1", "1.5", "1e3", "9" * 19, "\u0661"])
def test_a_counter_is_one_that_a_store_can_hold(written):
    assert read(DESTROY.replace("3371", "9" * 18)).bytes == "9" * 18
    with pytest.raises(Refused):
        READER.read(DESTROY.replace("3371", written))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("PROTO=TCP SPT=443 DPT=57534", "PROTO=TCP"),
        ("PROTO=TCP SPT=57534 DPT=443", "PROTO=TCP"),
        ("PROTO=TCP SPT=443", "PROTO=UDP SPT=443"),
        ("PROTO=TCP SPT=443 DPT=57534", "PROTO=TCP TYPE=0 CODE=8"),
    ],
)
def test_reply_has_the_protocol_of_orig_and_ports_where_that_has(old, new):
    with pytest.raises(Refused):
        READER.read(DESTROY.replace(old, new))


@given(st.text(alphabet=st.characters(exclude_characters="\0\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")))
def test_a_name_never_makes_a_flow(name):
    """Whatever a device calls itself, its lease is no flow."""
    other(told(f"DHCPACK(br-lan) 10.77.0.20 02:00:00:00:00:20 {name}{TAIL}", "dnsmasq-dhcp[1]"))


def test_an_object_is_read():
    """As ulogd 2.0.8 wrote it."""
    times = {"flow.start.sec": 1795522328, "flow.start.usec": 64170, "flow.end.sec": 1795522328}
    found = read_json(json.dumps(OBJECT | times | {"flow.end.usec": 164232}))
    assert (found.host, found.event, found.protocol) == ("OpenWrt", "DESTROY", "6")
    assert (found.source, found.source_port, found.destination, found.destination_port) == (
        LAPTOP, "57534", SITE, "443",
    )  # fmt: skip
    assert (found.reply_source, found.reply_destination) == (SITE, OUTER)
    assert (found.packets, found.bytes, found.reply_packets, found.reply_bytes) == ("9", "3371", "8", "1301")
    assert (found.start, found.end) == (1795522328064, 1795522328164)
    assert found.tuple.endswith("ID=145926108")
    assert found.distinct


def test_addresses_have_other_names_in_some_releases():
    ends = {"orig.ip.saddr.str": LAPTOP, "orig.ip.daddr.str": SITE}
    without = {name: value for name, value in OBJECT.items() if name not in ("src_ip", "dest_ip")}
    assert read_json(json.dumps(without | ends)) == read_json(json.dumps(OBJECT))


def test_ulogd_s_default_device_is_no_name():
    assert read_json(json_line(dvc="Netfilter")).host == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ct.event", 3), ("ct.event", "4"), ("ct.event", True), ("ct.id", -1), ("ct.id", 2**32),
        ("orig.l4.sport", 65536),
        ("orig.raw.pktlen", 10**18), ("orig.raw.pktlen", 1.5), ("orig.raw.pktlen", None), ("src_ip", 5),
        ("dvc", 'a"b'), ("dvc", "a b"), ("dvc", 7), ("dvc", "x" * 256), ("reply.ip.saddr.str", None),
        ("orig.ip.protocol", 256), ("orig.raw.pktlen", float("nan")), ("orig.raw.pktlen", 10**400),
    ],
)  # fmt: skip
def test_what_can_t_be_in_an_object_is_refused(name, value):
    with pytest.raises(Refused):
        read_json(json.dumps(OBJECT | {name: value}))


@pytest.mark.parametrize(
    "changes",
    [
        {"reply.ip.protocol": 17},
        {"orig.l4.sport": None, "orig.l4.dport": None},
        {"reply.l4.sport": None, "reply.l4.dport": None},
    ],
)
def test_both_sides_of_an_object_are_one_protocol_s(changes):
    fields = {name: value for name, value in (OBJECT | changes).items() if value is not None}
    with pytest.raises(Refused):
        read_json(json.dumps(fields))


@pytest.mark.parametrize(
    "name", sorted(set(OBJECT) - {"timestamp", "dvc", "ct.mark", "oob.family", "oob.protocol"})
)
def test_nothing_of_an_object_may_be_missing(name):
    without = {other: value for other, value in OBJECT.items() if other != name}
    if name != "reply.ip.protocol":
        with pytest.raises(Refused):
            read_json(json.dumps(without))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "1",
        "null",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a":1}{"b":2}',
        f" {json_line()}",
        f"\t{json_line()}",
    ],
)
def test_what_is_no_object_is_refused(text):
    with pytest.raises(Refused):
        read_json(text)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)


@given(st.sampled_from(sorted([*OBJECT, "flow.end.sec", "flow.start.usec"])), JSON)
def test_a_changed_member_gives_a_flow_of_valid_parts_or_none(name, value):
    times = {"flow.start.sec": 5, "flow.start.usec": 5, "flow.end.sec": 5, "flow.end.usec": 5}
    try:
        found = read_json(json.dumps(OBJECT | times | {name: value}))
    except Refused:
        return
    assert 0 <= int(found.bytes) < 10**18
    assert found.source_port is None or 0 <= int(found.source_port) <= 65535
    assert found.end is None or 0 < found.end < 253402300800000


@pytest.mark.parametrize(
    ("seconds", "micro"),
    [(0, 0), (-1, 0), (253402300800, 0), (5, 10**6), (5, -1), ("5", 0), (5.0, 0), (True, 0)],
)
def test_a_time_that_can_t_be_is_none(seconds, micro):
    found = read_json(json_line(flow__end__sec=seconds, flow__end__usec=micro))
    assert found.end is None


# unparsed.log


def test_a_refused_line_is_kept_with_time_sender_and_reason(tmp_path: Path) -> None:
    log = Unparsed(tmp_path)
    log.write("192.168.1.1", "not a syslog line", "hello\x1b[31m\n\u2028")
    log.close()
    (kept,) = (tmp_path / "unparsed.log").read_text().splitlines()
    time, rest = kept.split(" ", 1)
    assert time.endswith("Z")
    assert rest == r"192.168.1.1 not a syslog line: hello\x1b[31m\n\u2028"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.text(), st.text())
@example("a tag \u00e9", "")
def test_any_line_is_one_line_of_ascii(tmp_path: Path, reason: str, text: str) -> None:
    log = Unparsed(tmp_path)
    log.write("a", reason, text)
    log.close()
    content = (tmp_path / "unparsed.log").read_bytes()
    (tmp_path / "unparsed.log").unlink()
    assert content.isascii()
    assert content.count(b"\n") == 1


def test_a_long_line_is_cut_and_its_length_told(tmp_path: Path) -> None:
    Unparsed(tmp_path).write("a", "b", "x" * 5000)
    content = (tmp_path / "unparsed.log").read_text()
    assert content.endswith(" ... 5000 characters\n")
    assert len(content) < 1200


def test_two_files_of_the_given_size_are_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "_UNPARSED", 2000)
    log = Unparsed(tmp_path)
    for number in range(200):
        log.write("a", "b", f"{number}" * 20)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"unparsed.log", "unparsed.log.1"}
    assert max(sizes.values()) <= 2000
    # The newest are there.
    assert "199" * 20 in (tmp_path / "unparsed.log").read_text()


def test_a_full_disk_or_no_folder_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "unparsed.log").symlink_to("/dev/full")
    for folder in (tmp_path, tmp_path / "nowhere"):
        log = Unparsed(folder)
        for _ in range(3):
            log.write("a", "b", "c")
        log.close()


def test_it_goes_on_when_the_disk_has_room_again(tmp_path: Path) -> None:
    file = tmp_path / "unparsed.log"
    file.symlink_to("/dev/full")
    log = Unparsed(tmp_path)
    log.write("a", "b", "lost")
    file.unlink()
    log.write("a", "b", "kept")
    assert file.read_text().endswith("a b: kept\n")
