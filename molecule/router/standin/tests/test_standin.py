"""The stand-in for OpenWrt behaves as the real one was seen to (molecule/doubles/openwrt), in both flavours.

Each test gets a router of its own, without a network: what roles/openwrt did to the lab's router does not matter here.
"""

import ast
import re
import subprocess
import time
import uuid
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

IMAGES = Path(__file__).parents[3] / "images"
RIGHTS = [
    *("--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "--cap-add", "SYS_ADMIN", "--cap-add", "SYSLOG"),
    *("--security-opt", "systempaths=unconfined", "--security-opt", "seccomp=unconfined"),
    *("--security-opt", "apparmor=unconfined"),
]
FLOWS = """
[global]
logfile="syslog"
plugin="/usr/lib/ulogd/ulogd_inpflow_NFCT.so"
plugin="/usr/lib/ulogd/ulogd_filter_IP2STR.so"
plugin="/usr/lib/ulogd/ulogd_filter_PRINTFLOW.so"
plugin="/usr/lib/ulogd/ulogd_output_SYSLOG.so"
stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,sys1:SYSLOG
[ct1]
hash_enable=0
"""
# Prints what it gets, one read (TCP) or datagram (UDP) a line, as Python literals; "stalled" accepts and never reads.
RECEIVER = """
import socket, sys, time
kind = sys.argv[1]
if kind == "udp":
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 514))
    print("ready", flush=True)
    while True:
        print(sock.recv(65536), flush=True)
server = socket.create_server(("127.0.0.1", 514))
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    if kind == "stalled":
        time.sleep(600)
    while data := connection.recv(65536):
        print(data, flush=True)
"""


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


def until(condition, seconds: float = 60):
    """Return the condition's first true value; fail after so many seconds."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not true within {seconds} s"
        time.sleep(0.1)
    return value


class Router:
    def __init__(self, flavour: str) -> None:
        self.flavour = flavour
        self.name = f"standin-{uuid.uuid4().hex[:8]}"
        docker(
            *("run", "--detach", "--name", self.name, "--label", "wrtflow=lab", "--network", "none"),
            *("--sysctl", "net.ipv6.conf.all.disable_ipv6=0", *RIGHTS),
            *(f"wrtflow-lab/openwrt-{flavour}", "/sbin/init"),
        )
        until(self.booted)

    def booted(self) -> bool:
        return self.run("test -e /var/run/booted")[0] == 0

    def run(self, script: str) -> tuple[int, str]:
        done = subprocess.run(
            ["docker", "exec", self.name, "sh", "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout

    def get(self, script: str) -> str:
        code, output = self.run(script)
        assert code == 0, f"{script}: {code}\n{output}\n{self.run('logread')[1]}"
        return output.strip("\n")

    def install(self, *packages: str) -> str:
        return self.get(
            {"opkg": "opkg update; opkg install ", "apk": "apk add "}[self.flavour] + " ".join(packages)
        )

    def remove(self, *packages: str) -> str:
        return self.get({"opkg": "opkg remove ", "apk": "apk del "}[self.flavour] + " ".join(packages))

    def instance(self, service: str, path: str) -> str:
        found = f"ubus call service list '{{\"name\":\"{service}\"}}' | jsonfilter -e '@.{service}.instances.{path}'"
        return self.run(found)[1].strip()

    def service(self, name: str, *parameters: str) -> None:
        """Write an init script with one instance of these procd parameters, and start it."""
        lines = "\n".join(f"procd_set_param {line}" for line in parameters)
        script = f"""#!/bin/sh /etc/rc.common
START=99
USE_PROCD=1
start_service() {{
    procd_open_instance one
    {lines}
    procd_close_instance
}}
"""
        self.get(
            f"cat >/etc/init.d/{name} <<'END'\n{script}\nEND\nchmod +x /etc/init.d/{name}; /etc/init.d/{name} start"
        )

    def send_log(self, **options: str) -> None:
        """Set system.@system[0].log_* and restart the log; comes back when logread has connected."""
        options = {"ip": "127.0.0.1", **options}
        settings = "; ".join(f"uci set system.@system[0].log_{key}={value}" for key, value in options.items())
        self.get(f"{settings}; uci commit; /etc/init.d/log restart")
        until(lambda: "Logread connected to 127.0.0.1:514" in self.get("logread"))


class Receiver:
    """A syslog receiver at the router's 127.0.0.1:514, as long as its context is open."""

    def __init__(self, router: Router, kind: str) -> None:
        self.arguments = (f"container:{router.name}", "wrtflow-lab/peer", "python3", "-c", RECEIVER, kind)

    def __enter__(self):
        self.id = docker("run", "--detach", "--label", "wrtflow=lab", "--network", *self.arguments).strip()
        until(lambda: "ready" in docker("logs", self.id))
        return self

    def __exit__(self, *_: object) -> None:
        docker("rm", "--force", "--volumes", self.id)

    def reads(self) -> list[bytes]:
        _ready, *lines, _unfinished = docker("logs", self.id).split("\n")
        return [ast.literal_eval(line) for line in lines]

    def all(self) -> bytes:
        return b"".join(self.reads())


@pytest.fixture(scope="session")
def images():
    subprocess.run([IMAGES / "build.sh", "openwrt-opkg", "openwrt-apk", "peer"], check=True)


@pytest.fixture(params=["opkg", "apk"])
def router(request, images):
    made = Router(request.param)
    yield made
    docker("rm", "--force", "--volumes", made.name)


@pytest.fixture
def opkg_router(images):
    made = Router("opkg")
    yield made
    docker("rm", "--force", "--volumes", made.name)


# --- a router fresh from the factory ---------------------------------------------------------------------------------


def test_nothing_is_there_that_a_stock_router_lacks(router):
    absent = "python3 perl bash dpkg base64 hostname sha1sum stat timeout diff ulogd sftp-server scp"
    assert router.run(f"which {absent}")[1] == ""
    assert router.run("ls /etc/ulogd.conf /usr/lib/ulogd /etc/init.d/ulogd 2>/dev/null")[1] == ""
    assert router.get("readlink -f /bin/sh") == "/usr/bin/busybox"


def test_release_and_defaults(router):
    release, size = {"opkg": ("23.05.5", "64"), "apk": ("25.12.0", "128")}[router.flavour]
    assert router.get(". /etc/os-release; echo $VERSION") == release
    assert (
        router.get("ubus call system board | jsonfilter -e @.release.version -e @.hostname")
        == f"{release}\nOpenWrt"
    )
    assert router.get("uci get system.@system[0].log_size") == size
    assert router.get("cat /proc/sys/net/netfilter/nf_conntrack_acct") == "1"
    assert router.get("cat /proc/sys/net/netfilter/nf_conntrack_timestamp") == "0"
    assert router.get("which opkg apk; true") == f"/usr/bin/{router.flavour}"


# --- packages --------------------------------------------------------------------------------------------------------


def test_a_package_brings_its_needs_and_is_enabled_and_started_and_fails_as_stock(router):
    router.install("ulogd-mod-nfct", "ulogd-mod-syslog", "ulogd-mod-extra")
    assert router.run("/etc/init.d/ulogd enabled")[0] == 0
    assert router.get("ls /usr/lib/ulogd | wc -l") == "17"
    assert router.get("grep -c '^[ ]*\\(plugin\\|stack\\)=' /etc/ulogd.conf || true") == "0"
    # Unedited it ends at once; `status` has not noticed, the service list has.
    until(lambda: router.instance("ulogd", "instance1.running") == "false")
    assert router.instance("ulogd", "instance1.exit_code") == "1"
    assert router.get("/etc/init.d/ulogd status") == "running"
    assert router.instance("ulogd", "instance1.respawn") == ""


def test_removal_leaves_the_list_of_packages_as_it_was(router):
    listed = {"opkg": "opkg list-installed", "apk": "apk info; cat /etc/apk/world"}[router.flavour]
    before = router.get(listed), router.get("find /etc /usr /lib -type f | grep -v -e opkg -e lib/apk | sort")
    router.install("ulogd", "ulogd-mod-nfct")
    assert router.get(listed) != before[0]
    router.remove(*(["--autoremove"] if router.flavour == "opkg" else []), "ulogd-mod-nfct", "ulogd")
    assert before == (
        router.get(listed),
        router.get("find /etc /usr /lib -type f | grep -v -e opkg -e lib/apk | sort"),
    )
    assert router.run("ls /etc/rc.d | grep ulogd")[1] == ""


def test_a_changed_configuration_file_stays(router):
    router.install("ulogd")
    router.get("echo '# mine' >>/etc/ulogd.conf")
    router.remove("ulogd")
    assert router.get("tail -n 1 /etc/ulogd.conf") == "# mine"
    router.install("ulogd")
    assert router.get("tail -n 1 /etc/ulogd.conf") == "# mine"
    suffix = {"opkg": "-opkg", "apk": ".apk-new"}[router.flavour]
    assert router.run(f"test -s /etc/ulogd.conf{suffix}")[0] == 0


def test_unknown_package(router):
    code, said = router.run(
        {"opkg": "opkg update; opkg install nosuch", "apk": "apk add nosuch"}[router.flavour]
    )
    if router.flavour == "opkg":
        assert code == 255
        assert "Unknown package 'nosuch'." in said
        assert " * opkg_install_cmd: Cannot install package nosuch." in said
    else:
        assert code == 1
        assert "ERROR: unable to select packages:\n  nosuch (no such package):\n" in said


def test_feed_out_of_reach(router):
    if router.flavour == "opkg":
        code, said = router.run(
            "echo 'src/gz far http://127.0.0.1:1/x' >/etc/opkg/distfeeds.conf; opkg update"
        )
        assert code == 255
        assert "opkg_download: Failed to download http://127.0.0.1:1/x/Packages.gz, wget returned 4." in said
    else:
        feeds = "/etc/apk/repositories.d/distfeeds.list"
        code, said = router.run(f"echo http://127.0.0.1:1/x/packages.adb >{feeds}; apk update")
        assert code == 1
        assert "WARNING: updating and opening http://127.0.0.1:1/x/packages.adb: temporary error" in said


def test_no_space(router):
    if router.flavour == "opkg":
        router.get("mkdir /overlay; mount -t tmpfs -o size=16k none /overlay")
        code, said = router.run("opkg update; opkg install ulogd")
        assert code == 255
        space = (
            r" \* verify_pkg_installable: Only have \d+kb available on filesystem /overlay, pkg \S+ needs \d+"
        )
        assert re.search(space, said)
        assert " * opkg_install_cmd: Cannot install package ulogd." in said
    else:
        router.get("mkdir -p /usr/lib/ulogd; mount -t tmpfs -o size=4k none /usr/lib/ulogd")
        code, said = router.run("apk add ulogd-mod-nfct")
        assert code > 0
        assert "No space left on device" in said


# --- services --------------------------------------------------------------------------------------------------------


def test_a_service_is_restarted_when_its_description_changes_and_only_then(opkg_router):
    opkg_router.service("sleeper", "command sleep 1000")
    first = opkg_router.instance("sleeper", "one.pid")
    opkg_router.get("/etc/init.d/sleeper start")
    assert opkg_router.instance("sleeper", "one.pid") == first
    opkg_router.service("sleeper", "command sleep 1001")
    until(lambda: opkg_router.instance("sleeper", "one.pid") not in ("", first))
    assert opkg_router.instance("sleeper", "one.command[1]") == "1001"
    opkg_router.get("/etc/init.d/sleeper stop")
    until(lambda: opkg_router.instance("sleeper", "one") == "")


def test_start_starts_what_has_ended_and_restarts_what_has_changed_and_no_more(opkg_router):
    """As of the log: its daemon, its ring and its socket stay."""
    with Receiver(opkg_router, "tcp"):
        opkg_router.send_log(proto="tcp")
        logd, logread = (opkg_router.instance("log", f"{name}.pid") for name in ("logd", "logremote"))
        opkg_router.get("logger -t before start; /etc/init.d/log start")
        assert opkg_router.instance("log", "logremote.pid") == logread
        opkg_router.get(f"kill -9 {logread}; sleep 1; /etc/init.d/log start")
        until(lambda: opkg_router.instance("log", "logremote.pid") not in ("", logread))
        logread = opkg_router.instance("log", "logremote.pid")
        opkg_router.get("uci set system.@system[0].log_hostname=attic; /etc/init.d/log start")
        until(lambda: opkg_router.instance("log", "logremote.pid") not in ("", logread))
        assert opkg_router.instance("log", "logd.pid") == logd
        assert "before: start" in opkg_router.get("logread")


def test_a_jail_keeps_the_socket_of_the_log_that_it_was_started_with(opkg_router):
    mounts = "cat /proc/$(pidof dnsmasq)/mountinfo"
    outside = opkg_router.instance("dnsmasq", "*.pid")
    assert opkg_router.get(f"tr '\\0' ' ' </proc/{outside}/cmdline").startswith("/sbin/ujail -n dnsmasq ")
    assert re.search(r" /log /dev/log ", opkg_router.get(mounts))
    assert re.search(r"daemon\.info dnsmasq\[1\]: started", opkg_router.get("logread"))
    opkg_router.get("/etc/init.d/log restart; sleep 1; kill -HUP $(pidof dnsmasq); sleep 1")
    assert re.search(r" /log//deleted /dev/log ", opkg_router.get(mounts))
    assert "dnsmasq" not in opkg_router.get("logread")
    opkg_router.get("/etc/init.d/dnsmasq restart")
    until(lambda: "dnsmasq[1]: started" in opkg_router.get("logread"))


def test_a_crashing_service_is_given_up_after_its_retries(opkg_router):
    opkg_router.service("crasher", "command sh -c 'echo x >>/tmp/starts'", "respawn 3600 1 2")
    until(lambda: "Instance crasher::one s in a crash loop 3 crashes" in opkg_router.get("logread"))
    assert opkg_router.get("wc -l </tmp/starts") == "3"
    assert opkg_router.instance("crasher", "one.running") == "false"


def test_a_service_without_limit_of_retries_is_never_given_up(opkg_router):
    opkg_router.service("crasher", "command sh -c 'echo x >>/tmp/starts'", "respawn 3600 1 -1")
    until(lambda: int(opkg_router.run("wc -l </tmp/starts")[1] or 0) > 6)


def test_what_a_service_says_is_logged(opkg_router):
    opkg_router.service(
        "talker", "command sh -c 'echo hello; echo oops >&2; sleep 1000'", "stdout 1", "stderr 1"
    )
    log = until(lambda: "oops" in (log := opkg_router.get("logread")) and log)
    assert re.search(r"daemon\.info sh\[\d+\]: hello\n", log)
    assert re.search(r"daemon\.err sh\[\d+\]: oops", log)


def test_a_committed_change_reaches_the_service_by_reload_config(opkg_router):
    before = opkg_router.instance("dnsmasq", "*.pid")
    opkg_router.get("uci set dhcp.@dnsmasq[0].logqueries=1; uci commit dhcp; reload_config")
    until(lambda: opkg_router.instance("dnsmasq", "*.pid") not in ("", before))
    opkg_router.run("nslookup OpenWrt.lan 127.0.0.1")
    query = r"dnsmasq\[\d+\]: \d+ 127\.0\.0\.1/\d+ query\[A\] openwrt\.lan from 127\.0\.0\.1"
    assert re.search(query, opkg_router.get("logread"))


def test_after_a_reboot_tmp_is_empty_and_what_is_enabled_runs(opkg_router):
    opkg_router.service("sleeper", "command sleep 1000")
    opkg_router.get("/etc/init.d/sleeper enable; echo x >/tmp/mark")
    opkg_router.get("uci set system.@system[0].hostname=attic; uci commit")
    docker("restart", opkg_router.name)
    until(opkg_router.booted)
    assert opkg_router.instance("sleeper", "one.running") == "true"
    assert opkg_router.run("test -e /tmp/mark")[0] == 1
    assert opkg_router.get("cat /proc/sys/kernel/hostname") == "attic"


def test_hotplug_scripts_are_told_of_interfaces(opkg_router):
    opkg_router.get(
        "echo 'echo $ACTION $INTERFACE $DEVICE >>/tmp/told' >/etc/hotplug.d/iface/99-test; ifup lan"
    )
    assert opkg_router.get("tail -n 1 /tmp/told") == "ifup lan br-lan"


def test_at_boot_hotplug_is_told_of_each_interface_after_the_services_have_started(opkg_router):
    """Of all of them twice; netifd itself logs with an empty tag."""
    opkg_router.get("echo 'echo $ACTION $INTERFACE >>/tmp/told' >/etc/hotplug.d/iface/99-test")
    docker("restart", opkg_router.name)
    until(opkg_router.booted)
    told = [f"ifup {name}" for name in ("loopback", "lan", "wan")] * 2
    until(lambda: opkg_router.run("cat /tmp/told")[1].split("\n")[:-1] == told)
    assert "user.notice : Added device handler type: bridge\n" in opkg_router.get("logread")


# --- the log ---------------------------------------------------------------------------------------------------------

DATE = rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"


def test_the_ring_is_bounded_and_read_in_parts(opkg_router):
    opkg_router.get("seq 5000 | sed 's/^/a line with the number /' | logger -t many")
    log = opkg_router.get("logread").splitlines()
    assert log[-1].endswith("user.notice many: a line with the number 5000")
    assert 300 < len(log) < 1500
    assert opkg_router.get("logread -l 2").splitlines() == log[-2:]
    assert opkg_router.get("logread -e 'number 499[89]'").splitlines() == log[-3:-1]
    # A basic regular expression.
    assert opkg_router.run("logread -e 'number 499(8|9)'")[1] == ""


def test_blanks_at_a_line_s_end_are_cut(opkg_router):
    opkg_router.get("logger -t blanks 'text   '")
    assert opkg_router.get("logread -l 1 | tr -d '\\n'").endswith("blanks: text")


def test_datagrams_have_no_trailer(opkg_router):
    with Receiver(opkg_router, "udp") as receiver:
        opkg_router.send_log(proto="udp")
        opkg_router.get("logger -t mytag 'two  words'")
        lines = until(lambda: [line for line in receiver.reads() if b"mytag" in line])
    assert re.fullmatch(rb"<13>" + DATE + rb" OpenWrt mytag: two  words", lines[0])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, rb"<13>" + DATE + rb" OpenWrt mytag: text\n"),
        ({"hostname": "attic"}, rb"<13>" + DATE + rb" attic mytag: text\n"),
        ({"prefix": "front"}, rb"<13>" + DATE + rb" OpenWrt front: mytag: text\n"),
        ({"trailer_null": "1"}, rb"<13>" + DATE + rb" OpenWrt mytag: text\0"),
    ],
    ids=["plain", "hostname", "prefix", "null"],
)
def test_lines_over_tcp(opkg_router, options, line):
    with Receiver(opkg_router, "tcp") as receiver:
        opkg_router.send_log(proto="tcp", **options)
        opkg_router.get("logger -t mytag text")
        until(lambda: re.search(line, receiver.all()))


def test_thousands_of_lines_pass_without_loss(opkg_router):
    with Receiver(opkg_router, "tcp") as receiver:
        opkg_router.send_log(proto="tcp")
        opkg_router.get("seq 20000 | logger -t count")
        until(lambda: b"count: 20000\n" in receiver.all())
        assert re.findall(rb"count: (\d+)\n", receiver.all()) == [b"%d" % n for n in range(1, 20001)]


def test_a_restart_empties_the_ring_and_the_old_logread_lives_on(opkg_router):
    with Receiver(opkg_router, "tcp"):
        opkg_router.send_log(proto="tcp")
        opkg_router.get("logger -t before restart")
        logread = opkg_router.instance("log", "logremote.pid")
        begin = time.monotonic()
        opkg_router.get("/etc/init.d/log restart")
        assert "before: restart" not in opkg_router.get("logread")
        until(lambda: opkg_router.instance("log", "logremote.pid") not in ("", logread))
        assert time.monotonic() - begin > 3
        assert opkg_router.get("pgrep -f '^/sbin/logread -f' | wc -l") == "1"


def test_what_is_logged_while_the_receiver_is_away_is_lost_and_the_rest_is_not(opkg_router):
    with Receiver(opkg_router, "tcp"):
        opkg_router.send_log(proto="tcp")
    until(lambda: "tcp" not in opkg_router.run("netstat -tn | grep ':514 .*ESTABLISHED'")[1])
    opkg_router.get("for i in 1 2 3; do logger -t away $i; done; sleep 1.5; logger -t away 4")
    with Receiver(opkg_router, "tcp") as receiver:
        until(lambda: opkg_router.get("logread | grep -c 'Logread connected'") == "2")
        opkg_router.get("logger -t back again")
        until(lambda: b"back: again\n" in receiver.all())
        assert b"away: 4" not in receiver.all()


def test_a_receiver_that_stops_reading_makes_logd_grow(opkg_router):
    size = "awk '/VmRSS/ { print $2 }' /proc/$(pgrep logd)/status"
    with Receiver(opkg_router, "stalled"):
        opkg_router.send_log(proto="tcp")
        before = int(opkg_router.get(size))
        opkg_router.get(
            "x=$(head -c 400 /dev/zero | tr '\\0' x); seq 60000 | sed \"s/$/$x/\" | logger -t flood"
        )
        until(lambda: int(opkg_router.get(size)) > before + 10_000)


# --- flows -----------------------------------------------------------------------------------------------------------


def test_flows_are_logged_in_ulogds_words(router):
    router.install("ulogd", "ulogd-mod-nfct", "ulogd-mod-syslog", "ulogd-mod-extra")
    router.get(f"cat >/etc/ulogd.conf <<'END'\n{FLOWS}\nEND\n/etc/init.d/ulogd restart")
    until(lambda: "NFCT plugin working in event mode" in router.get("logread"))
    router.get("ping -c 1 127.0.0.2; ping -c 1 ::1")
    end = "PKTS=1 BYTES=84 , REPLY: SRC=127.0.0.2 DST=127.0.0.1 PROTO=ICMP TYPE=0 CODE=8 PKTS=1 BYTES=84\n"
    log = until(lambda: end in (log := router.get("logread") + "\n") and log)
    assert re.search(
        r"daemon\.notice ulogd\[\d+\]: \[NEW\] ORIG: SRC=127\.0\.0\.1 DST=127\.0\.0\.2 PROTO=ICMP ", log
    )
    assert "[DESTROY] ORIG: SRC=127.0.0.1 DST=127.0.0.2 PROTO=ICMP TYPE=0 CODE=8 " + end in log
    assert (
        "[NEW] ORIG: SRC=::1 DST=::1 PROTO=58 PKTS=0 BYTES=0 , REPLY: SRC=::1 DST=::1 PROTO=58 PKTS=0 " in log
    )


# --- jsonfilter ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "output"),
    [
        ("@.a.b[*].n", "x\ny"),
        ('$["a"]["b"][1].n', "y"),
        ("@.a.b[@.n='y'].v", "2"),
        ("@.a.*[-1].v", "2"),
        ("@.a.b[0]", '{ "n": "x", "v": 1 }'),
        ("@.missing", ""),
    ],
)
def test_jsonfilter(shared_router, expression, output):
    document = '{"a": {"b": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]}, "c": "it\'s"}'
    done = subprocess.run(
        ["docker", "exec", shared_router.name, "jsonfilter", "-s", document, "-e", expression],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == output
    assert done.returncode == (0 if output else 1)


@pytest.fixture(scope="module")
def shared_router(images):
    made = Router("opkg")
    yield made
    docker("rm", "--force", "--volumes", made.name)
