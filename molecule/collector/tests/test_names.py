"""Names of sites and devices in the documents, with the lab's real DNS server: answering, and dead."""

import itertools
import time

import pytest

# Nobody has this address.
DEAD = "10.77.0.199"
# This module's own queries and devices.
QUERIES = itertools.count(1024)
LAPTOP, CAMERA, STRANGER = "10.77.0.120", "10.77.0.121", "10.77.0.122"


def router(program: str, text: str) -> str:
    return f"<30>{time.strftime('%b %e %H:%M:%S')} OpenWrt {program}: {text}"


def flow(event: str, port: int, device: str, remote: str) -> str:
    counters = "PKTS=4 BYTES=240" if event == "DESTROY" else "PKTS=0 BYTES=0"
    return router(
        "ulogd[1868]",
        f"[{event}] ORIG: SRC={device} DST={remote} PROTO=TCP SPT={port} DPT=443 {counters} , "
        f"REPLY: SRC={remote} DST={device} PROTO=TCP SPT=443 DPT={port} {counters} ",
    )


def asked(name: str, remote: str, device: str) -> list[str]:
    """dnsmasq's lines for a name that is an alias."""
    number = next(QUERIES)
    head = f"{number} {device}/{number}"
    return [
        router("dnsmasq[1]", f"{head} query[A] {name} from {device}"),
        router("dnsmasq[1]", f"{head} forwarded {name} to 198.18.0.53"),
        router("dnsmasq[1]", f"{head} reply {name} is <CNAME>"),
        router("dnsmasq[1]", f"{head} reply edge.cdn.example is {remote}"),
    ]


def made(machine, device: str, remote: str, before: tuple[str, ...] | list[str] = ()) -> dict:
    """Send a whole flow, after some other lines, and return its document."""
    port = machine.port()
    lines = [flow(event, port, device, remote) for event in ("NEW", "DESTROY")]
    machine.send("tcp", [*before, *lines])
    return machine.wait(f"the document of port {port}", lambda: machine.of_ports([port]))[0]


def site(document: dict) -> tuple[str | None, str]:
    return document["destination"].get("domain"), document["wrtflow"]["domain_source"]


def until_named(machine, device: str, remote: str) -> tuple[str | None, str]:
    """Reverse DNS is asked in the background: a site's first flow may end before the answer is there."""

    def named() -> tuple[str | None, str] | None:
        found = site(made(machine, device, remote))
        return found if found[1] != "none" else None

    return machine.wait(f"a name of {remote}", named)


@pytest.fixture
def dead_resolver(machine):
    """The collector's name server does not answer; syslog-ng is not restarted."""
    before = machine.run("cat", "/etc/resolv.conf").encode()
    machine.put("/etc/resolv.conf", f"nameserver {DEAD}\n".encode())
    yield
    machine.put("/etc/resolv.conf", before)


def test_a_site_that_nobody_asked_for_has_its_reverse_dns(machine):
    nameless = made(machine, STRANGER, "198.18.2.80")
    assert until_named(machine, STRANGER, "198.18.1.80") == ("www.photoprint.example", "ptr")
    assert until_named(machine, STRANGER, "198.18.3.80") == ("edge-7.cdn.example", "ptr")
    for document in (nameless, made(machine, STRANGER, "198.18.2.80")):
        assert site(document) == (None, "none")


def test_what_the_device_asked_for_comes_first(machine):
    lines = asked("News.example", "198.18.3.80", LAPTOP)
    assert site(made(machine, LAPTOP, "198.18.3.80", lines)) == ("news.example", "dns")
    assert until_named(machine, STRANGER, "198.18.3.80") == ("edge-7.cdn.example", "ptr")


def test_a_lease_names_the_device_on_both_families(machine):
    lines = [
        router("dnsmasq-dhcp[1]", f"DHCPACK(br-lan) {CAMERA} 02:77:00:00:01:21 Camera"),
        router("dnsmasq-dhcp[1]", "DHCPREPLY(br-lan) fd77:0:0:1::121 00:03:00:01:02:77:00:00:01:21 "),
        *asked("news.example", "fd77::2:3:0:0:80", CAMERA),
    ]
    source = made(machine, CAMERA, "198.18.1.80", lines)["source"]
    assert (source["domain"], source["mac"]) == ("camera", "02-77-00-00-01-21")
    document = made(machine, "fd77:0:0:1::121", "fd77:0:0:2:3::80")
    assert (document["source"]["domain"], document["source"]["mac"]) == ("camera", "02-77-00-00-01-21")
    # Asked for over IPv4, used over IPv6: it is one device.
    assert site(document) == ("news.example", "dns")


@pytest.mark.parametrize(
    "name", ["x SRC=198.18.2.80", 'y"z', "\x1b[31mred", "b\u00fcro", "10.77.0.1", "z" * 3000]
)
def test_a_hostile_name_is_none(machine, name):
    device = f"10.77.0.{next(QUERIES) % 50 + 150}"
    line = router("dnsmasq-dhcp[1]", f"DHCPACK(br-lan) {device} 02:77:00:00:01:99 {name}")
    spoof = router("dnsmasq[1]", f"1 {device}/1 query[A] {name} from {LAPTOP} from {device}")
    document = made(machine, device, "198.18.2.80", [line, spoof])
    assert "domain" not in document["source"]
    assert site(document) == (None, "none")


def test_a_dead_name_server_holds_nobody_up(machine, dead_resolver):
    # New to the collector in each run.
    net = f"198.18.{100 + int(time.time()) % 100}"
    flows = {machine.port(): f"{net}.{number}" for number in range(1, 201)}
    events = itertools.product(flows.items(), ("NEW", "DESTROY"))
    machine.send("tcp", [flow(event, port, STRANGER, remote) for (port, remote), event in events])
    documents = machine.wait("200 flows to 200 new addresses", lambda: machine.of_ports(flows))
    assert {site(document) for document in documents} == {(None, "none")}
    machine.wait("the failures are counted", lambda: machine.told("names", "ptr_failed"))
    # What was asked for before is still known.
    assert site(made(machine, STRANGER, "198.18.1.80")) == ("www.photoprint.example", "ptr")


def test_another_resolver_in_resolv_conf_is_asked_at_once(machine):
    assert until_named(machine, STRANGER, "198.18.4.123") == ("ntp.example", "ptr")


def test_names_survive_a_restart(machine, dead_resolver):
    machine.restart()
    assert site(made(machine, LAPTOP, "198.18.3.80")) == ("news.example", "dns")
    assert site(made(machine, STRANGER, "198.18.3.80")) == ("edge-7.cdn.example", "ptr")
    assert made(machine, CAMERA, "198.18.1.80")["source"]["domain"] == "camera"


def test_names_survive_a_reload(machine, dead_resolver):
    machine.run("syslog-ng-ctl", "reload")
    assert site(made(machine, LAPTOP, "198.18.3.80")) == ("news.example", "dns")
    assert site(made(machine, STRANGER, "198.18.3.80")) == ("edge-7.cdn.example", "ptr")
