"""Lines go in over the network as a router sends them; documents come out at the far end, over TLS and with the key."""

import json
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
    assert found["event"]["start"] <= found["event"]["end"]
    assert found["destination"]["geo"]["country_iso_code"] == "DE"


def test_a_document_comes_within_a_second_or_two(machine):
    """One of them, at least: a machine may be slow, but the collector waits for nothing."""

    def soon() -> bool:
        port = machine.port()
        machine.send("tcp", [line("NEW", port), line("DESTROY", port, (1, 60, 1, 60))])
        begin = time.monotonic()
        machine.wait("the document", lambda: machine.of_ports([port]))
        return time.monotonic() - begin < 3

    machine.wait("a document so soon", soon)


def test_nobody_but_routers_is_heard(machine):
    """127.0.0.1 is none of the allowed networks."""
    strange, known = machine.port(), machine.port()
    machine.send("tcp", [line("DESTROY", strange, (1, 60, 1, 60))], address="127.0.0.1")
    machine.send("tcp", [line("DESTROY", known, (1, 60, 1, 60))])
    machine.wait("the router's document", lambda: machine.of_ports([known]))
    assert machine.of_ports([strange]) == []
    # But it can be seen that somebody tries.
    machine.wait("it is counted", lambda: machine.told("senders", "strangers"))


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
