"""Accidents: Elasticsearch or its answers are away, the key is refused, a kill -9. Nothing is lost or doubled."""

import itertools
import time

import pytest
from test_collector import line, of_port

KEY = "/etc/syslog-ng/wrtflow/collector.api-key"
# Each flow of this module has a port of its own.
PORTS = itertools.count(1024 + int(time.time()) % 15000)
COUNTERS = (9, 3371, 8, 1301)


@pytest.fixture
def double(machine):
    """The double of Elasticsearch, behaving as it should again afterwards."""
    yield machine.behave
    start(machine)
    machine.behave({})


def start(machine) -> None:
    """Have the double up."""
    machine.run("systemctl", "start", "bulk")
    machine.wait("the double listens", lambda: machine.listens(9200))


def flows(count: int) -> tuple[list[int], list[str]]:
    """Ports of so many flows, and their lines."""
    ports = list(itertools.islice(PORTS, count))
    return ports, [text for port in ports for text in (line("NEW", port), line("DESTROY", port, COUNTERS))]


def arrived(machine, ports: list[int]) -> list[dict]:
    """The documents of these flows, when all are there."""
    wanted = set(ports)
    found = [
        document for document in machine.documents().values() if document["source"].get("port") in wanted
    ]
    return found if {document["source"]["port"] for document in found} == wanted else []


def test_elasticsearch_away_loses_nothing_and_doubles_nothing(machine, double):
    ports = []
    machine.run("systemctl", "stop", "bulk")
    begin = time.monotonic()
    while time.monotonic() - begin < 12:
        some, lines = flows(100)
        ports += some
        sending = time.monotonic()
        machine.send("tcp", lines)
        # A router is never held back.
        assert time.monotonic() - sending < 3
    waiting = machine.wait("what waits is told", lambda: machine.health().get("queue", {}).get("waiting"))
    queue = machine.health()["queue"]
    assert any("wait" in fault for fault in machine.health()["faults"])
    # An hour with 100 flows a second has room.
    assert queue["capacity"] / (queue["bytes"] / queue["waiting"]) > 3600 * 100
    assert waiting > 0
    start(machine)
    found = machine.wait("all flows", lambda: arrived(machine, ports), 60)
    assert len(found) == len(ports)
    assert {document["network"]["bytes"] for document in found} == {3371 + 1301}
    assert machine.health()["queue"]["dropped"] == 0


def test_a_kill_loses_neither_open_flows_nor_what_waits(machine, double):
    ended, lines = flows(20)
    opened = list(itertools.islice(PORTS, 20))
    double({"status": 503})
    machine.send("tcp", lines + [line("NEW", port) for port in opened])
    machine.wait("they wait", lambda: machine.health().get("queue", {}).get("waiting", 0) >= 1)
    # What was opened in the last second may be missing after a kill.
    machine.wait("they are on disk", lambda: machine.kept() >= len(opened))
    before = machine.main_pid()
    machine.run("kill", "-9", before)
    machine.wait("it runs again", lambda: machine.main_pid() not in ("0", before))
    double({})
    machine.wait("it listens", lambda: machine.listens(514))
    machine.send("tcp", [line("DESTROY", port, COUNTERS) for port in opened])
    found = machine.wait("all flows", lambda: arrived(machine, ended + opened), 60)
    assert len(found) == len(ended + opened)
    assert all("start" in document["event"] for document in found)


def test_a_refused_key_holds_flows_until_the_right_one_is_there(machine, double):
    right = machine.run("cat", KEY).encode()
    (port,), lines = flows(1)
    try:
        machine.put(KEY, b"of a storage that is no more")
        machine.send("tcp", lines)
        machine.wait("401 is told", lambda: any("401" in fault for fault in machine.health()["faults"]))
        assert of_port(machine, port) == []
    finally:
        machine.put(KEY, right)
    # Without a restart, and long before the longest pause ends.
    assert len(machine.wait("the flow", lambda: of_port(machine, port), 10)) == 1


def test_an_answer_that_is_lost_doubles_nothing(machine, double):
    (port,), lines = flows(1)
    before = machine.health()["delivery"]["duplicates"]
    double([{"cut": "after"}, {}])
    machine.send("tcp", lines)
    machine.wait("it was sent again", lambda: machine.health()["delivery"]["duplicates"] > before, 30)
    assert len(of_port(machine, port)) == 1


def test_a_doubled_destroy_counts_once(machine, double):
    (port,), lines = flows(1)
    before = machine.health()["delivery"]["duplicates"]
    machine.send("tcp", [*lines, lines[-1]])
    machine.wait(
        "the second was there already", lambda: machine.health()["delivery"]["duplicates"] > before, 30
    )
    assert len(of_port(machine, port)) == 1


def test_what_is_refused_is_kept_and_can_be_sent_again(machine, double):
    (port,), lines = flows(1)
    double({"item": 400, "type": "document_parsing_exception", "match": f'"port":{port},'})
    machine.send("tcp", lines)
    machine.wait(
        "it is in the spool",
        lambda: f'"port":{port},' in machine.run("sh", "-c", "wrtflow spool list --json").replace("\\", ""),
    )
    double({})
    machine.run("wrtflow", "spool", "resend")
    assert len(of_port(machine, port)) == 1
    assert machine.run("wrtflow", "spool", "list") == ""
