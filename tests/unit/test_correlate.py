"""wrtflow.correlate: NEW and DESTROY become one document, whatever the clocks, the routers and the senders do."""

import json
import random
import sqlite3
import time

import pytest
from fakes import DAY, HOUR, LAPTOP, SECOND, SITE, START, TABLET, YEAR, Clock, json_line, line, told
from wrtflow import correlate, routers

WEEK = 7 * DAY
STEPS = [2 * HOUR, 30 * DAY, 10 * YEAR, -2 * HOUR, -30 * DAY, -10 * YEAR]


def started(document):
    return "start" in document["event"]


def seconds(document):
    return document["event"]["duration"] / 1e9


def test_a_flow_is_one_document_with_both_times(chain):
    assert chain.send(line("NEW")) == []
    chain.clock.passes(90 * SECOND)
    (found,) = chain.send(line("DESTROY"))
    assert found["event"]["action"] == "flow-end"
    assert (found["event"]["start"], found["@timestamp"]) == (
        "2026-11-24T03:13:47.000Z",
        "2026-11-24T03:15:17.000Z",
    )
    assert seconds(found) == 90
    assert (len(chain.collector.correlate), chain.keep()) == (0, [])


def test_a_destroy_alone_has_no_start(chain):
    (found,) = chain.send(line("DESTROY"))
    assert not {"start", "duration"} & found["event"].keys()


def test_update_and_a_new_that_comes_again_change_nothing(chain):
    chain.send(line("NEW"))
    chain.clock.passes(HOUR)
    assert chain.send(line("UPDATE")) == chain.send(line("NEW")) == []
    (found,) = chain.send(line("DESTROY"))
    assert seconds(found) == 3600
    assert chain.counts["open"] == 0


def test_a_tuple_that_is_used_again_ends_the_flow_whose_destroy_was_lost(chain):
    chain.send(line("NEW"))
    (lost,) = chain.send(line("NEW", at="Nov 24 03:13:58"))
    assert lost["event"]["action"] == "flow-timeout"
    assert started(chain.send(line("DESTROY"))[0])
    assert not started(chain.send(line("DESTROY", at="Nov 24 03:14:00"))[0])


def test_ports_used_again_are_another_flow_though_the_router_s_clock_stands_still(chain):
    chain.send(line("NEW"))
    chain.clock.passes(2 * HOUR)
    (lost,) = chain.send(line("NEW"))
    assert lost["event"]["action"] == "flow-timeout"
    chain.clock.passes(90 * SECOND)
    (found,) = chain.send(line("DESTROY"))
    assert seconds(found) == 90


def test_equal_pings_are_paired_first_in_first_out(chain):
    for _ in range(2):
        chain.send(line("NEW", ping=True))
        chain.clock.passes(10 * SECOND)
    durations = [seconds(chain.send(line("DESTROY", ping=True, octets=(n, n)))[0]) for n in (84, 85)]
    assert durations == [20, 10]
    assert len(set(chain.identities)) == 2


def test_a_flow_without_destroy_times_out(chain):
    chain.send(line("NEW"))
    chain.clock.passes(WEEK - 1)
    assert chain.keep() == []
    chain.clock.passes(1)
    (found,) = chain.keep()
    assert found["event"]["action"] == "flow-timeout"
    assert found["event"]["start"] == "2026-11-24T03:13:47.000Z"
    assert "bytes" not in found["network"]
    assert chain.keep() == []


def test_many_time_out_at_once(chain, monkeypatch):
    for port in range(1200):
        chain.send(line("NEW", port=port))
    chain.clock.passes(WEEK)
    assert len(chain.keep()) == len(set(chain.identities)) == 1200
    assert chain.counts["open"] == 0


# Clocks


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_the_wall_clock_is_no_part_of_a_flow(chain, step):
    chain.send(line("NEW"))
    chain.clock.passes(60 * SECOND)
    chain.clock.steps(step)
    assert chain.keep() == []
    chain.clock.passes(30 * SECOND)
    assert chain.keep() == []
    (found,) = chain.send(line("DESTROY"))
    assert seconds(found) == 90


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("reload", [False, True], ids=["restart", "other settings"])
def test_a_step_before_a_start_is_no_part_of_a_flow_either(chain, step, reload):
    chain.send(line("NEW"))
    chain.clock.passes(60 * SECOND)
    chain.keep()
    chain.clock.steps(step)
    chain.clock.passes(30 * SECOND)
    chain.keep()
    if reload:
        chain.reload(index_prefix="other")
    else:
        chain.restart()
    assert chain.keep() == []
    chain.clock.passes(30 * SECOND)
    (found,) = chain.send(line("DESTROY"))
    assert found["event"]["action"] == "flow-end"
    # The start of a flow can't be told where its time is before 1970.
    assert seconds(found) == 120


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kill", [False, True], ids=["stop", "kill"])
def test_a_step_while_there_is_no_collector_ends_no_flow(chain, step, kill):
    chain.send(line("NEW", TABLET))
    chain.send(line("NEW"))
    chain.keep()
    chain.restart(Clock(max(START + step, 0)), kill=kill)
    for _ in range(6):
        assert chain.keep() == []
        chain.clock.passes(DAY - HOUR)
    (found,) = chain.send(line("DESTROY"))
    assert started(found)
    assert seconds(found) >= 6 * (DAY - HOUR) / 1000
    # And the other one's time comes, once.
    chain.clock.passes(WEEK)
    assert [one["event"]["action"] for one in chain.keep()] == ["flow-timeout"]
    assert chain.keep() == []


def test_a_start_of_a_router_that_did_not_know_the_time_is_left_out(chain):
    end = {"flow__end__sec": START // 1000, "flow__end__usec": 0}
    (found,) = chain.send(json_line(**end, flow__start__sec=5, flow__start__usec=0))
    assert not started(found)
    (found,) = chain.send(json_line(**end, ct__id=2, flow__start__sec=START // 1000 - 9, flow__start__usec=0))
    assert seconds(found) == 9


def test_times_of_a_router_whose_clock_is_wrong_are_moved(chain):
    (found,) = chain.send(
        json_line(flow__start__sec=91, flow__start__usec=0, flow__end__sec=100, flow__end__usec=0)
    )
    assert found["@timestamp"] == "2026-11-24T03:13:47.000Z"
    assert seconds(found) == 9


# Ids


def test_the_same_line_twice_is_one_id(chain):
    chain.send(line("NEW"))
    for _ in range(3):
        assert len(chain.send(line("DESTROY"))) == 1
    assert len(set(chain.identities)) == 1
    assert chain.counts["doubled"] == 2


def test_two_flows_that_end_alike_are_two_ids(chain):
    for at in ("Nov 24 03:13:47", "Nov 24 03:13:49"):
        chain.send(line("NEW", at=at))
        chain.send(line("DESTROY", at="Nov 24 03:13:49"))
    assert len(set(chain.identities)) == 2
    # Of the second, once more: no third.
    chain.send(line("DESTROY", at="Nov 24 03:13:49"))
    assert len(set(chain.identities)) == 2


def test_many_equal_pings_are_as_many_ids(chain):
    for event in ("NEW", "DESTROY"):
        for _ in range(4000):
            chain.send(line(event, ping=True))
    assert len(set(chain.identities)) == 4000
    assert chain.counts["doubled"] == 0


def test_a_twin_is_no_flow_with_ten_times_the_bytes(chain):
    for octets in (1, 1, 11):
        chain.send(line("NEW", ping=True))
        chain.send(line("DESTROY", ping=True, octets=(84, octets)))
    assert len(set(chain.identities)) == 3


def test_ends_are_remembered_within_bounds(chain, monkeypatch):
    monkeypatch.setattr(correlate, "_ENDS", 10)
    for port in range(100):
        chain.send(line("DESTROY", port=port))
    found = chain.collector.correlate
    assert len(found._ends) <= 10
    chain.send(line("DESTROY", port=95))
    assert chain.counts["doubled"] == 1


# Floods


def test_a_destroy_costs_the_same_however_many_flows_are_open(chain):
    def pings(count):
        for _ in range(count):
            chain.send(line("NEW", ping=True))

    def cost():
        """Seconds of 300 pairs."""
        found = []
        for _ in range(5):
            begin = time.perf_counter()
            for _ in range(300):
                chain.send(line("NEW", ping=True))
                chain.send(line("DESTROY", ping=True))
            found.append(time.perf_counter() - begin)
        return min(found)

    few = cost()
    pings(40_000)
    assert chain.counts["open"] == 40_000
    # A walk through all of them would be a hundred times as slow.
    assert cost() < 5 * few


def test_one_device_fills_its_own_room_alone(chain, monkeypatch):
    monkeypatch.setattr(correlate, "_OF_ONE", 10)
    for port in range(30):
        chain.send(line("NEW", port=port))
    assert (chain.counts["open"], chain.counts["beyond"]) == (10, 20)
    chain.send(line("NEW", TABLET))
    assert started(chain.send(line("DESTROY", TABLET))[0])
    # What was beyond is a document all the same, and there is room again with each end.
    assert not started(chain.send(line("DESTROY", port=29))[0])
    chain.send(line("DESTROY", port=0))
    chain.send(line("NEW", port=31))
    assert started(chain.send(line("DESTROY", port=31))[0])


def test_all_open_flows_have_a_bound(chain, monkeypatch):
    monkeypatch.setattr(correlate, "_MOST", 10)
    for number in range(30):
        chain.send(line("NEW", f"10.77.0.{number + 1}"))
    assert (chain.counts["open"], chain.counts["beyond"]) == (10, 20)


# Routers


def test_two_live_routers_of_one_name_or_one_address_are_kept_apart(chain):
    ones = [("a", "192.0.2.1"), ("a", "192.0.2.2"), ("b", "192.0.2.1")]
    for host, sender in ones:
        chain.send(line("NEW", host=host), sender)
        chain.clock.passes(SECOND)
    for number, (host, sender) in enumerate(ones):
        (found,) = chain.send(line("DESTROY", host=host), sender)
        assert seconds(found) == 3 - number
        assert found["observer"]["hostname"] == host
    assert chain.counts["open"] == 0


@pytest.mark.parametrize(
    ("host", "sender"), [("attic", "192.168.1.1"), ("OpenWrt", "fd77::1")], ids=["renamed", "address"]
)
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("kind", [line, json_line])
def test_a_router_that_is_called_otherwise_goes_on_with_its_flows(chain, host, sender, restart, kind):
    if kind is line:
        opened, ended = line("NEW"), line("DESTROY", host=host)
    else:
        opened, ended = json_line(ct__event=1), json_line(dvc=host)
    chain.send(opened)
    if restart:
        chain.restart()
    (found,) = chain.send(ended, sender)
    assert started(found)
    assert found["observer"]["hostname"] == host
    assert chain.counts["open"] == 0
    chain.clock.passes(WEEK)
    assert chain.keep() == []


def test_a_new_name_alone_can_t_end_a_live_router_s_flows(chain):
    chain.send(line("NEW"))
    chain.send(line("NEW", TABLET, host="other"))
    chain.send(line("UPDATE"))
    assert not started(chain.send(line("DESTROY", host="other"))[0])
    assert started(chain.send(line("DESTROY"))[0])


def test_names_of_one_sender_have_a_bound(chain):
    for number in range(200):
        chain.send(told("x", "procd", f"name{number}"))
    assert len(chain.collector._routers) == routers._OF_ONE_SENDER
    # One with open flows stays.
    chain.send(line("NEW"))
    for number in range(200):
        chain.send(told("x", "procd", f"name{number}"))
    assert started(chain.send(line("DESTROY"))[0])


def test_a_sender_whose_names_are_all_in_use_gets_no_more(chain):
    for number in range(routers._OF_ONE_SENDER):
        chain.send(line("NEW", host=f"name{number}"))
    chain.send(line("NEW", host="one-more"))
    assert chain.counts["unparsed"] == 1
    assert "too many names of routers" in chain.unparsed
    # Nobody else pays.
    chain.send(line("NEW"), "192.0.2.2")
    assert started(chain.send(line("DESTROY"), "192.0.2.2")[0])


def test_all_routers_have_a_bound(chain):
    """Each sender has all the names that it may have, and still one makes room."""
    for sender in range(routers._MOST // routers._OF_ONE_SENDER):
        for number in range(routers._OF_ONE_SENDER):
            chain.send(told("x", "procd", f"name{number}"), f"192.0.2.{sender}")
    assert len(chain.collector._routers) == routers._MOST
    chain.send(told("x", "procd", "one-more"), "192.0.2.0")
    chain.send(told("x", "procd", "one-more"), "192.0.2.200")
    assert len(chain.collector._routers) <= routers._MOST
    assert chain.counts["unparsed"] == 0


def test_a_line_without_a_name_is_its_address_s_last_one(chain):
    chain.send(told("x", "procd", "attic"))
    (found,) = chain.send(line("DESTROY", host="").replace("  ulogd", " ulogd"))
    assert found["observer"]["hostname"] == "attic"
    (found,) = chain.send(line("DESTROY", host="").replace("  ulogd", " ulogd"), "192.0.2.9")
    assert found["observer"]["hostname"] == "192.0.2.9"


# Boots


KERNEL = "[    0.000000] Linux version 6.6.73 (builder@buildhost) #0 SMP"


def test_a_boot_ends_what_was_open(chain):
    chain.send(told("boot one 100"))
    chain.send(line("NEW"))
    chain.send(told("boot one 130"))
    assert chain.keep() == []
    chain.send(told("boot two 0"))
    chain.send(line("NEW", TABLET))
    (found,) = chain.keep()
    assert (found["event"]["action"], found["source"]["ip"]) == ("flow-timeout", LAPTOP)
    assert started(chain.send(line("DESTROY", TABLET))[0])


def test_a_boot_that_is_told_late_ends_what_began_before_it(chain):
    chain.send(told("boot one 100"))
    chain.send(line("NEW"))
    chain.clock.passes(100 * SECOND)
    chain.send(line("NEW", TABLET))
    chain.send(told("boot two 50"))
    (found,) = chain.keep()
    assert found["source"]["ip"] == LAPTOP


@pytest.mark.parametrize("more", ["", "x" * 400], ids=["short", "long"])
def test_the_kernel_s_first_line_is_a_boot_unless_it_comes_again(chain, more):
    chain.send(told(KERNEL + more, "kernel"))
    chain.keep()
    chain.send(line("NEW"))
    chain.send(told(KERNEL + more, "kernel"))
    assert chain.keep() == []
    chain.send(told(KERNEL + more, "kernel").replace("03:13:40", "03:20:00"))
    assert len(chain.keep()) == 1
    ((_, _, kept),) = chain.collector.state.rows("boots")
    assert len(kept) < 300


def test_a_boot_is_remembered_over_a_restart(chain):
    chain.send(told("boot one 100"))
    chain.restart()
    chain.send(line("NEW"))
    chain.send(told("boot one 200"))
    assert chain.keep() == []
    chain.send(told("boot two"))
    assert len(chain.keep()) == 1


def test_another_router_s_boot_ends_nothing(chain):
    chain.send(line("NEW"))
    chain.send(told("boot one 100", host="attic"), "192.0.2.2")
    chain.send(told("boot two 0", host="attic"), "192.0.2.2")
    assert chain.keep() == []


# What is kept


def rows(chain):
    chain.keep()
    return list(chain.collector.state.rows("open"))


def test_a_restart_keeps_what_is_open_with_its_name(chain):
    chain.names.sites[LAPTOP, SITE] = "bank.example"
    chain.send(line("NEW"))
    chain.send(json_line(ct__event=1, ct__id=7))
    chain.names.sites[LAPTOP, SITE] = "ads.example"
    chain.clock.passes(60 * SECOND)
    chain.restart()
    for text in (line("DESTROY"), json_line(ct__id=7)):
        (found,) = chain.send(text)
        assert seconds(found) == 60
        assert found["destination"]["domain"] == "bank.example"
    assert rows(chain) == []


def test_a_kill_loses_what_is_not_saved_and_nothing_else(chain):
    chain.send(line("NEW"))
    chain.keep()
    chain.send(line("NEW", TABLET))
    chain.restart(kill=True)
    assert started(chain.send(line("DESTROY"))[0])
    assert not started(chain.send(line("DESTROY", TABLET))[0])


DAMAGED = [
    None, 1, "x", [], {}, {"a": 1, "b": 2, "c": 3, "d": 4}, [1, 2, 3, 4], ["OpenWrt", 1, line("NEW").strip(), None],
    ["OpenWrt@192.168.1.1", "x", line("NEW").strip(), None], ["OpenWrt@192.168.1.1", 1, line("NEW")[:90], None],
    ["OpenWrt@192.168.1.1", 1, 5, None], ["OpenWrt@192.168.1.1", 1, None, None], [5, 1, line("NEW").strip(), None],
    ["OpenWrt@192.168.1.1", 1, told("x"), None], ["OpenWrt@192.168.1.1", 1, line("NEW").strip(), 5],
    ["OpenWrt@192.168.1.1", 1, "{" * 100_000, None], ["OpenWrt@192.168.1.1", 1e999, line("NEW").strip(), None],
    ['"@x', 1, 'a"', None],
]  # fmt: skip


def test_damaged_rows_are_skipped_and_all_others_kept(chain):
    chain.send(line("NEW"))
    tables = chain.collector.state._tables
    names = [name for name in tables if name not in ("open", "clock")]
    first = chain.collector.correlate._number
    for number, row in enumerate(DAMAGED):
        tables["open"].put(1000 + number, row)
        for name in names:
            tables[name].put(1000 + number if tables[name].numbered else f"damaged{number}@x", row)
    chain.restart()
    # Each part takes what it can read, and what it took does no harm.
    assert rows(chain)[0][0] == first
    assert started(chain.send(line("DESTROY"))[0])
    assert chain.counts["open"] == 0
    assert chain.collector.state.report()["rows_skipped"] >= len(DAMAGED) - 1
    chain.restart()
    assert chain.send(line("NEW")) == []


@pytest.mark.parametrize("start", [-(10**18), 10**18, 10**40, START + 0.5, float(START)])
def test_a_start_that_can_t_be_harms_nothing(chain, start):
    chain.collector.state._tables["open"].put(1, ["OpenWrt@192.168.1.1", start, line("NEW").strip(), None])
    chain.restart()
    assert chain.collector.state.report()["rows_skipped"] == 1
    assert not started(chain.send(line("DESTROY"))[0])


def test_a_number_that_can_t_be_harms_nothing(chain):
    row = ["OpenWrt@192.168.1.1", START, line("NEW").strip(), None]
    for number in (2**63 - 1, 2**62, 0, -1):
        chain.collector.state._tables["open"].put(number, row)
    chain.restart()
    assert chain.collector.state.report()["rows_skipped"] == 4
    chain.send(line("NEW"))
    chain.keep()
    assert "fault" not in chain.collector.state.report()


@pytest.mark.parametrize("row", [[0, 0], [START, 0], [0, -(10**18)], [START, -(10**18)], [1e300, 1]])
def test_a_clock_that_can_t_be_bends_no_flow(chain, row):
    chain.send(line("NEW"))
    chain.collector.stop()
    with sqlite3.connect(chain.folder / "state.sqlite") as database:
        database.execute("INSERT OR REPLACE INTO clock VALUES ('clock', ?)", (json.dumps(row),))
    chain.restart(kill=True)
    (found,) = chain.send(line("DESTROY"))
    assert found["event"].get("duration", 0) < 30 * DAY * 1_000_000


@pytest.mark.parametrize("kill", [False, True])
def test_a_wall_clock_that_is_set_by_years_while_nothing_runs_bends_no_flow(chain, kill):
    chain.send(line("NEW"))
    chain.keep()
    chain.restart(Clock(chain.clock.by_wall + 10 * YEAR), kill=kill)
    (found,) = chain.send(line("DESTROY"))
    assert found["event"]["duration"] < DAY * 1_000_000


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_and_two_restarts_bend_no_flow(chain, step, kill):
    chain.send(line("NEW"))
    chain.clock.passes(SECOND)
    chain.keep()
    chain.clock.steps(step)
    for _ in range(2):
        chain.clock.passes(SECOND)
        chain.keep()
        chain.restart(kill=kill)
    (found,) = chain.send(line("DESTROY"))
    assert seconds(found) == pytest.approx(3, abs=0.2)


def test_a_flow_that_ends_once_more_after_a_kill_is_one_document(chain):
    chain.send(line("NEW"))
    chain.keep()
    chain.send(line("DESTROY"))
    chain.restart(kill=True)
    chain.clock.passes(8 * DAY)
    (again,) = chain.keep()
    assert again["event"]["action"] == "flow-timeout"
    assert len(chain.identities) == 2
    assert len(set(chain.identities)) == 1


@pytest.mark.parametrize("full", [False, True], ids=["kill", "stop with a full disk"])
def test_a_ping_that_ended_before_the_collector_takes_no_other_one_s_end(chain, full):
    chain.restart()
    chain.send(line("NEW", ping=True))
    chain.keep()
    chain.send(line("DESTROY", ping=True, octets=(84, 84)))
    if full:
        chain.collector.state._write = lambda changed: (_ for _ in ()).throw(OSError("no space"))
    chain.restart(kill=not full)
    # It is open again, and stays so over a stop.
    chain.keep()
    chain.restart()
    for octets in (85, 86):
        chain.clock.passes(10 * SECOND)
        chain.send(line("NEW", ping=True))
        chain.clock.passes(10 * SECOND)
        (found,) = chain.send(line("DESTROY", ping=True, octets=(octets, octets)))
        assert seconds(found) == 10
    assert len(set(chain.identities)) == 3


@pytest.mark.parametrize("reload", [False, True])
def test_pings_go_on_first_in_first_out_after_a_stop(chain, reload):
    chain.send(line("NEW", ping=True))
    chain.restart(kill=True)
    for _ in range(2):
        chain.clock.passes(10 * SECOND)
        chain.send(line("NEW", ping=True))
    chain.reload(flow_timeout=3600) if reload else chain.restart()
    chain.clock.passes(10 * SECOND)
    chain.send(line("NEW", ping=True))
    durations = [seconds(chain.send(line("DESTROY", ping=True, octets=(n, n)))[0]) for n in (84, 85, 86)]
    assert durations == [20, 10, 0]


def test_numbers_of_flows_never_come_again(chain):
    """Not after a kill -9 that made the collector forget which it had used, and not after a flood."""
    for _ in range(3):
        for port in range(200):
            chain.send(line("NEW", port=port))
            chain.send(line("DESTROY", port=port))
        chain.clock.passes(SECOND)
        chain.restart(kill=True)
    assert len(set(chain.identities)) == 600


def test_a_copy_of_a_destroy_ends_no_later_flow(chain):
    chain.send(line("NEW", at="Nov 24 03:13:40"))
    ended = line("DESTROY", at="Nov 24 03:13:45")
    chain.send(ended)
    chain.clock.passes(20 * SECOND)
    chain.send(line("NEW", at="Nov 24 03:14:05"))
    (copy,) = chain.send(ended)
    assert not started(copy)
    (found,) = chain.send(line("DESTROY", at="Nov 24 03:14:07", octets=(1, 2)))
    assert started(found)
    assert len(set(chain.identities)) == 2
    assert chain.counts["doubled"] == 1


def test_a_copy_of_a_destroy_is_known_over_a_restart(chain):
    chain.send(line("NEW"))
    for _ in range(3):
        chain.send(line("DESTROY"))
        chain.restart()
    assert len(chain.identities) == 3
    assert len(set(chain.identities)) == 1


def test_the_ends_that_are_remembered_have_a_bound(chain, monkeypatch):
    monkeypatch.setattr(correlate, "_ENDS", 10)
    for port in range(30):
        chain.send(line("NEW", port=port))
        chain.send(line("DESTROY", port=port))
    for port in (29, 20, 0):
        chain.send(line("DESTROY", port=port))
    assert chain.counts["doubled"] == 2


def test_ends_of_a_device_left_out_later_do_not_stay_on_disk(chain):
    for device in (LAPTOP, TABLET):
        chain.send(line("NEW", device))
        chain.send(line("DESTROY", device))
    chain.restart(left_out=(f"{LAPTOP}/32",))
    chain.keep()
    ((_, key, _),) = chain.collector.state.rows("ended")
    assert TABLET in str(key)
    assert chain.collector.state.report()["rows_skipped"] == 0


def test_a_copy_of_a_destroy_takes_no_flow_of_another_router_of_that_name(chain):
    for sender in ("192.168.1.1", "192.168.1.2"):
        chain.send(line("NEW"), sender)
    chain.clock.passes(61 * SECOND)
    for _ in range(2):
        chain.send(line("DESTROY"), "192.168.1.1")
    (found,) = chain.send(line("DESTROY"), "192.168.1.2")
    assert started(found)
    assert len(set(chain.identities)) == 2


def test_the_boot_of_a_renamed_router_ends_the_flows_of_its_former_name(chain):
    chain.send(line("NEW"))
    chain.clock.passes(30 * SECOND)
    chain.send(told("boot one 10", host="attic"))
    (found,) = chain.keep()
    assert found["event"]["action"] == "flow-timeout"


def test_equal_pings_of_a_renamed_router_are_paired_in_their_order(chain):
    for host in ("OpenWrt", "OpenWrt", "attic"):
        chain.send(line("NEW", ping=True, host=host))
        chain.clock.passes(SECOND)
    found = [chain.send(line("DESTROY", ping=True, host="attic", octets=(84, each)))[0] for each in range(3)]
    assert [seconds(each) for each in found] == [3, 2, 1]


def test_a_flow_of_a_device_left_out_later_does_not_stay_on_disk(chain):
    chain.send(line("NEW"))
    chain.send(line("NEW", TABLET))
    chain.restart(left_out=(f"{LAPTOP}/32",))
    assert chain.counts["open"] == 1
    chain.keep()
    assert len(rows(chain)) == 1
    assert chain.send(line("DESTROY")) == []


def test_flows_of_a_log_prefix_that_is_no_more_are_let_go(chains):
    chain = chains(log_prefix="edge")
    chain.send(line("NEW").replace("ulogd", "edge: ulogd"))
    chain.send(json_line(ct__event=1))
    chain.restart(log_prefix="")
    assert chain.counts["open"] == 1
    assert chain.collector.state.report()["rows_skipped"] == 1
    assert not started(chain.send(line("DESTROY"))[0])
    assert started(chain.send(json_line())[0])


def test_other_settings_keep_everything(chain):
    for port in range(3):
        chain.send(line("NEW", port=port))
        chain.clock.passes(SECOND)
    chain.send(told("boot one 100"))
    chain.reload(index_prefix="house", flow_timeout=3600)
    assert chain.counts["new"] == 3
    assert [seconds(chain.send(line("DESTROY", port=port))[0]) for port in range(2)] == [3, 2]
    assert chain.outbox.put_[-1][0] == "house-2026.11"
    chain.send(told("boot one 101"))
    assert chain.keep() == []
    chain.clock.passes(HOUR)
    assert len(chain.keep()) == 1
    assert rows(chain) == []


def test_a_flow_that_ends_before_the_next_save_never_reaches_the_disk(chain):
    written = []
    chain.collector.state._write = written.append
    chain.send(line("NEW"))
    chain.send(line("DESTROY"))
    chain.keep()
    assert not any("open" in changed for changed in written)


def test_disk_and_memory_never_differ(chain):
    chance = random.Random(1)
    expected = {}
    for _ in range(400):
        chain.clock.passes(700)
        port = chance.randrange(1, 6)
        match chance.choice(["open", "open", "close", "close", "save", "restart", "reload", "kill"]):
            case "open" if port not in expected:
                chain.send(line("NEW", port=port))
                expected[port] = chain.clock.by_wall
            case "close" if port in expected:
                (found,) = chain.send(line("DESTROY", port=port))
                assert seconds(found) == (chain.clock.by_wall - expected.pop(port)) / 1000
            case "save":
                chain.keep()
            case "restart":
                chain.restart()
            case "reload":
                chain.reload(index_prefix=f"x{port}")
            case "kill":
                chain.keep()
                chain.restart(kill=True)
        assert chain.counts["open"] == len(expected)
