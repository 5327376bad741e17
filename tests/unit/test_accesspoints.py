"""wrtflow.routers: whose a flow is that the next router sees from an access point's address."""

import pytest
from fakes import DAY, SECOND, Clock, Kept, told
from fakes import line as flow_line
from wrtflow import routers
from wrtflow.parse import Flow, Reader, Refused
from wrtflow.routers import LEFT_OUT, AccessPoints

DEVICE, OTHER, OUTER, SITE = "192.168.8.20", "192.168.8.21", "10.77.0.2", "198.18.1.80"
ATTIC = "attic@10.77.0.2"


def line(event: str, orig: str, reply: str, protocol: str = "TCP") -> Flow:
    """A flow's line. Orig and reply: source, port, destination, port; or two addresses."""

    def side(text: str) -> str:
        words = text.split()
        if len(words) == 2:
            return f"SRC={words[0]} DST={words[1]} PROTO={protocol} TYPE=8 CODE=0 PKTS=1 BYTES=60"
        return f"SRC={words[0]} DST={words[2]} PROTO={protocol} SPT={words[1]} DPT={words[3]} PKTS=1 BYTES=60"

    read = Reader().read(
        f"<150>Nov 24 03:13:47 attic ulogd[1]: [{event}] ORIG: {side(orig)} , REPLY: {side(reply)}"
    )
    assert isinstance(read, Flow)
    return read


def inside(event: str = "NEW", device: str = DEVICE) -> Flow:
    return line(event, f"{device} 50000 {SITE} 443", f"{SITE} 443 {OUTER} 1025")


def ping(event: str, device: str) -> Flow:
    return line(event, f"{device} {SITE}", f"{SITE} {OUTER}", "ICMP")


OUTSIDE = line("DESTROY", f"{OUTER} 1025 {SITE} 443", f"{SITE} 443 198.18.0.1 1025")
PING = line("DESTROY", f"{OUTER} {SITE}", f"{SITE} 198.18.0.1", "ICMP")


class Made(Kept):
    kind = AccessPoints


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


@pytest.fixture
def points(made):
    return made.part


def test_roles_outlive_a_restart_and_are_changed(made):
    made.part.tell(ATTIC, "ap")
    made.part.tell("OpenWrt@10.77.0.1", "edge")
    again = made.again()
    assert again.part.routers.keys() == {ATTIC}
    again.part.tell(ATTIC, "edge")
    assert again.again().part.routers == {}


@pytest.mark.parametrize("role", ["", "king", "ap edge", "AP"])
def test_what_is_no_role_is_refused(points, role):
    with pytest.raises(Refused, match="not a role"):
        points.tell(ATTIC, role)
    assert points.routers == {}


def test_a_router_too_many_is_none_and_one_of_them_may_still_change(points, monkeypatch):
    monkeypatch.setattr(routers, "_ACCESS_POINTS", 2)
    for name in ("a", "b", "a"):
        points.tell(name, "ap")
    with pytest.raises(Refused, match="too many access points"):
        points.tell("c", "ap")
    assert points.routers.keys() == {"a", "b"}
    points.tell("a", "edge")
    assert points.routers.keys() == {"b"}


@pytest.mark.parametrize("events", [["NEW"], ["DESTROY"], ["NEW", "DESTROY"]])
def test_a_flow_is_the_device_s_from_its_begin_until_after_its_end(points, events):
    for event in events:
        points.saw(inside(event), DEVICE)
    assert points.device(OUTSIDE) == DEVICE


@pytest.mark.parametrize("restart", [False, True])
def test_minutes_after_its_end_it_is_forgotten(made, restart):
    made.part.saw(inside("NEW"), DEVICE)
    made.clock.passes(DAY)
    assert made.part.device(OUTSIDE) == DEVICE
    made.part.saw(inside("DESTROY"), DEVICE)
    if restart:
        made = made.again()
    made.clock.passes(routers._AFTER)
    assert made.part.device(OUTSIDE) == DEVICE
    made.clock.passes(1)
    assert made.part.device(OUTSIDE) is None
    # And with the next flow its memory is free.
    made.part.saw(ping("NEW", DEVICE), DEVICE)
    assert len(made.part._flows) == 1


def test_a_wrong_clock_keeps_nothing_for_long(made):
    made.part.saw(inside("DESTROY"), DEVICE)
    again = made.again(Clock(5))
    assert again.part.device(OUTSIDE) == DEVICE
    again.clock.passes(routers._AFTER + 1)
    assert again.part.device(OUTSIDE) is None


@pytest.mark.parametrize(
    "other",
    [
        line("NEW", f"{OUTER} 1026 {SITE} 443", f"{SITE} 443 198.18.0.1 1026"),
        line("NEW", f"{OUTER} 1025 {SITE} 80", f"{SITE} 80 198.18.0.1 1025"),
        line("NEW", f"{OUTER} 1025 198.18.2.80 443", "198.18.2.80 443 198.18.0.1 1025"),
        line("NEW", f"10.77.0.3 1025 {SITE} 443", f"{SITE} 443 198.18.0.1 1025"),
        line("NEW", f"{OUTER} 1025 {SITE} 443", f"{SITE} 443 198.18.0.1 1025", "UDP"),
    ],
)
def test_any_other_flow_is_its_source_s(points, other):
    points.saw(inside(), DEVICE)
    assert points.device(other) is None


def test_protocols_are_the_same_by_name_and_by_number(points):
    points.saw(inside()._replace(protocol="6"), DEVICE)
    assert points.device(OUTSIDE) == DEVICE


def test_what_it_redirects_is_known_by_where_it_goes(points):
    """The device asks for a name server on the internet, the access point sends it to the edge."""
    points.saw(line("NEW", f"{DEVICE} 50000 8.8.8.8 53", f"10.77.0.1 53 {OUTER} 50000", "UDP"), DEVICE)
    asked = line("NEW", f"{OUTER} 50000 10.77.0.1 53", f"10.77.0.1 53 {OUTER} 50000", "UDP")
    assert points.device(asked) == DEVICE


def test_what_it_does_not_translate_needs_nobody(points):
    bridged = line("NEW", f"{DEVICE} 50000 {SITE} 443", f"{SITE} 443 {DEVICE} 50000")
    points.saw(bridged, DEVICE)
    assert points.device(bridged) is None


def test_ports_used_again_are_the_last_device_s(points):
    points.saw(inside("NEW"), DEVICE)
    points.saw(inside("DESTROY"), DEVICE)
    points.saw(inside("NEW", OTHER), OTHER)
    assert points.device(OUTSIDE) == OTHER


def test_pings_of_two_devices_are_nobody_s(points):
    points.saw(ping("NEW", DEVICE), DEVICE)
    assert points.device(PING) == DEVICE
    points.saw(ping("NEW", OTHER), OTHER)
    assert points.device(PING) is None
    # The second one goes on.
    points.saw(ping("DESTROY", DEVICE), DEVICE)
    assert points.device(PING) is None


@pytest.mark.parametrize("devices", [[DEVICE, LEFT_OUT], [LEFT_OUT, DEVICE], [DEVICE, OTHER, LEFT_OUT]])
def test_pings_that_may_be_those_of_a_device_left_out_are_left_out(points, devices):
    for device in devices:
        points.saw(ping("NEW", DEVICE), device)
    assert points.device(PING) == LEFT_OUT


def test_the_oldest_are_forgotten_first(points, monkeypatch):
    monkeypatch.setattr(routers, "_FLOWS", 2)
    points.saw(inside(), DEVICE)
    for port in (2000, 2001):
        points.saw(translated(port), OTHER)
    assert points.device(OUTSIDE) is None
    assert len(points._flows) == 2


def translated(port: int, event: str = "NEW", device: str = OTHER) -> Flow:
    return line(event, f"{device} {port} {SITE} 443", f"{SITE} 443 {OUTER} {port}")


def test_one_device_takes_no_other_s_flows_away(made, monkeypatch):
    monkeypatch.setattr(routers, "_FLOWS", 20)
    monkeypatch.setattr(routers, "_FLOWS_OF_ONE", 10)
    made.part.saw(inside(), DEVICE)
    for port in range(2000, 2100):
        made.part.saw(translated(port), OTHER)
    assert made.part.device(OUTSIDE) == DEVICE
    assert (len(made.part._flows), made.part.beyond) == (11, 90)
    # There is room again when its flows have ended.
    for port in range(2000, 2100):
        made.part.saw(translated(port, "DESTROY"), OTHER)
    made.clock.passes(routers._AFTER + 1)
    made.part.saw(inside("NEW"), DEVICE)
    assert made.part._flows.of == {DEVICE: 1}
    assert len(made.part._flows) <= 20


def test_other_devices_push_out_no_flow_of_one_that_is_left_out(points, monkeypatch):
    monkeypatch.setattr(routers, "_FLOWS", 20)
    points.saw(inside(), LEFT_OUT)
    for port in range(2000, 2100):
        points.saw(translated(port), f"192.168.8.{port % 50}")
    assert points.device(OUTSIDE) == LEFT_OUT
    # But they have a bound, too.
    for port in range(3000, 3100):
        points.saw(translated(port), LEFT_OUT)
    assert len(points._flows) == 20


def test_ends_without_a_new_have_a_bound_too(points, monkeypatch):
    monkeypatch.setattr(routers, "_FLOWS", 20)
    for _ in range(3):
        for port in range(2000, 2100):
            points.saw(translated(port, "DESTROY", f"192.168.8.{port % 50}"), f"192.168.8.{port % 50}")
    assert len(points._flows) <= 20


@pytest.mark.parametrize("event", ["NEW", "DESTROY"])
def test_flows_outlive_a_restart_and_the_file_names_no_address(made, event):
    made.part.saw(inside(event), LEFT_OUT)
    again = made.again()
    assert again.part.device(OUTSIDE) == LEFT_OUT
    content = b"".join(file.read_bytes() for file in made.folder.iterdir())
    assert not any(address.encode() in content for address in (DEVICE, OUTER, SITE))


@pytest.mark.parametrize(
    "row", [["x", None], [5, None], [None, None], [DEVICE, "x"], ["10.77.0.300", 5], [[], 5]]
)
def test_a_damaged_row_is_nobody_s(made, row):
    made.part.saw(inside(), DEVICE)
    (flow,) = made.part._flows
    made.part._flows.table.put(flow, row)
    assert made.again().part.device(OUTSIDE) is None


# The whole way

EDGE = (OUTER, SITE, 1025)


def attic(chain, event="NEW", device=DEVICE):
    chain.send(told("role ap", host="attic"), OUTER)
    return chain.send(flow_line(event, device, port=1025, host="attic", reply=(SITE, OUTER)), OUTER)


@pytest.mark.parametrize("first", [True, False], ids=["told before", "told after"])
@pytest.mark.parametrize("lost", [True, False], ids=["timeout", "end"])
def test_a_device_left_out_behind_an_access_point_is_nothing_at_the_edge(chains, first, lost):
    chain = chains(left_out=("192.168.8.20",))
    if first:
        attic(chain)
    chain.send(flow_line("NEW", *EDGE))
    assert len(chain.lines) == (0 if first else 1)
    assert attic(chain) == []
    if lost:
        chain.clock.passes(8 * DAY)
        attic(chain)
        assert chain.keep() == []
    else:
        assert chain.send(flow_line("DESTROY", *EDGE)) == []
    assert (chain.outbox.put_, chain.lines) == ([], [])


def test_the_edge_s_flow_is_the_device_s(chain):
    chain.names.macs[DEVICE] = "02-00-00-00-00-20"
    chain.names.called[DEVICE] = "tablet"
    chain.names.sites[DEVICE, SITE] = "site.example"
    attic(chain)
    chain.send(flow_line("NEW", *EDGE))
    chain.clock.passes(SECOND)
    (inner,) = attic(chain, "DESTROY")
    (found,) = chain.send(flow_line("DESTROY", *EDGE))
    assert (inner["observer"]["type"], found["observer"]["type"]) == ("access_point", "router")
    assert found["source"]["domain"] == "tablet"
    assert found["source"]["mac"] == "02-00-00-00-00-20"
    assert found["destination"]["domain"] == "site.example"


def test_a_role_too_many_is_told(chain, monkeypatch):
    monkeypatch.setattr(routers, "_ACCESS_POINTS", 1)
    attic(chain)
    chain.send(told("role ap", host="cellar"), "10.77.0.3")
    chain.send(told("role king", host="cellar"), "10.77.0.3")
    assert chain.counts["unparsed"] == 2
    assert "too many access points" in chain.unparsed
