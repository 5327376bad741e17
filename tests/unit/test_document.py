"""wrtflow.document: the finished document, its id and its index."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wrtflow import document, flow
from wrtflow.geo import Place
from wrtflow.networks import Networks

LINE = (
    "<150>Nov 24 03:13:49 OpenWrt ulogd[1868]: [DESTROY]"
    " ORIG: SRC=10.77.0.20 DST=198.18.1.80 PROTO=TCP SPT=57534 DPT=443 PKTS=9 BYTES=3371"
    " , REPLY: SRC=198.18.1.80 DST=198.18.0.1 PROTO=TCP SPT=443 DPT=57534 PKTS=8 BYTES=1301 "
)
NETWORKS = Networks(["10.77.0.0/24"])
MIDNIGHT = 1_790_812_800_000  # 2026-10-01T00:00:00Z


def made(
    line: str = LINE,
    action: str = document.END,
    times: tuple[int | None, int] = (1_000, 2_500),
    name: str | None = None,
) -> dict:
    read = flow.read_line(line)
    places = tuple(
        Place(text, NETWORKS)
        for text in (read.source, read.destination, read.reply_source, read.reply_destination)
    )
    named = (name, None)
    where = document.direction(*places[:3])
    return json.loads(
        document.document(
            read,
            "OpenWrt@10.77.0.1",
            document.ROUTER,
            action,
            times,
            places,
            (named, named),
            "none",
            where,
            False,
        )
    )


def identity(line: str = LINE, router: str = "OpenWrt@10.77.0.1") -> str:
    return document.identity(flow.read_line(line).stamp, None, f"{router} {line}")


def test_index_is_that_of_the_end_s_month_in_utc():
    assert document.index("network", MIDNIGHT - 1) == "network-2026.09"
    assert document.index("network", MIDNIGHT) == "network-2026.10"


def test_times_have_milliseconds_in_utc():
    assert document.timestamp(MIDNIGHT + 7) == "2026-10-01T00:00:00.007Z"


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("Jan  1 00:00:12", 12),
        ("Mar  1 00:00:00", 60 * 86400),
        ("2026-01-02T00:00:01.5+01:00", 86401),
        ("Feb 30 25:61:61", None),
        ("2026-13-01T00:00:00Z", None),
        ("", None),
    ],
)
def test_a_routers_clock_is_read_as_far_as_it_is_one(stamp, seconds):
    assert document.seconds_of_year(stamp) == seconds


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("03:13:49", "03:13:50"),
        ("SPT=57534", "SPT=57535"),
        ("BYTES=3371", "BYTES=3372"),
        ("198.18.0.1", "198.18.0.2"),
    ],
)
def test_another_line_has_another_id(old, new):
    assert identity() == identity()
    assert identity() != identity(LINE.replace(old, new, 1))


def test_another_router_has_another_id():
    assert identity() != identity(router="OpenWrt@10.77.0.2")


def test_ids_sort_by_time_and_share_their_beginning():
    ids = [identity(LINE.replace("03:13:49", f"03:13:{second:02}")) for second in range(0, 60, 2)]
    assert [base64.urlsafe_b64decode(one) for one in ids] == sorted(
        base64.urlsafe_b64decode(one) for one in ids
    )
    assert {len(one) for one in ids} == {12}
    assert len({one[:3] for one in ids}) == 1


def test_a_flow_that_ended_before_it_began_lasted_no_time():
    """The clock was set back meanwhile."""
    event = made(times=(5_000, 2_500))["event"]
    assert event["start"] == event["end"]
    assert event["duration"] == 0


def test_counters_of_a_timeout_are_unknown_and_not_zero():
    found = made(action=document.TIMEOUT)
    assert found["event"]["action"] == "flow-timeout"
    for part in ("source", "destination", "network"):
        assert not {"bytes", "packets"} & found[part].keys()


@given(st.text(min_size=1))
def test_any_name_gives_one_line_of_json_with_that_name(name):
    found = made(name=name.encode("utf-8", "replace").decode())
    assert found["source"]["domain"] == name.encode("utf-8", "replace").decode()
    assert "\n" not in json.dumps(found, ensure_ascii=False).replace("\\n", "")


@given(
    st.ip_addresses().filter(lambda ip: not (ip.version == 6 and ip.ipv4_mapped)).map(str),
    st.integers(0, 10**18 - 1),
    st.integers(0, 10**18 - 1),
)
def test_numbers_are_exact(address, sent, received):
    line = LINE.replace("BYTES=3371", f"BYTES={sent}").replace("BYTES=1301", f"BYTES={received}")
    found = made(line.replace("198.18.1.80", "198.18.9.9"))
    assert found["network"]["bytes"] == sent + received < 2**63
    assert (found["source"]["bytes"], found["destination"]["bytes"]) == (sent, received)
    assert Place(address, NETWORKS).ip
