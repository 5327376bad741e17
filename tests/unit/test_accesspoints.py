"""wrtflow.accesspoints: whose a flow is that the next router sees from an access point's address."""

import json
from pathlib import Path

import pytest
from wrtflow import accesspoints, flow
from wrtflow.accesspoints import LEFT_OUT, AccessPoints

DEVICE, OTHER, OUTER, SITE = "192.168.8.20", "192.168.8.21", "10.77.0.2", "198.18.1.80"
ATTIC = "attic@10.77.0.2"


def line(event: str, orig: str, reply: str, protocol: str = "TCP") -> flow.Flow:
    """A flow's line. Orig and reply: source, port, destination, port; or two addresses."""

    def side(text: str) -> str:
        words = text.split()
        if len(words) == 2:
            return f"SRC={words[0]} DST={words[1]} PROTO={protocol} TYPE=8 CODE=0 PKTS=1 BYTES=60"
        return f"SRC={words[0]} DST={words[2]} PROTO={protocol} SPT={words[1]} DPT={words[3]} PKTS=1 BYTES=60"

    read = flow.read_line(
        f"<150>Nov 24 03:13:47 attic ulogd[1]: [{event}] ORIG: {side(orig)} , REPLY: {side(reply)} "
    )
    assert isinstance(read, flow.Flow)
    return read


def inside(event: str = "NEW", device: str = DEVICE) -> flow.Flow:
    return line(event, f"{device} 50000 {SITE} 443", f"{SITE} 443 {OUTER} 1025")


def ping(event: str, device: str) -> flow.Flow:
    return line(event, f"{device} {SITE}", f"{SITE} {OUTER}", "ICMP")


OUTSIDE = line("DESTROY", f"{OUTER} 1025 {SITE} 443", f"{SITE} 443 198.18.0.1 1025")
PING = line("DESTROY", f"{OUTER} {SITE}", f"{SITE} 198.18.0.1", "ICMP")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access-points.json"


@pytest.fixture
def points(file: Path) -> AccessPoints:
    return AccessPoints(file)


def test_roles_outlive_a_crash_and_are_changed(points, file):
    points.told(ATTIC, "ap")
    points.told("OpenWrt@10.77.0.1", "edge")
    assert AccessPoints(file).routers == {ATTIC}
    points.told(ATTIC, "edge")
    assert AccessPoints(file).routers == set()


@pytest.mark.parametrize("role", ["", "king", "ap edge", "AP"])
def test_what_is_no_role_is_refused(points, role):
    with pytest.raises(flow.Refused, match="not a role"):
        points.told(ATTIC, role)
    assert points.routers == set()


def test_a_router_too_many_is_none_and_one_of_them_may_still_change(points, monkeypatch):
    monkeypatch.setattr(accesspoints, "_ROUTERS", 2)
    for name in ("a", "b", "c"):
        points.told(name, "ap")
    assert points.routers == {"a", "b"}
    points.told("a", "edge")
    assert points.routers == {"b"}


@pytest.mark.parametrize("events", [["NEW"], ["DESTROY"], ["NEW", "DESTROY"]])
def test_a_flow_is_the_device_s_from_its_begin_until_after_its_end(points, events):
    for event in events:
        points.saw(inside(event), DEVICE)
    assert points.device(OUTSIDE) == DEVICE


def test_minutes_after_its_end_it_is_forgotten(file, monkeypatch):
    monkeypatch.setattr(accesspoints, "_AFTER", 0)
    points = AccessPoints(file)
    points.saw(inside("NEW"), DEVICE)
    assert points.device(OUTSIDE) == DEVICE
    points.saw(inside("DESTROY"), DEVICE)
    assert points.device(OUTSIDE) is None


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


def test_the_oldest_are_forgotten_first(file, monkeypatch):
    monkeypatch.setattr(accesspoints, "_FLOWS", 2)
    points = AccessPoints(file)
    points.saw(inside(), DEVICE)
    for port in (2000, 2001):
        points.saw(line("NEW", f"{OTHER} {port} {SITE} 443", f"{SITE} 443 {OUTER} {port}"), OTHER)
    assert points.device(OUTSIDE) is None
    assert len(points._open) == 2


@pytest.mark.parametrize("event", ["NEW", "DESTROY"])
def test_flows_outlive_a_restart_and_the_file_names_no_address(points, file, event):
    points.saw(inside(event), LEFT_OUT)
    points.save()
    assert AccessPoints(file).device(OUTSIDE) == LEFT_OUT
    assert not any(address in file.read_text() for address in (DEVICE, OUTER, SITE))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"routers": 1}', '{"routers": ["a"], "open": 1}'])
def test_a_damaged_file_is_none(file, text):
    file.write_text(text)
    points = AccessPoints(file)
    points.saw(inside(), DEVICE)
    points.save()
    assert json.loads(file.read_text())["open"]
