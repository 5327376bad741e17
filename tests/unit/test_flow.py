"""wrtflow.flow: a line is read as the flow it is, or refused; nothing in between."""

import contextlib
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wrtflow import flow

LINE = (
    "<150>Nov 24 03:13:49 OpenWrt ulogd[1868]: [DESTROY]"
    " ORIG: SRC=10.77.0.20 DST=198.18.1.80 PROTO=TCP SPT=57534 DPT=443 PKTS=9 BYTES=3371"
    " , REPLY: SRC=198.18.1.80 DST=198.18.0.1 PROTO=TCP SPT=443 DPT=57534 PKTS=8 BYTES=1301 "
)


def read(line: str) -> flow.Flow:
    found = flow.read_line(line)
    assert isinstance(found, flow.Flow)
    return found


def test_every_part_is_read():
    assert read(LINE) == flow.Flow(
        stamp="Nov 24 03:13:49",
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
    assert flow.protocol(written) == (number, name)


@pytest.mark.parametrize("written", ["256", "00", "tcpx", ""])
def test_unknown_protocols_are_refused(written):
    with pytest.raises(flow.Refused):
        flow.protocol(written)


def test_no_beginning_of_a_line_is_a_flow():
    """But for the space at its end."""
    for end in range(len(LINE) - 1):
        try:
            found = flow.read_line(LINE[:end])
        except flow.Refused:
            continue
        # A shorter counter can't be told from a whole one; everything before the last number can.
        assert isinstance(found, flow.Line) or end > LINE.rindex("BYTES=") + len("BYTES=")


@given(st.text())
def test_any_text_is_read_or_refused(text):
    for reader in (flow.read_line, flow.read_json):
        with contextlib.suppress(flow.Refused):
            reader(text)


@given(st.integers(0, len(LINE) - 1), st.characters())
def test_a_changed_character_gives_a_flow_of_valid_parts_or_none(position, character):
    try:
        found = flow.read_line(LINE[:position] + character + LINE[position + 1 :])
    except flow.Refused:
        return
    if isinstance(found, flow.Flow):
        for number in (found.packets, found.bytes, found.reply_packets, found.reply_bytes):
            assert number == str(int(number))
            assert set(number) <= set(string.digits)
        for port in (found.source_port, found.destination_port):
            assert port is None or 0 <= int(port) <= 65535


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
COUNTERS = st.integers(0, 10**18 - 1)
PORTS = st.integers(0, 65535)


@given(ADDRESSES, ADDRESSES, PORTS, PORTS, COUNTERS, COUNTERS, st.sampled_from(["NEW", "UPDATE", "DESTROY"]))
def test_what_ulogd_writes_is_read(
    source, destination, source_port, destination_port, packets, octets, event
):
    found = read(
        f"<150>Nov  4 03:13:49 my-router ulogd: [{event}]"
        f" ORIG: SRC={source} DST={destination} PROTO=UDP SPT={source_port} DPT={destination_port} PKTS={packets}"
        f" BYTES={octets} , REPLY: SRC={destination} DST={source} PROTO=UDP"
        f" SPT={destination_port} DPT={source_port} PKTS={octets} BYTES={packets} "
    )
    assert (found.event, found.source, found.destination) == (event, source, destination)
    assert (found.source_port, found.destination_port) == (str(source_port), str(destination_port))
    assert (found.packets, found.bytes, found.reply_packets, found.reply_bytes) == (
        str(packets), str(octets), str(octets), str(packets),
    )  # fmt: skip


def test_a_port_is_a_number_up_to_65535():
    for number in range(70_000):
        line = LINE.replace("SPT=57534", f"SPT={number}")
        if number <= 65535:
            assert read(line).source_port == str(number)
        else:
            with pytest.raises(flow.Refused):
                flow.read_line(line)
    for text in ("", "00", "080", "-1", "100000", "655350", "99999"):
        with pytest.raises(flow.Refused):
            flow.read_line(LINE.replace("SPT=57534", f"SPT={text}"))


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
    with pytest.raises(flow.Refused):
        flow.read_line(LINE.replace(old, new))


@given(st.text(alphabet=st.characters(exclude_characters="\n")))
def test_a_name_never_makes_a_flow(name):
    """Whatever a device calls itself, its lease is no flow."""
    found = flow.read_line(
        f"<30>Nov 24 03:13:40 OpenWrt dnsmasq-dhcp[1]: DHCPACK(br-lan) 10.77.0.20 02:00:00:00:00:20 {name}{LINE[37:]}"
    )
    assert isinstance(found, flow.Line)


OBJECT = {
    "timestamp": "2026-11-24T12:12:08", "dvc": "OpenWrt",
    "orig.ip.protocol": 6, "orig.l4.sport": 60780, "orig.l4.dport": 1,
    "orig.raw.pktlen": 60, "orig.raw.pktcount": 1, "reply.ip.protocol": 6, "reply.l4.sport": 1, "reply.l4.dport": 60780,
    "reply.raw.pktlen": 40, "reply.raw.pktcount": 1, "ct.mark": 0, "ct.id": 145926108, "ct.event": 4,
    "flow.start.sec": 1795522328, "flow.start.usec": 64170, "flow.end.sec": 1795522328, "flow.end.usec": 164232,
    "oob.family": 2, "oob.protocol": 0, "src_ip": "172.17.0.8", "dest_ip": "172.17.0.1",
    "reply.ip.saddr.str": "172.17.0.1", "reply.ip.daddr.str": "172.17.0.8",
}  # fmt: skip


def test_an_object_is_read():
    """As ulogd 2.0.8 wrote it."""
    found = flow.read_json(json.dumps(OBJECT))
    assert (found.host, found.event, found.protocol) == ("OpenWrt", "DESTROY", "6")
    assert (found.source, found.source_port, found.destination, found.destination_port) == (
        "172.17.0.8", "60780", "172.17.0.1", "1",
    )  # fmt: skip
    assert (found.packets, found.bytes, found.reply_packets, found.reply_bytes) == ("1", "60", "1", "40")
    assert (found.start, found.end) == (1795522328064, 1795522328164)
    assert found.tuple.endswith("ID=145926108")


def test_ulogd_s_default_device_is_no_name():
    assert flow.read_json(json.dumps(OBJECT | {"dvc": "Netfilter"})).host == ""


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)


@given(st.sampled_from(sorted(OBJECT)), JSON)
def test_a_changed_member_gives_a_flow_of_valid_parts_or_none(name, value):
    try:
        found = flow.read_json(json.dumps(OBJECT | {name: value}))
    except flow.Refused:
        return
    assert 0 <= int(found.bytes) < 10**18
    assert found.source_port is None or 0 <= int(found.source_port) <= 65535
    assert found.end is None or 0 < found.end < 253402300800000
