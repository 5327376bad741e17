"""wrtflow.document: the finished document, its id and its index."""

import base64
import datetime
import json
import re
import time

import pytest
import storage
from fakes import DAY, line
from hypothesis import given
from hypothesis import strategies as st
from wrtflow import document, store
from wrtflow.correlate import Event
from wrtflow.document import Facts
from wrtflow.parse import Reader, whole
from wrtflow.places import Place
from wrtflow.routers import Router

LINE = whole(line("DESTROY"))
MIDNIGHT = 1_790_812_800_000  # 2026-10-01T00:00:00Z


def place(text: str) -> Place:
    return Place(text, 4, home=text.startswith("10.77."))


def written(
    text: str = LINE,
    action: str = document.END,
    times: tuple[int | None, int] = (1_000, 2_500),
    name: str | None = None,
    host: str = "OpenWrt",
    zone: str = "UTC",
) -> str:
    read = Reader().read(text)
    ends = tuple(map(place, (read.source, read.destination, read.reply_source, read.reply_destination)))
    ended = Event(Router(host, "10.77.0.1", ""), read, text, ends, 0, action=action)
    facts = Facts(document.ROUTER, document.direction(*ends[:3]), name, None, name, "none", False)
    lines = document.document(ended, ends, *times, facts, document.Calendar(zone), "network")
    return lines.partition("\n")[2]


def made(*arguments, **more) -> dict:
    return json.loads(written(*arguments, **more))


def identity(text: str = LINE, router: str = "OpenWrt@10.77.0.1") -> str:
    return document.identity(Reader().read(text), f"{router} {text}")


def test_index_is_that_of_the_end_s_month_in_utc():
    assert document.index("network", (MIDNIGHT - 1) // DAY) == "network-2026.09"
    assert document.index("network", MIDNIGHT // DAY) == "network-2026.10"


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
        ("0000-00-00T::::::::+", None),
        ("", None),
    ],
)
def test_a_routers_clock_is_read_as_far_as_it_is_one(stamp, seconds):
    assert document.seconds_of_year(stamp) == seconds


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("03:13:47", "03:13:50"),
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
    ids = [identity(LINE.replace("03:13:47", f"03:13:{second:02}")) for second in range(0, 60, 2)]
    assert [base64.urlsafe_b64decode(one) for one in ids] == sorted(
        base64.urlsafe_b64decode(one) for one in ids
    )
    assert {len(one) for one in ids} == {12}
    assert len({one[:3] for one in ids}) == 1


def test_the_ids_of_numbers_are_short_and_neighbours_differ_in_their_end():
    first = 1_790_000_000_000 * 128
    ids = [document.numbered(first + number) for number in range(5_000)]
    assert len(set(ids)) == 5_000
    assert all(re.fullmatch("[A-Za-z0-9_-]{8}", one) for one in ids)
    assert len({one[:5] for one in ids}) == 1


def test_a_number_beyond_48_bits_has_an_id():
    assert document.numbered(1 << 62 | 7) == document.numbered(7)


def test_the_bench_measures_documents_as_the_collector_writes_them():
    """Field for field in the same order, which is a part of what they take on disk."""

    def names(value: dict, prefix: str = "") -> list[str]:
        return [
            name
            for key, inner in value.items()
            for name in (names(inner, f"{prefix}{key}.") if isinstance(inner, dict) else [f"{prefix}{key}"])
        ]

    flow = next(storage.flows(1, MIDNIGHT, MIDNIGHT + 1))
    measured = names(flow.ours())
    place_json = json.dumps({name: flow.ours()["destination"][name] for name in ("geo", "as")})[1:-1]
    home, site = place("10.77.0.21"), Place("198.18.1.80", 4, home=False, json=f",{place_json}")
    read = Reader().read(LINE)
    outer = place(read.reply_destination)
    ended = Event(Router("OpenWrt", "", ""), read, LINE, (home, site, site, outer), 0)
    facts = Facts(
        document.ROUTER, "outbound", "laptop", "00-00-5E-00-53-20", "a.b.example", "dns", False, "laptop",
        "Laptops Inc.", "b.example",
    )  # fmt: skip
    made = document.document(ended, ended.ends, 1_000, 2_500, facts, document.Calendar("UTC"), "network")
    assert measured == names(json.loads(made.partition("\n")[2]))


def test_the_delivery_finds_a_flow_s_end_in_its_document():
    end = int(time.time() * 1000) - 5_000
    document_of_it = store.Document("network-2026.10", "id", written(times=(end - 1_000, end)))
    assert 5_000 <= store.Batch.of([document_of_it]).age() < 60_000


def test_a_flow_that_ended_before_it_began_lasted_no_time():
    """The clock was set back meanwhile."""
    found = made(times=(5_000, 2_500))
    assert found["event"]["start"] == found["@timestamp"]
    assert found["event"]["duration"] == 0


def test_a_flow_without_a_start_has_no_duration_and_no_hour():
    found = made(times=(None, 2_500))
    assert not {"start", "duration"} & found["event"].keys()
    assert not {"hour", "weekday"} & found["wrtflow"].keys()


@pytest.mark.parametrize(
    ("start", "zone", "hour", "weekday"),
    [
        ("2026-10-01T00:00:00Z", "UTC", 0, 4),
        ("2026-10-04T23:59:59.999Z", "UTC", 23, 7),
        ("2026-10-04T23:59:59.999Z", "Europe/Berlin", 1, 1),
        # Summer time ends at 01:00 UTC.
        ("2026-10-25T00:59:59Z", "Europe/Berlin", 2, 7),
        ("2026-10-25T01:00:00Z", "Europe/Berlin", 2, 7),
        ("2026-10-25T02:00:00Z", "Europe/Berlin", 3, 7),
        ("2026-10-01T00:14:59Z", "Asia/Kathmandu", 5, 4),
        ("2026-10-01T00:15:00Z", "Asia/Kathmandu", 6, 4),
    ],
)
def test_the_hour_is_that_of_the_start_on_the_house_s_clocks(start, zone, hour, weekday):
    began = int(datetime.datetime.fromisoformat(start).timestamp() * 1000)
    found = made(times=(began, began + 7_200_000), zone=zone)["wrtflow"]
    assert (found["hour"], found["weekday"]) == (hour, weekday)


@pytest.fixture
def machine_in_hawaii(monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Honolulu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("machine_in_hawaii")
def test_without_a_time_zone_that_of_the_machine_counts():
    found = made(times=(MIDNIGHT, MIDNIGHT), zone="")["wrtflow"]
    assert (found["hour"], found["weekday"]) == (14, 3)


def test_counters_of_a_timeout_are_unknown_and_not_zero():
    found = made(action=document.TIMEOUT)
    assert found["event"]["action"] == "flow-timeout"
    for part in ("source", "destination", "network"):
        assert not {"bytes", "packets"} & found[part].keys()


def test_what_reply_has_otherwise_is_told():
    found = made()
    assert found["source"]["nat"] == {"ip": "198.18.0.1"}
    assert "nat" not in found["destination"]
    found = made(
        LINE.replace("REPLY: SRC=198.18.1.80", "REPLY: SRC=10.77.0.9").replace("SPT=443", "SPT=8443")
    )
    assert found["destination"]["nat"] == {"ip": "10.77.0.9", "port": 8443}


@pytest.mark.parametrize(
    ("ends", "where"),
    [
        (("10.77.0.20", "198.18.1.80", "198.18.1.80"), "outbound"),
        (("10.77.0.20", "10.77.0.21", "10.77.0.21"), "internal"),
        (("10.77.0.20", "198.18.0.1", "10.77.0.21"), "internal"),
        (("198.18.1.80", "198.18.0.1", "10.77.0.21"), "inbound"),
        (("198.18.1.80", "10.77.0.1", "10.77.0.1"), "inbound"),
        (("198.18.1.80", "198.18.0.1", "198.18.0.1"), "external"),
    ],
)
def test_directions_are_seen_from_home(ends, where):
    assert document.direction(*map(place, ends)) == where


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(NAMES, NAMES)
def test_any_name_gives_one_line_of_json_with_that_name(name, host):
    found = made(name=name, host=host)
    assert found["source"]["domain"] == found["destination"]["domain"] == name
    assert found["observer"]["hostname"] == host


@given(st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1))
def test_numbers_are_exact(sent, received):
    text = LINE.replace("BYTES=3371", "BYTES={}").replace("BYTES=1301", "BYTES={}")
    found = made(text.format(sent, received))
    assert found["network"]["bytes"] == sent + received < 2**63
    assert (found["source"]["bytes"], found["destination"]["bytes"]) == (sent, received)
