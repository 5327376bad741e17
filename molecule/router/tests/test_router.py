"""The role on a router: what it sends, that it mends, and its modules on real uci, jshn and procd."""

import json
import re
from pathlib import Path

import lab
import pytest

MODULES = Path(__file__).parents[3] / "roles/openwrt/library"

#: A flow's line on the wire, as a collector has to expect it: RFC 3164, the name, ulogd's PRINTFLOW.
FLOW = re.compile(
    r"^<150>\w{3} [ \d]\d [\d:]{8} OpenWrt ulogd\[\d+\]: \[(?P<event>NEW|DESTROY)\] ORIG: SRC=(?P<source>\S+) "
    r"DST=(?P<destination>\S+) PROTO=TCP SPT=\d+ DPT=(?P<port>\d+) PKTS=(?P<packets>\d+) BYTES=\d+ , REPLY: .* $"
)


def sent() -> list[str]:
    """Return the lines that have reached the collector's place."""
    return lab.run("logserver", "cat", "/run/lines").split("\n")


def sent_flows(port: int) -> list[str]:
    """Return the events of the flows to a port that have reached the collector's place."""
    return [match["event"] for line in sent() if (match := FLOW.match(line)) and match["port"] == str(port)]


def module(name: str, /, **arguments) -> dict:
    """Run a module of the role on the router, as Ansible does, and return its answer."""
    lab.put("router", "/tmp/module.sh", (MODULES / f"{name}.sh").read_bytes())
    lab.put("router", "/tmp/module.json", json.dumps(arguments).encode())
    return json.loads(lab.run("router", "sh", "/tmp/module.sh", "/tmp/module.json"))


def fetch(port: int) -> None:
    lab.run(
        "client", "curl", "--silent", "--fail", "--output", "/dev/null", f"http://198.18.1.80:{port}/1000"
    )


def test_a_flow_s_start_and_end_reach_the_collector():
    fetch(80)
    lab.wait_for("NEW and DESTROY on the wire", lambda: {"NEW", "DESTROY"} <= set(sent_flows(80)), 15)


def test_the_router_tells_its_networks_and_its_devices():
    lab.wait_for(
        "networks", lambda: [line for line in sent() if "wrtflow-net" in line and ": networks " in line], 40
    )
    networks = next(line for line in sent() if ": networks " in line).split(": networks ")[1].split()
    assert "10.77.0.1/24" in networks
    assert "198.18.0.1" in networks
    assert not any(item.startswith("198.18.0.1/") for item in networks)
    assert any(re.search(r": lease 10\.77\.0\.20 [0-9a-f:]{17} laptop$", line) for line in sent())


def test_a_device_s_question_is_logged():
    lab.run("client", "dig", "+short", "-b", lab.LAPTOP, "@10.77.0.1", "news.example")
    lab.wait_for(
        "the query in the log",
        lambda: [line for line in sent() if f"query[A] news.example from {lab.LAPTOP}" in line],
        15,
    )


def test_ulogd_is_started_again_where_it_died():
    lab.run("router", "sh", "-c", "kill -9 $(pidof ulogd)")
    lab.wait_for("ulogd", lambda: lab.run("router", "sh", "-c", "pidof ulogd || true").strip(), 60)
    fetch(8080)
    lab.wait_for("a flow after ulogd's death", lambda: "DESTROY" in sent_flows(8080), 15)


def test_the_remote_logread_is_started_again_where_it_died():
    died = lab.run("router", "cat", "/var/run/logread.2.pid").strip()
    lab.run("router", "kill", "-9", died)
    lab.wait_for(
        "another logread",
        lambda: lab.run(
            "router", "sh", "-c", f"pidof logread | tr ' ' '\\n' | grep -vx {died} || true"
        ).strip(),
        60,
    )


# --- the modules ----------------------------------------------------------------------------------------------------

ODD = [
    "two words",
    "it's",
    'a "quoted" one',
    "$HOME `id` \\n",
    "Zürich 東京",
    "semi;colon & pipe|",
    "-n",
    "#no comment",
]


@pytest.fixture
def config():
    lab.put("router", "/etc/config/labtest", b"config thing 'one'\n\toption kept 'as it was'\n")
    yield {"config": "labtest", "section": "one"}
    lab.run("router", "rm", "-f", "/etc/config/labtest")


@pytest.mark.parametrize("value", ODD)
def test_uci_keeps_odd_values(config, value):
    assert module("openwrt_uci", **config, options={"odd": value})["changed"]
    assert lab.run("router", "uci", "get", "labtest.one.odd") == value + "\n"
    assert not module("openwrt_uci", **config, options={"odd": value})["changed"]
    assert lab.run("router", "uci", "get", "labtest.one.kept") == "as it was\n"
    assert lab.run("router", "uci", "changes") == ""


def test_uci_keeps_lists_and_removes(config):
    assert module("openwrt_uci", **config, options={"list": ODD})["changed"]
    assert not module("openwrt_uci", **config, options={"list": ODD})["changed"]
    assert module("openwrt_uci", **config, options={"list": ODD[:1]})["changed"]
    assert lab.run("router", "uci", "-d", "|", "get", "labtest.one.list").strip("'\n") == ODD[0]
    assert module("openwrt_uci", **config, options={"list": None})["changed"]
    assert not module("openwrt_uci", **config, options={"list": None})["changed"]
    assert "list" not in lab.run("router", "uci", "show", "labtest")


def test_uci_in_check_mode_changes_nothing_and_shows_what_it_would(config):
    answer = module("openwrt_uci", **config, options={"kept": "new"}, _ansible_check_mode=True)
    assert answer["changed"]
    assert answer["diff"]["before"] == "kept='as it was'\n"
    assert answer["diff"]["after"] == "kept='new'\n"
    assert lab.run("router", "uci", "get", "labtest.one.kept") == "as it was\n"


def test_uci_refuses_what_is_not_there(config):
    assert "no section" in module("openwrt_uci", config="labtest", section="two", options={"a": "b"})["msg"]
    assert (
        "no /etc/config/nothing"
        in module("openwrt_uci", config="nothing", section="x", options={"a": "b"})["msg"]
    )
    lab.run("router", "uci", "set", "labtest.one.somebody=else")
    answer = module("openwrt_uci", **config, options={"a": "b"})
    assert answer["failed"]
    assert "uncommitted" in answer["msg"]
    lab.run("router", "uci", "revert", "labtest")


def test_file_content_mode_and_absence():
    content = "\n".join(ODD) + "\n\n"
    path = {"dest": "/tmp/labtest/file"}
    assert module("openwrt_file", **path, content=content, _ansible_check_mode=True)["changed"]
    assert lab.run("router", "sh", "-c", "ls /tmp/labtest 2>/dev/null || echo none") == "none\n"
    assert module("openwrt_file", **path, content=content, mode="0640")["changed"]
    assert lab.run("router", "cat", path["dest"]) == content
    assert lab.run("router", "ls", "-l", path["dest"]).startswith("-rw-r-----")
    assert not module("openwrt_file", **path, content=content, mode="0640")["changed"]
    assert module("openwrt_file", **path, content=content, mode="0755")["changed"]
    assert module("openwrt_file", **path, state="absent")["changed"]
    assert not module("openwrt_file", **path, state="absent")["changed"]
    assert module("openwrt_file", dest="/tmp", content="x")["failed"]


def test_service_knows_who_runs_and_whose_configuration_is_newer():
    assert not module("openwrt_service", name="ulogd", enabled=True, state="started")["changed"]
    lab.run("router", "/etc/init.d/ulogd", "stop")
    assert module("openwrt_service", name="ulogd", state="started", _ansible_check_mode=True)["changed"]
    assert module("openwrt_service", name="ulogd", state="started")["changed"]
    lab.run("router", "touch", "-d", "2037-01-01 00:00:00", "/tmp/newer")
    assert module("openwrt_service", name="ulogd", state="started", config=["/tmp/newer"])["did"] == "restart"
    assert not module("openwrt_service", name="ulogd", state="started", config=["/etc/ulogd.conf"])["changed"]
    assert "no /etc/init.d/nothing" in module("openwrt_service", name="nothing", state="started")["msg"]


def test_service_says_when_one_does_not_stay_up():
    good = lab.run("router", "cat", "/etc/ulogd.conf")
    try:
        lab.put("router", "/etc/ulogd.conf", b"[global]\n")
        answer = module("openwrt_service", name="ulogd", state="started", renewed=True)
        assert answer["failed"]
        assert "does not stay up" in answer["msg"]
    finally:
        lab.put("router", "/etc/ulogd.conf", good.encode())
        module("openwrt_service", name="ulogd", state="started", renewed=True)


def test_sysctl_is_set_now_and_kept():
    name, file = "net.netfilter.nf_conntrack_icmp_timeout", "/tmp/labtest.conf"
    former = lab.run("router", "cat", "/proc/sys/net/netfilter/nf_conntrack_icmp_timeout").strip()
    assert module("openwrt_sysctl", name=name, value="29", file=file, _ansible_check_mode=True)["changed"]
    assert module("openwrt_sysctl", name=name, value="29", file=file)["changed"]
    assert lab.run("router", "cat", "/proc/sys/net/netfilter/nf_conntrack_icmp_timeout") == "29\n"
    assert not module("openwrt_sysctl", name=name, value="29", file=file)["changed"]
    assert module("openwrt_sysctl", name=name, value=former, file=file)["changed"]
    assert module("openwrt_sysctl", name=name, file=file, state="absent")["changed"]
    assert module("openwrt_sysctl", name="net.nothing.of_that", value="1", file=file)["failed"]


def test_package_explains_what_is_not_in_the_feed():
    assert not module("openwrt_package", name=["ulogd"])["changed"]
    assert module("openwrt_package", name=["ulogd-mod-xml"], _ansible_check_mode=True)["changed"]
    assert module("openwrt_package", name=["ulogd-mod-xml"])["changed"]
    assert not module("openwrt_package", name=["ulogd-mod-xml"])["changed"]
    assert module("openwrt_package", name=["ulogd-mod-xml"], state="absent")["changed"]
    answer = module("openwrt_package", name=["no-such-package"])
    assert answer["failed"]
    assert "no-such-package" in answer["msg"]
