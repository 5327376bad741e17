"""The role on a router: the lines it sends, the flows it leaves out, and the services it restarts."""

import datetime
import itertools
import json
import re
import subprocess
import time
from contextlib import contextmanager

import lab
import playbook
import pytest

#: A flow's line on the wire, as a collector has to expect it: RFC 3164, the name, ulogd's PRINTFLOW.
FLOW = re.compile(
    r"^<150>\w{3} [ \d]\d [\d:]{8} OpenWrt ulogd\[\d+\]: \[(?P<event>NEW|DESTROY)\] ORIG: SRC=(?P<source>\S+) "
    r"DST=(?P<destination>\S+) PROTO=(?P<protocol>\S+) (?:SPT=\d+ DPT=(?P<port>\d+) |TYPE=\d+ CODE=\d+ |)"
    r"PKTS=\d+ BYTES=\d+ , REPLY: .*\S$"
)
SITE = "198.18.1.80"
SETTINGS = "/etc/wrtflow/settings"
#: Seconds after which what has not come will not come, however slow the machine is.
LONG = 120


class Sent:
    """What reaches the collector's place from now on."""

    def __init__(self, port: int = 514) -> None:
        self.file = f"/run/sent.{port}"
        self.before = len(self._all())

    def _all(self) -> str:
        return lab.run("logserver", "sh", "-c", f"cat {self.file} 2>/dev/null || true")

    def lines(self) -> list[str]:
        return self._all()[self.before :].split("\n")[:-1]

    def flows(self, **wanted: str) -> list[str]:
        """Return the events of the flows of which all this is true, in their order."""
        found = [match for line in self.lines() if (match := FLOW.match(line))]
        return [flow["event"] for flow in found if all(flow[name] == value for name, value in wanted.items())]

    def line(self, pattern: str) -> str | None:
        return next((line for line in self.lines() if re.search(pattern, line)), None)

    def wait_for_line(self, pattern: str) -> str:
        return lab.wait_for(pattern, lambda: self.line(pattern), LONG)


def on_router(script: str) -> str:
    return lab.run("router", "sh", "-c", script)


def age() -> float:
    """Return the seconds since Docker has noted that the router was started, a moment afterwards."""
    started = lab.container("router").attrs["State"]["StartedAt"]
    return time.time() - datetime.datetime.fromisoformat(started).timestamp()


def fetch() -> None:
    lab.run("client", "curl", "-s", "-f", "-m", "20", "-o", "/dev/null", f"http://{SITE}:80/1000")


def restart() -> None:
    """Restart the router's own programs. Their rules go with them, and are there again when this comes back."""
    on_router("/etc/init.d/wrtflow stop")
    lab.wait_for("the rules to go", lambda: "wrtflow" not in on_router("nft list tables"), LONG)
    on_router("/etc/init.d/wrtflow start")
    lab.wait_for("the rules", lambda: "wrtflow" in on_router("nft list tables"), LONG)


@contextmanager
def other(file: str, name: str, value: int):
    """Have the router's own programs run with another value of a setting in a file."""
    on_router(f"cp -p {file} /tmp/kept; sed -i 's/^{name}=.*/{name}={value}/' {file}")
    restart()
    try:
        yield
    finally:
        on_router(f"mv /tmp/kept {file}")
        restart()


def flow_arrives() -> None:
    """A flow that a device makes now reaches the collector, from its start to its end."""
    sent = Sent()
    fetch()
    both = {"NEW", "DESTROY"}
    lab.wait_for("both ends of a flow", lambda: both <= set(sent.flows(destination=SITE, port="80")), LONG)


def flows_arrive_again() -> None:
    """Flows while the log reconnects are lost; after that, flows reach the collector."""
    sent = Sent()
    made = {"destination": SITE, "port": "80"}
    lab.wait_for("a flow", lambda: fetch() or "DESTROY" in sent.flows(**made), LONG, every=2)


def test_a_flow_s_start_and_end_reach_the_collector():
    flow_arrives()


def test_the_router_tells_what_only_it_knows():
    """All of it when its program starts."""
    sent = Sent()
    restart()
    boot = sent.wait_for_line(r" wrtflow-net: boot \S+ \d+$")
    assert int(boot.split()[-1]) <= age() + 60
    sent.wait_for_line(r" wrtflow-net: role edge$")
    networks = sent.wait_for_line(r" wrtflow-net: networks ").split(": networks ")[1].split()
    assert "10.77.0.1/24" in networks
    assert "198.18.0.1" in networks
    assert not any(item.startswith("198.18.0.1/") for item in networks)
    sent.wait_for_line(r" wrtflow-net: lease 10\.77\.0\.20 [0-9a-f:]{17} laptop$")
    sent.wait_for_line(r" wrtflow-net: neigh 10\.77\.0\.20 [0-9a-f:]{17}$")


def test_an_interface_that_another_one_has_made_is_where_its_zone_is():
    """As PPPoE's wan_6, of which the firewall's configuration does not know."""
    made = {
        "interface": "wan_6",
        "up": True,
        "l3_device": "pppoe-wan",
        "ipv6-address": [{"address": "2001:db8::2", "mask": 64}],
        "data": {"zone": "wan"},
    }
    fake = f"#!/bin/sh\necho '{json.dumps({'interface': [made]})}'\n"
    on_router("mkdir -p /tmp/dump")
    lab.put("router", "/tmp/dump/ubus", fake.encode(), mode=0o755)
    assert "\nnetworks 2001:db8::2\n" in on_router("PATH=/tmp/dump:$PATH wrtflow-net --once")


def test_a_change_of_an_interface_is_told_at_once():
    """Without hotplug it would take an hour here."""
    sent = Sent()
    with other("/usr/sbin/wrtflow-net", "EVERY", 3600):
        sent.wait_for_line(r" wrtflow-net: neigh 10\.77\.0\.20 ")
        address = "network.lan.ip6addr=fd77:0:0:9::1/64"
        on_router(f"uci add_list {address}; uci commit network; ifup lan")
        try:
            sent.wait_for_line(r" wrtflow-net: networks .*fd77:0:0:9::1/64")
        finally:
            on_router(f"uci del_list {address}; uci commit network; ifup lan")


def question_arrives() -> None:
    """A device's question that is asked now reaches the collector."""
    sent = Sent()
    lab.run("client", "dig", "+short", "-b", lab.LAPTOP, "@10.77.0.1", "news.example")
    sent.wait_for_line(rf"query\[A\] news\.example from {lab.LAPTOP}")


def questions_arrive_again() -> None:
    """Queries while the log or dnsmasq restarts are lost; after that, queries reach the collector."""
    sent = Sent()
    ask = ("dig", "+short", "+tries=1", "+time=1", "-b", lab.LAPTOP, "@10.77.0.1", "news.example")
    pattern = rf"query\[A\] news\.example from {lab.LAPTOP}"
    lab.wait_for(
        "a question",
        lambda: lab.run("client", "sh", "-c", '"$@" || true', "sh", *ask) and sent.line(pattern),
        LONG,
        every=2,
    )


def test_a_device_s_question_is_logged():
    question_arrives()


def test_loopback_and_dns_to_the_router_are_left_out_and_nothing_else():
    sent = Sent()
    ask = "dig +short +tries=1 +time=20 -b"
    lab.run(
        "client", "sh", "-ec",
        f"{ask} {lab.LAPTOP} @10.77.0.1 ntp.example; {ask} {lab.LAPTOP} +tcp @10.77.0.1 ntp.example;"
        f"{ask} {lab.LAPTOP6} @fd77:0:0:1::1 ntp.example; {ask} {lab.LAPTOP} @198.18.0.53 ntp.example;"
        f"{ask} {lab.LAPTOP6} @fd77:0:0:2::53 ntp.example; ping -q -c 1 -I {lab.LAPTOP} 10.77.0.1",
    )  # fmt: skip
    on_router(
        f"nslookup ntp.example 127.0.0.1; ping -q -c 1 127.0.0.2; ping -q -c 1 ::1; ping -q -c 1 {SITE}"
    )
    for stays in (
        {"source": lab.LAPTOP, "destination": "198.18.0.53", "port": "53"},
        {"source": lab.LAPTOP6, "destination": "fd77:0:0:2::53", "port": "53"},
        {"source": lab.LAPTOP, "destination": "10.77.0.1", "protocol": "ICMP"},
        {"source": "198.18.0.1", "destination": SITE, "protocol": "ICMP"},
        {"source": "198.18.0.1", "destination": "198.18.0.53", "port": "53"},
    ):
        lab.wait_for(f"{stays}", lambda stays=stays: "DESTROY" in sent.flows(**stays), LONG)
    for gone in ("10.77.0.1", "fd77:0:0:1::1"):
        assert sent.flows(destination=gone, port="53") == []
    for loopback in ("127.0.0.1", "127.0.0.2", "::1"):
        assert sent.flows(source=loopback) == []


# --- it mends ---------------------------------------------------------------------------------------------------------


def test_ulogd_is_started_again_where_it_died():
    sent = Sent()
    on_router("kill -9 $(pidof ulogd)")
    sent.wait_for_line("wrtflow-watch: ulogd is not running: it is started")
    lab.wait_for("ulogd", lambda: on_router("pidof ulogd || true").strip(), LONG)
    flow_arrives()


def test_the_remote_logread_is_started_again_where_it_died():
    died = on_router("cat /var/run/logread.2.pid").strip()
    on_router(f"kill -9 {died}")
    lab.wait_for(
        "another logread", lambda: on_router(f"pidof logread | tr ' ' '\n' | grep -vx {died} || true"), LONG
    )
    lab.wait_for("its connection", lambda: "514" in on_router("netstat -tn | grep ESTABLISHED || true"), LONG)
    flow_arrives()


@pytest.mark.long
def test_an_ulogd_that_logs_nothing_is_restarted():
    """It runs, but is stopped; ever more connections come meanwhile."""
    sent = Sent()
    number = itertools.count(1)

    def found() -> bool:
        lab.run(
            "client",
            "sh",
            "-c",
            f"for i in $(seq {next(number)}); do dig +short @198.18.0.53 ntp.example & done; wait",
        )
        return any("ulogd has logged nothing for 15 seconds" in line for line in sent.lines())

    with other(SETTINGS, "SILENCE", 15):
        on_router("kill -STOP $(pidof ulogd)")
        lab.wait_for("wrtflow-watch to find out", found, LONG, every=1)
        state = "cut -d' ' -f3 /proc/$(pidof ulogd)/stat || true"
        lab.wait_for("another ulogd", lambda: on_router(state).strip() in ("S", "R"), LONG)
    flow_arrives()


def test_a_grown_log_s_logreads_are_restarted_and_its_socket_stays():
    """Every size is too much here: they are restarted again and again."""
    logd = on_router("pidof logd")
    with other(SETTINGS, "LOGD_LIMIT", -1_000_000):
        told = "logread -e 'wrtflow-watch: logd had grown to [0-9]* KiB' || true"
        lab.wait_for("wrtflow-watch to find out", lambda: on_router(told), LONG)
    assert on_router("pidof logd") == logd
    flows_arrive_again()


def test_a_grown_log_gives_the_memory_back():
    """A logread that is stopped reads nothing."""
    size = "awk '/^VmRSS:/ { print $2 }' /proc/$(pidof logd)/status"
    with other(SETTINGS, "LOGD_LIMIT", 4096):
        on_router("kill -STOP $(pidof logread)")
        line = "x" * 900
        on_router(f"seq 12000 | sed 's/$/{line}/' | logger -t flood")
        told = "logread -e 'wrtflow-watch: logd had grown to [0-9]* KiB' || true"
        lab.wait_for("wrtflow-watch to find out", lambda: on_router(told), LONG)
        lab.wait_for("the memory", lambda: int(on_router(size)) < 4096, LONG)
    flows_arrive_again()


KILL_LOGD = "killed=$(pidof logd); kill -9 $killed; until pidof logd | grep -vx $killed; do sleep 1; done"


@pytest.mark.parametrize(
    "how",
    [KILL_LOGD, f"{KILL_LOGD}; {KILL_LOGD}", "/etc/init.d/log restart"],
    ids=["crash", "crashes", "restart"],
)
def test_questions_arrive_after_another_logd(how):
    """dnsmasq's jail has the former socket; after a crash logread may wait for the former logd."""
    on_router(how)
    questions_arrive_again()
    assert on_router("logread -e 'wrtflow-watch: dnsmasq logs to the socket of a logd that has ended'")


def test_every_jailed_service_is_heard_after_a_crash():
    """It says something each second, in a jail of its own."""
    lab.put(
        "router", "/etc/init.d/labjail",
        b"""#!/bin/sh /etc/rc.common
START=99
USE_PROCD=1
start_service() {
    for each in one two; do
        procd_open_instance $each
        procd_set_param command sh -c 'while sleep 1; do logger -t labjail alive; done'
        procd_add_jail labjail log
        procd_close_instance
    done
}
""", 0o755,
    )  # fmt: skip
    try:
        sent = Sent()
        on_router("/etc/init.d/labjail start")
        sent.wait_for_line("labjail: alive")
        on_router(KILL_LOGD)
        restarted = "logread -e 'wrtflow-watch: labjail logs to the socket of a logd that has ended' || true"
        lab.wait_for("wrtflow-watch to find out", lambda: on_router(restarted), LONG)
        sent = Sent()
        sent.wait_for_line("labjail: alive")
        # Once for both instances.
        assert on_router(restarted).count("\n") == 1
    finally:
        on_router("/etc/init.d/labjail stop; rm /etc/init.d/labjail")
    questions_arrive_again()


def test_after_a_reboot_all_is_as_before():
    before = on_router("wrtflow-net --once").splitlines()[0].split()[1]
    sent = Sent()
    begin = time.monotonic()
    # As on a router, whose log connects after wrtflow-net has said all for the first time: meanwhile hotplug tells of
    # each interface, of some twice.
    lab.run("logserver", "ip", "address", "del", "10.77.0.10/24", "dev", "eth0")
    try:
        lab.container("router").restart(timeout=5)
        lab.wait_for(
            "the router", lambda: lab.container("router").exec_run("/lab/ready").exit_code == 0, LONG
        )
        lab.wait_for(
            "the first time", lambda: "role edge" in on_router("logread -e 'wrtflow-net: role' || true"), LONG
        )
        time.sleep(20)
    finally:
        lab.run("logserver", "ip", "address", "add", "10.77.0.10/24", "dev", "eth0")
        lab.run("logserver", "systemctl", "restart", "lab-route")
    booted = sent.wait_for_line(r" wrtflow-net: boot \S+ \d+$").split()
    assert booted[-2] != before
    assert 40 <= int(booted[-1]) <= time.monotonic() - begin + 1
    sent.wait_for_line(r" wrtflow-net: role edge$")
    sent.wait_for_line(r" wrtflow-net: networks ")
    assert time.monotonic() - begin < 120
    flows_arrive_again()
    # The leases went with the router's memory; its devices renew them, here at once.
    lab.run("client", "pkill", "-USR1", "-f", "busybox udhcpc")
    lab.wait_for("the leases", lambda: on_router("grep laptop /tmp/dhcp.leases || true"), LONG)


def test_what_somebody_has_changed_is_put_right():
    on_router(
        "uci set system.@system[0].log_port=9999; uci set dhcp.@dnsmasq[0].logqueries=0; uci commit;"
        "echo '# changed' >>/etc/ulogd.conf; rm /etc/hotplug.d/iface/90-wrtflow; /etc/init.d/log restart"
    )
    assert [name.removeprefix("openwrt : ") for name, _ in playbook.succeeds("router")] == [
        "Ulogd is configured to log the start and the end of every flow",
        "Ulogd starts at boot and runs with its configuration",
        "The log's target is the collector",
        "The log is being sent",
        "Dnsmasq is configured to log queries",
        "Dnsmasq has its configuration where it runs",
        "The router's own programs are installed",
        "The router's own programs start at boot and run",
    ]
    flow_arrives()


def test_a_ring_of_another_size_takes_no_names_away():
    """It takes another logd, and with it another dnsmasq, as a dry run says."""
    ring = {"openwrt_log_size": 96}
    on_router("cp -p /etc/config/system /tmp/system")
    would = playbook.succeeds("router", "--check", **ring)
    assert playbook.succeeds("router", **ring) == would
    question_arrives()
    assert playbook.succeeds("router", **ring) == []
    # Exactly the former file: uci writes an option that is set again at the section's end.
    on_router("mv /tmp/system /etc/config/system; /etc/init.d/log restart")
    playbook.succeeds("router")


# --- another configuration, over ssh ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def over_ssh(tmp_path_factory):
    """Variables with which a playbook reaches the router's dropbear."""
    key = tmp_path_factory.mktemp("ssh") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    lab.put("router", "/etc/dropbear/authorized_keys", key.with_suffix(".pub").read_bytes(), mode=0o600)
    yield {
        "ansible_connection": "ssh",
        "ansible_host": "10.77.0.1",
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
    }
    on_router("rm /etc/dropbear/authorized_keys")


@pytest.fixture(scope="module")
def access_point(over_ssh):
    """An access point with JSON, DNS that is not left out and a second dnsmasq; returns what its run changed."""
    on_router(
        "uci set dhcp.guest=dnsmasq; uci set dhcp.guest.port=5353; uci set dhcp.guest.leasefile=/tmp/dhcp.leases.guest;"
        "uci commit dhcp; /etc/init.d/dnsmasq restart"
    )
    changed = playbook.succeeds(
        "router",
        **over_ssh,
        openwrt_flow_transport="json",
        openwrt_observer_role="ap",
        openwrt_leave_out=["loopback"],
        openwrt_log_hostname="attic",
    )
    yield dict(changed)
    on_router(
        "uci delete dhcp.guest; uci delete system.@system[0].log_hostname; uci commit; /etc/init.d/dnsmasq restart"
    )
    playbook.succeeds("router")
    # The packages are those of before, too: test_preflight.py counts on one that is missing.
    on_router(
        "if command -v apk; then apk del ulogd-mod-json; else opkg remove --autoremove ulogd-mod-json; fi"
    )


def test_over_ssh_without_sftp(access_point):
    assert on_router("command -v sftp-server || echo none") == "none\n"
    assert "openwrt : Ulogd and its plugins are installed" in access_point


def test_json_has_each_flow_s_start_and_its_end_with_the_kernel_s_times(access_point):
    sent = Sent(5140)
    before = time.time()
    fetch()

    def ended():
        objects = map(json.loads, sent.lines())
        told = [each for each in objects if each["dest_ip"] == SITE and each["orig.l4.dport"] == 80]
        return told if told and told[-1]["ct.event"] == 4 else None

    # An access point tells the NEW, too.
    start, flow = lab.wait_for("the flow's end", ended, LONG)
    assert (start["ct.event"], start["ct.id"]) == (1, flow["ct.id"])
    assert flow["dvc"] == "attic"
    assert flow["src_ip"] == lab.LAPTOP
    assert flow["orig.raw.pktlen"] > 0
    assert flow["reply.raw.pktlen"] > 1000
    begun, finish = (flow[f"flow.{name}.sec"] + flow[f"flow.{name}.usec"] / 1e6 for name in ("start", "end"))
    assert before <= begun < finish <= time.time()
    assert {json.loads(line)["ct.event"] for line in sent.lines()} == {1, 4}


def test_an_access_point_says_that_it_is_one(access_point):
    assert "role ap" in on_router("wrtflow-net --once")
    assert lab.run("logserver", "grep", "-c", " attic wrtflow-net: role ap$", "/run/sent.514").strip() != "0"


def test_the_leases_of_every_dnsmasq_are_told(access_point):
    on_router("echo '1 02:00:00:00:00:09 10.99.0.9 tablet *' >/tmp/dhcp.leases.guest")
    assert "\nlease 10.99.0.9 02:00:00:00:00:09 tablet\n" in on_router("wrtflow-net --once")


def test_every_dnsmasq_logs_queries(access_point):
    assert access_point["openwrt : Dnsmasq is configured to log queries"] == ["guest"]
    assert on_router("grep -l '^log-queries=extra' /var/etc/dnsmasq.conf.* | wc -l").strip() == "2"


def test_what_is_not_to_be_left_out_is_told(access_point):
    sent = Sent(5140)
    lab.run("client", "dig", "+short", "-b", lab.LAPTOP, "@10.77.0.1", "news.example")
    on_router("ping -q -c 1 127.0.0.2")
    lab.wait_for(
        "DNS to the router", lambda: [line for line in sent.lines() if '"dest_ip": "10.77.0.1"' in line], LONG
    )
    assert not [line for line in sent.lines() if "127.0.0.2" in line]
