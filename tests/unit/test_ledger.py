"""wrtflow.ledger: every flow is in a row of its minute, and a difference is named."""

import collections
import json

import pytest
from fakes import HOUR, SECOND, START, Clock, line, told
from wrtflow import ledger

MINUTE = 60 * SECOND
ROUTER = "OpenWrt@192.168.1.1"


def sums(chain, since=0, until=1 << 40):
    """Return what `wrtflow ledger` reads, after a second."""
    chain.clock.passes(SECOND)
    chain.keep()
    return ledger.read(chain.folder / "state.sqlite", since, until)


def lost(found):
    return [sentence for is_lost, sentence in found.differences() if is_lost]


def flow(chain, port):
    chain.send(line("NEW", port=port))
    return chain.send(line("DESTROY", port=port))


def test_an_even_ledger_has_every_line_and_every_flow(chain):
    for port in range(3):
        flow(chain, 50000 + port)
        chain.clock.passes(MINUTE)
        chain.keep()
    chain.send(line("DESTROY", port=1))
    chain.send(told("hello", "sshd"))
    found = sums(chain)
    assert found.routers[ROUTER] == {
        "lines": 8, "starts": 3, "ends": 4, "flows": 4, "without_start": 1,
    }  # fmt: skip
    assert found.counts["flows"] == found.counts["waiting"] == 4
    assert list(found.differences()) == []
    assert "The ledger is even: nothing is missing." in list(found.lines())


def test_a_window_has_its_own_minutes_only(chain):
    for port in range(5):
        flow(chain, 50000 + port)
        chain.keep()
        chain.clock.passes(MINUTE)
    begin = START // 1000
    assert sums(chain, begin + 13, begin + 133).counts["flows"] == 2
    assert sums(chain, begin - 3600, begin - 60).until == 0


@pytest.mark.parametrize("how", ["restart", "reload"])
def test_a_restart_and_a_reload_count_nothing_twice_and_lose_nothing(chain, how):
    flow(chain, 50000)
    chain.keep()
    chain.send(line("NEW", port=50001))
    if how == "restart":
        chain.restart()
    else:
        chain.reload(left_out=("10.77.0.99",))
    chain.send(line("DESTROY", port=50001))
    chain.send(line("DESTROY", port=50001))
    for port in range(7):
        flow(chain, 51000 + port)
    found = sums(chain)
    # The repeated end makes one more document of the same id.
    assert (found.routers[ROUTER]["starts"], found.routers[ROUTER]["ends"]) == (9, 10)
    assert found.counts["flows"] == 10
    assert lost(found) == []


def test_what_a_kill_leaves_uncounted_is_not_counted_later(chain):
    flow(chain, 50000)
    chain.keep()
    flow(chain, 50001)
    chain.restart(kill=True)
    flow(chain, 50002)
    assert sums(chain).routers[ROUTER]["flows"] == 2


def test_the_wall_clock_may_step(chain):
    for port, step in enumerate((0, 10 * HOUR, -20 * HOUR, 10 * HOUR, -MINUTE)):
        chain.clock.steps(step)
        flow(chain, 50000 + port)
        chain.clock.passes(SECOND)
        chain.keep()
    found = sums(chain)
    assert found.counts["flows"] == 5
    # Time is measured by the steady clock.
    assert found.ms == 5 * SECOND


def test_the_kernels_starts_are_held_against_those_that_came(chain):
    chain.send(told("counts 100 7"))
    for port in range(20):
        chain.send(line("NEW", port=port))
    chain.send(told("counts 120 7"))
    assert list(sums(chain).differences()) == []
    chain.send(told("counts 150 7"))
    assert lost(sums(chain)) == [
        f"{ROUTER}: 30 starts were lost between ulogd and the collector, and likely as many ends:"
        " the router's log, the network, or a collector that was away"
    ]


def test_events_that_the_kernel_dropped_are_told_as_such(chain):
    chain.send(told("counts 0 0"))
    chain.send(told("counts 40 80"))
    (sentence,) = lost(sums(chain))
    assert "the kernel dropped 80 events" in sentence


def test_starts_between_two_tellings_outlive_a_restart(chain):
    chain.send(told("counts 0 0"))
    for port in range(15):
        chain.send(line("NEW", port=port))
    chain.restart()
    for port in range(15, 30):
        chain.send(line("NEW", port=port))
    chain.send(told("counts 30 0"))
    assert sums(chain).routers[ROUTER]["marked"] == 30


def test_starts_while_the_collector_was_away_are_missing(chain):
    chain.send(told("counts 0 0"))
    chain.restart()
    chain.send(told("counts 30 0"))
    assert len(lost(sums(chain))) == 1


def test_a_router_that_booted_counts_from_0(chain):
    chain.send(told("counts 1000 5"))
    for port in range(10):
        chain.send(line("NEW", port=port))
    chain.send(told("counts 4 0"))
    found = sums(chain)
    assert (found.routers[ROUTER]["kernel_starts"], found.routers[ROUTER]["kernel_overruns"]) == (4, 0)
    assert found.routers[ROUTER]["marked"] == 4
    assert list(found.differences()) == []


@pytest.mark.parametrize(
    "text", ["counts", "counts - -", "counts x y", "counts 1", "counts 1 2 3", f"counts {10**30} 0"]
)
def test_counts_that_are_not_told_or_make_no_sense_count_nothing(chain, text):
    for _ in range(3):
        chain.send(told(text))
    chain.send(told("counts 5 -"))
    chain.send(told("counts 9 -"))
    assert sums(chain).routers[ROUTER]["kernel_starts"] == 4
    assert "kernel_overruns" not in sums(chain).routers[ROUTER]


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        (
            {"flows": 9, "indexed": 5, "waiting": 1},
            "3 documents were made, and it is not known that they were stored",
        ),
        ({"flows": 9, "indexed": 7, "dropped": 2}, "2 documents were dropped"),
        ({"flows": 9, "indexed": 7, "refused": 2}, "2 documents were refused by Elasticsearch"),
        ({"flows": 9, "indexed": 9, "lost": 2}, "2 refused documents could not be kept"),
        ({"unparsed": 4}, "4 lines were refused"),
    ],
)
def test_each_loss_is_named(counts, sentence):
    found = ledger.Balance(1, 2, 60_000, collections.Counter(counts))
    assert [text.startswith(sentence) for text in lost(found)] == [True]


def test_a_repeated_request_loses_nothing():
    found = ledger.Balance(1, 2, 60_000, collections.Counter(flows=9, indexed=9, duplicates=2))
    assert lost(found) == []
    assert len(list(found.differences())) == 1


def test_minutes_without_a_collector_are_told(chain):
    flow(chain, 50000)
    chain.restart(Clock(START + 30 * MINUTE))
    flow(chain, 50001)
    ((is_lost, sentence),) = sums(chain).differences()
    assert (is_lost, sentence.partition(" of")[0]) == (False, "syslog-ng did not run for 31")


def test_a_counter_that_has_fallen_has_begun_again(chain):
    """As that of a router that was forgotten and has come back."""
    kept = chain.collector._ledger
    for count, waiting in ((5, 3), (2, 1), (4, 0)):
        kept.note({"x": count, "waiting": waiting}, {}, {})
    found = sums(chain).counts
    assert (found["x"], found["waiting"]) == (9, 0)


def test_old_minutes_become_hours_and_old_hours_go(chain, monkeypatch):
    # The disk of 100 days takes a minute.
    with monkeypatch.context() as patched:
        patched.setattr(chain.collector.state, "save", lambda: None)
        for hour in range(100 * 24):
            flow(chain, 1024 + hour)
            chain.clock.passes(HOUR // 2)
            chain.keep()
            chain.clock.passes(HOUR // 2)
            chain.keep()
    rows = {minute: ledger.Row.of(text) for minute, text in chain.collector._ledger._rows.items() if minute}
    now = chain.clock.wall() // MINUTE
    assert all(minute % 60 == 0 for minute in rows if minute < now - 3 * 1440 - 60)
    assert abs(len([minute for minute in rows if minute < now - 3 * 1440]) - 87 * 24) <= 1
    found = sums(chain, chain.clock.wall() / 1000 - 50 * 86400)
    assert abs(found.counts["flows"] - 50 * 24) <= 1


def test_hours_have_the_sums_of_their_minutes_also_of_what_falls(chain):
    kept = chain.collector._ledger
    for waiting in (5, 5, 5, 0):
        kept.note({"x": 1, "waiting": waiting}, {}, {})
        chain.clock.passes(HOUR)
    chain.clock.passes(4 * 24 * HOUR)
    found = sums(chain).counts
    assert all(minute % 60 == 0 for minute in list(kept._rows)[:-1])
    assert (found["x"], found["waiting"]) == (1, 0)


def test_what_is_not_the_ledgers_is_skipped(chain):
    flow(chain, 50000)
    chain.collector.state._tables["ledger"].put(17, "[]")
    chain.restart()
    assert chain.collector.state.report()["rows_skipped"] == 1
    assert sums(chain).counts["flows"] == 1


def test_a_row_is_small(chain):
    flow(chain, 50000)
    chain.clock.passes(MINUTE)
    chain.keep()
    (text,) = [text for minute, text in chain.collector._ledger._rows.items() if minute]
    row = json.loads(text)
    # A sentence for each fault that lasts: here it may say that there is no database.
    row[2]["faults"] = []
    assert len(json.dumps(row, separators=(",", ":"))) < 600
