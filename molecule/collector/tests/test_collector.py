"""Lines go in over the network as a router sends them; documents come out at the far end, over TLS and with the key."""

import json
import re
import time

import pytest
import yaml


def line(event: str, port: int, counters: tuple[int, int, int, int] = (0, 0, 0, 0)) -> str:
    """A router's line for a connection from a device to a site in Germany."""
    packets, octets, packets_back, octets_back = counters
    stamp = time.strftime("%b %e %H:%M:%S")
    return (
        f"<150>{stamp} OpenWrt ulogd[1868]: [{event}] ORIG: SRC=10.77.0.20 DST=198.18.1.80 PROTO=TCP SPT={port} DPT=443"
        f" PKTS={packets} BYTES={octets} , REPLY: SRC=198.18.1.80 DST=198.18.0.1 PROTO=TCP SPT=443 DPT={port}"
        f" PKTS={packets_back} BYTES={octets_back} "
    )


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_flow_arrives_whole(machine, transport):
    port = machine.port()
    machine.send(transport, [line("NEW", port)])
    machine.send(transport, [line("DESTROY", port, (9, 3371, 8, 1301))])
    (found,) = machine.wait("the document", lambda: machine.of_ports([port]))
    assert found["_index"] == time.strftime("network-%Y.%m", time.gmtime())
    assert found["network"]["bytes"] == 3371 + 1301
    assert found["event"]["start"] <= found["@timestamp"]
    assert found["destination"]["geo"]["country_iso_code"] == "DE"


def test_the_buffer_for_udp_is_as_large_as_the_kernel_allows(machine):
    assert "net.core.rmem_max = 4194304" in machine.run("cat", "/etc/sysctl.d/10-wrtflow.conf")
    allowed = min(4194304, int(machine.run("cat", "/proc/sys/net/core/rmem_max")))
    (buffer,) = re.findall(r"rb(\d+)", machine.run("ss", "-Hlunm", "sport", "=", ":514"))
    # The kernel doubles what a program asks for.
    assert int(buffer) == 2 * allowed


def test_a_document_comes_within_a_second_or_two(machine):
    """One of them, at least: a machine may be slow, but the collector waits for nothing."""

    def soon() -> bool:
        port = machine.port()
        machine.send("tcp", [line("NEW", port), line("DESTROY", port, (1, 60, 1, 60))])
        begin = time.monotonic()
        machine.wait("the document", lambda: machine.of_ports([port]))
        return time.monotonic() - begin < 3

    machine.wait("a document so soon", soon)


# 127.0.0.1 is none of the allowed networks. Opens connections and keeps them; prints how many came through.
CALL = """
import socket, sys
address, number = sys.argv[1], int(sys.argv[2])
held = []
try:
    for _ in range(number):
        held.append(socket.create_connection((address, 514), timeout=1))
except TimeoutError:
    pass
print(len(held), flush=True)
sys.stdin.read()
"""


def faults(machine) -> str:
    return "\n".join(machine.health()["faults"])


@pytest.fixture
def no_firewall(machine):
    """Take the table away for a test."""
    machine.run("systemctl", "stop", "wrtflow-firewall")
    yield
    machine.run("systemctl", "start", "wrtflow-firewall")


def test_a_stranger_gets_no_connection_and_is_told(machine):
    assert machine.run("python3", "-c", CALL, "127.0.0.1", "1", stdin=b"").strip() == "0"
    assert "127.0.0.1" in faults(machine)
    assert "syslog_ng_allowed_routers" in faults(machine)


def test_a_router_does_not_use_up_the_connections(machine):
    assert machine.run("python3", "-c", CALL, "10.77.0.10", "40", stdin=b"").strip() == "16"
    assert "10.77.0.10 wanted too many connections" in faults(machine)
    machine.wait("the connections are closed", lambda: machine.health()["connections"]["now"] < 10)


@pytest.mark.parametrize(
    "command", ["nft flush ruleset", "systemctl restart nftables", "nft delete table inet wrtflow"]
)
def test_whatever_empties_the_ruleset_the_table_is_back(machine, command):
    machine.run("nft", "add", "table", "inet", "somebody")
    machine.run(*command.split())
    machine.wait("the table is there", lambda: "inet wrtflow" in machine.run("nft", "list", "tables"))
    machine.run("sh", "-c", "systemctl stop nftables; nft destroy table inet somebody")


@pytest.mark.usefixtures("no_firewall")
def test_without_a_firewall_nobody_but_routers_is_heard(machine):
    strange, known = machine.port(), machine.port()
    assert "the ports are open to everybody" in faults(machine)
    machine.send("tcp", [line("DESTROY", strange, (1, 60, 1, 60))], address="127.0.0.1")
    machine.send("tcp", [line("DESTROY", known, (1, 60, 1, 60))])
    machine.wait("the router's document", lambda: machine.of_ports([known]))
    assert machine.of_ports([strange]) == []
    # But it can be seen that somebody tries.
    machine.wait("it is counted", lambda: machine.told("senders", "strangers"))


def test_bad_settings_are_told_all_at_once(machine):
    settings = json.loads(machine.run("cat", "/etc/syslog-ng/wrtflow/settings.json"))
    assert machine.run("wrtflow", "check") == ""
    bad = json.dumps(settings | {"left_out": ["laptop"], "flow_timeout": -1})
    told = machine.run("sh", "-c", "wrtflow check /dev/stdin 2>&1", check=False, stdin=bad.encode())
    assert [said.split(" is ")[0] for said in told.splitlines()] == [
        "wrtflow: /dev/stdin: left_out[0]",
        "wrtflow: /dev/stdin: flow_timeout",
    ]


def test_the_machine_s_own_logs_go_on(machine):
    """The unit may write them, as Debian's configuration does: with their modes, also a new one."""
    machine.run("rm", "-f", "/var/log/user.log")
    machine.run("systemctl", "reload", "syslog-ng")
    machine.run("logger", "-p", "user.notice", "own-logs-go-on")
    machine.wait("the line", lambda: "own-logs-go-on" in machine.run("cat", "/var/log/user.log", check=False))
    assert machine.run("stat", "-c", "%a %U %G", "/var/log/user.log").strip() == "640 root adm"


def test_the_unit_has_few_rights(machine):
    told = machine.run("systemd-analyze", "security", "--no-pager", "syslog-ng").splitlines()[-1]
    assert float(told.split(": ")[1].split()[0]) < 2.5, told


def test_open_flows_survive_a_restart(machine):
    port = machine.port()
    machine.send("tcp", [line("NEW", port)])
    machine.wait("the flow is on disk", lambda: f"SPT={port} " in machine.kept())
    machine.restart()
    machine.send("tcp", [line("DESTROY", port, (1, 60, 1, 60))])
    (found,) = machine.wait("the document", lambda: machine.of_ports([port]))
    assert "start" in found["event"]


def test_every_field_is_in_the_contract(machine, golden):
    contract = yaml.safe_load((golden.parents[1] / "files/flow-document.yml").read_text())["flow_fields"]
    fields = {field["name"] for field in contract}
    always = {field["name"] for field in contract if field.get("always")}

    def flat(value: dict, name: str = ""):
        for key, inner in value.items():
            whole = f"{name}{key}"
            if isinstance(inner, dict) and whole not in fields:
                yield from flat(inner, f"{whole}.")
            else:
                yield whole

    documents = list(machine.documents().values())
    documents += [
        found for path in golden.glob("*.json") for found in json.loads(path.read_text())["documents"]
    ]
    assert documents
    for document in documents:
        have = {name for name in flat(document) if not name.startswith("_")}
        assert have <= fields
        assert always <= have


def test_the_settings_have_their_modes(machine):
    modes = machine.run(
        "stat",
        "-c",
        "%a %U",
        "/etc/syslog-ng/wrtflow/collector.api-key",
        "/var/lib/wrtflow",
        "/var/log/wrtflow",
    )
    assert modes.split("\n")[:3] == ["600 root", "700 root", "750 root"]
