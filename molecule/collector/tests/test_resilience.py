"""Accidents: Elasticsearch or its answers are away, the key is refused, a kill -9. Nothing is lost or doubled."""

import time

import pytest
from test_collector import line

KEY = "/etc/syslog-ng/wrtflow/collector.api-key"
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


def flows(machine, count: int) -> tuple[list[int], list[str]]:
    """Ports of so many flows, and their lines."""
    ports = [machine.port() for _ in range(count)]
    return ports, [text for port in ports for text in (line("NEW", port), line("DESTROY", port, COUNTERS))]


def test_elasticsearch_away_loses_nothing_and_doubles_nothing(machine, double):
    before = machine.told("flows", "flows")
    machine.run("systemctl", "stop", "bulk")
    ports, lines = flows(machine, 1000)
    machine.send("tcp", lines)
    # A router is never held back.
    machine.wait("all lines are taken", lambda: machine.told("flows", "flows") >= before + len(ports))
    machine.wait(
        "it is told", lambda: any("documents are queued" in fault for fault in machine.health()["faults"])
    )
    queue = machine.wait("what waits is told", lambda: machine.health().get("queue"))
    # An hour with 100 flows a second has room.
    assert queue["capacity"] / (queue["bytes"] / queue["waiting"]) > 3600 * 100
    start(machine)
    found = machine.wait("all flows", lambda: machine.of_ports(ports))
    assert len(found) == len(ports)
    assert {document["network"]["bytes"] for document in found} == {3371 + 1301}
    queue = machine.wait("what waits is told", lambda: machine.health().get("queue"))
    assert queue["dropped"] == 0


def test_a_kill_loses_neither_open_flows_nor_what_waits(machine, double):
    ended, lines = flows(machine, 20)
    opened = [machine.port() for _ in range(20)]
    double({"status": 503})
    machine.send("tcp", lines + [line("NEW", port) for port in opened])
    machine.wait("they wait", lambda: machine.told("queue", "waiting"))
    # What was opened in the last second may be missing after a kill.
    machine.wait("they are on disk", lambda: f"SPT={opened[-1]} " in machine.kept())
    before = machine.main_pid()
    machine.run("kill", "-9", before)
    machine.wait("it runs again", lambda: machine.main_pid() not in ("0", before))
    double({})
    machine.wait("it listens", lambda: machine.listens(514))
    machine.send("tcp", [line("DESTROY", port, COUNTERS) for port in opened])
    found = machine.wait("all flows", lambda: machine.of_ports(ended + opened))
    assert len(found) == len(ended + opened)
    assert all("start" in document["event"] for document in found)


def test_a_refused_key_holds_flows_until_the_right_one_is_there(machine, double):
    right = machine.run("cat", KEY).encode()
    (port,), lines = flows(machine, 1)
    try:
        machine.put(KEY, b"of a storage that is no more")
        # The key is read with each new connection.
        machine.run("systemctl", "restart", "bulk")
        machine.wait("the double listens", lambda: machine.listens(9200))
        machine.send("tcp", lines)
        machine.wait("401 is told", lambda: any("401" in fault for fault in machine.health()["faults"]))
        assert machine.of_ports([port]) == []
    finally:
        machine.put(KEY, right)
    # Without a restart.
    assert len(machine.wait("the flow", lambda: machine.of_ports([port]))) == 1


def test_an_answer_that_is_lost_doubles_nothing(machine, double):
    (port,), lines = flows(machine, 1)
    before = machine.told("delivery", "duplicates")
    double([{"cut": "after"}, {}])
    machine.send("tcp", lines)
    machine.wait("it was sent again", lambda: machine.told("delivery", "duplicates") > before)
    assert len(machine.of_ports([port])) == 1


def test_a_doubled_destroy_counts_once(machine, double):
    (port,), lines = flows(machine, 1)
    before = machine.told("delivery", "duplicates")
    machine.send("tcp", [*lines, lines[-1]])
    machine.wait("the second was there already", lambda: machine.told("delivery", "duplicates") > before)
    assert len(machine.of_ports([port])) == 1


def spooled(machine) -> str:
    """Return what is in the spool."""
    return machine.run("sh", "-c", "wrtflow spool list --json").replace("\\", "")


def test_what_is_refused_is_kept_and_can_be_sent_again(machine, double):
    # One that is taken shows that the index is right, and the document is not.
    (bad, good), lines = flows(machine, 2)
    double({"item": 400, "type": "document_parsing_exception", "match": f'"port":{bad},'})
    machine.send("tcp", lines)
    machine.wait("it is in the spool", lambda: f'"port":{bad},' in spooled(machine))
    assert f'"port":{good},' not in spooled(machine)
    double({})
    machine.run("wrtflow", "spool", "resend")
    assert len(machine.of_ports([bad, good])) == 2
    assert machine.run("wrtflow", "spool", "list") == ""


@pytest.mark.parametrize("fault", ["blocked", "closed", "no pipeline", "no shard"])
def test_an_index_that_is_at_fault_fills_no_spool(machine, double, fault):
    ports, lines = flows(machine, 20)
    double({"item": fault})
    machine.send("tcp", lines)
    machine.wait("it is told", lambda: any("network-20" in fault for fault in machine.health()["faults"]))
    assert machine.run("wrtflow", "spool", "list") == ""
    double({})
    assert len(machine.wait("all flows", lambda: machine.of_ports(ports))) == len(ports)


def test_an_answer_that_drips_holds_no_stop(machine, double):
    (port,), lines = flows(machine, 1)
    double([{"drip": 1, "bytes": 3600}, {}])
    machine.send("tcp", lines)
    machine.wait("it is under way", lambda: machine.of_ports([port]))
    begun = time.monotonic()
    machine.run("systemctl", "restart", "syslog-ng")
    assert time.monotonic() - begun < 60
    assert len(machine.of_ports([port])) == 1
