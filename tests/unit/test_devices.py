"""wrtflow.names, its devices: who an address at home is, from lines as dnsmasq 2.91 and odhcpd write them."""

from pathlib import Path

import house
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naming import DAY, NOW, SetClock, state
from wrtflow import names as module
from wrtflow import settings
from wrtflow.names import DEVICE_TTL, LATELY, LEASE, Device, Names
from wrtflow.places import LeftOut
from wrtflow.shares import NEVER
from wrtflow.state import State
from wrtflow.wellformed import LONGEST, hostname, mac

MAC = "02-AA-BB-CC-DD-01"
OTHER = "02-AA-BB-CC-DD-02"


def known(
    lines: str = "",
    static: dict[str, str] | None = None,
    left_out: tuple[str, ...] = (),
    moved: list[str] | None = None,
    of: State | None = None,
) -> Names:
    """moved: takes the addresses whose queries are all of another device."""
    names = settings.Names(devices=static or {}, local_domains=("lan",), resolvers=("127.0.0.1#1",))
    chosen = house.settings(Path("/nonexistent"), names=names)
    devices = Names(chosen, of or state(), SetClock(), LeftOut(left_out))

    def took(ip: str, before: int = NEVER) -> None:
        if moved is not None and before == NEVER:
            moved.append(ip)

    devices._passive.shares.forget = took  # type: ignore[method-assign]
    tell(devices, lines)
    return devices


def tell(devices: Names, lines: str, now: int = NOW) -> None:
    for line in lines.strip().splitlines():
        observe(devices, line, now)


def observe(devices: Names, line: str, now: int = NOW) -> None:
    devices._clock.time = now  # type: ignore[attr-defined]
    devices.observe("OpenWrt", "dnsmasq-dhcp", line)


def refresh(devices: Names, now: int) -> None:
    devices._clock.time = now  # type: ignore[attr-defined]
    devices.refresh()


def test_a_lease_names_the_device() -> None:
    devices = known("""
DHCPDISCOVER(v0) 02:aa:bb:cc:dd:01
DHCPOFFER(v0) 10.99.0.130 02:aa:bb:cc:dd:01
DHCPREQUEST(v0) 10.99.0.130 02:aa:bb:cc:dd:01
DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera
""")
    assert devices.device("10.99.0.134") == Device("camera", MAC)
    # An offer is no lease, a neighbour's lease not ours.
    assert devices.device("10.99.0.130") == Device(None, None)
    assert devices.identity("10.99.0.134") == MAC
    assert devices.identity("10.99.0.130") == "10.99.0.130"


def test_a_lease_without_a_name_has_the_mac_and_keeps_a_name_known_before() -> None:
    devices = known("DHCPACK(v0) 10.99.0.135 02:aa:bb:cc:dd:02 ")
    assert devices.device("10.99.0.135") == Device(None, OTHER)
    tell(devices, "DHCPACK(v0) 10.99.0.135 02:aa:bb:cc:dd:02 tv\nDHCPACK(v0) 10.99.0.135 02:aa:bb:cc:dd:02 ")
    assert devices.device("10.99.0.135") == Device("tv", OTHER)


def test_the_detailed_log_of_dhcp() -> None:
    devices = known("""
1498790981 client provides name: Camera
1498790981 DHCPREQUEST(v0) 10.99.0.134 02:aa:bb:cc:dd:01
1498790981 DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera
1498790981 sent size:  6 option: 12 hostname  Camera
3546195 DHCPREPLY(v0) fd99::130 00:03:00:01:02:aa:bb:cc:dd:01
""")
    assert devices.device("10.99.0.134") == devices.device("fd99::130") == Device("camera", MAC)


@pytest.mark.parametrize(
    "line",
    [
        "DHCPREPLY(v0) fd99::169 00:03:00:01:02:aa:bb:cc:dd:01 ",
        "DHCPREPLY(v0) fd99::169 00:01:00:01:32:98:32:20:02:aa:bb:cc:dd:01 ",
        "DHCPV6 RENEW IA_NA from 0003000102aabbccdd01 on br-lan: ok fd99::168/128 fd99::169/128 ",
        "DHCPV6 REQUEST IA_NA from 000100013298322002aabbccdd01 on br-lan: ok fd99::169/128 ",
        "neigh fd99::169 02-AA-BB-CC-DD-01",
        "neigh FD99:0::169 02:aa:bb:cc:dd:01",
    ],
)
def test_an_ipv6_address_is_the_same_device_s(line: str) -> None:
    devices = known("DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera")
    assert devices.device("fd99::169") == Device(None, None)
    tell(devices, line)
    assert devices.device("fd99::169") == Device("camera", MAC)


def test_an_address_made_of_a_mac_that_is_known_here() -> None:
    devices = known()
    assert devices.device("fd99::aa:bbff:fecc:dd01") == Device(None, None)
    tell(devices, "DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera")
    assert devices.device("fd99::aa:bbff:fecc:dd01") == Device("camera", MAC)
    assert devices.device("fd99::aa:bbff:fecc:dd02") == Device(None, None)
    # ff:fe elsewhere, and the same octets around something else.
    assert devices.device("fd99:ff:fe00:0:aa:bb00:cc:dd01") == Device(None, None)


def test_a_duid_of_an_interface_that_nobody_saw_is_no_mac() -> None:
    moved: list[str] = []
    devices = known("DHCPREPLY(v0) fd99::1 00:03:00:01:02:aa:bb:cc:dd:01 laptop", moved=moved)
    assert devices.device("fd99::1") == Device("laptop", None)
    tell(devices, "neigh fd99::1 02-AA-BB-CC-DD-02")
    assert devices.device("fd99::1").mac == OTHER
    # The wire knows better than a DUID.
    tell(devices, "DHCPREPLY(v0) fd99::1 00:03:00:01:02:aa:bb:cc:dd:01 laptop", NOW + 60_000)
    assert devices.device("fd99::1") == Device("laptop", OTHER)
    assert moved == []


def test_a_lease_of_ipv6_alone_names_its_address_until_another_has_it() -> None:
    devices = known("""
DHCPREPLY(v0) fd99::1 00:02:00:00:ab:11:22:33 laptop
SLAAC-CONFIRM(v0) fd99::2 tablet
""")
    assert devices.device("fd99::1") == Device("laptop", None)
    assert devices.device("fd99::2") == Device("tablet", None)
    tell(devices, "DHCPREPLY(v0) fd99::1 00:02:00:00:ab:11:22:34 ")
    assert devices.device("fd99::1") == Device(None, None)


def test_the_name_of_the_mac_comes_before_that_of_one_address() -> None:
    devices = known("""
DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera
DHCPREPLY(v0) fd99::169 00:03:00:01:02:aa:bb:cc:dd:01 Camera6
""")
    assert devices.device("fd99::169") == Device("camera", MAC)


def test_an_information_reply_without_an_address_tells_nothing() -> None:
    devices = known(
        "DHCPREPLY(v0) 00:02:00:00:ab:11:22:33 laptop\nDHCPREPLY(v0) 00:03:00:01:02:aa:bb:cc:dd:01 x"
    )
    assert (len(devices.owners), len(devices.bindings), devices.counts["names_invalid"]) == (0, 0, 0)


def test_an_address_that_moves_takes_no_name_along() -> None:
    moved: list[str] = []
    devices = known("DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera", moved=moved)
    assert moved == []
    tell(devices, "DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:02 ")
    assert devices.device("10.99.0.134") == Device(None, OTHER)
    assert moved == ["10.99.0.134"]
    tell(devices, "SLAAC-CONFIRM(v0) fd99::2 tablet\nneigh fd99::2 02-AA-BB-CC-DD-01")
    assert devices.device("fd99::2") == Device("camera", MAC)
    tell(devices, "neigh fd99::2 02-AA-BB-CC-DD-02")
    assert devices.device("fd99::2") == Device(None, OTHER)


def test_a_device_that_is_renamed() -> None:
    devices = known("DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera")
    assert devices.device("10.99.0.134").name == "camera"
    tell(devices, "DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 garden")
    assert devices.device("10.99.0.134").name == "garden"


def test_behind_a_repeater_the_lease_tells_whose_the_address_is() -> None:
    devices = known("DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera\nneigh 10.99.0.134 02-AA-BB-CC-DD-02")
    assert devices.device("10.99.0.134") == Device("camera", MAC)
    # But an old lease may have ended, and the address been given by hand.
    tell(devices, "neigh 10.99.0.134 02-AA-BB-CC-DD-02", NOW + LEASE)
    assert devices.device("10.99.0.134") == Device(None, OTHER)


def test_the_settings_names_come_first_by_address_or_mac_in_any_writing() -> None:
    static = {
        "10.99.0.1": "Router",
        "02aa.bbcc.dd01": "Garden camera",
        "FD99::0:1": "nas",
        OTHER.lower(): "tv",
    }
    devices = known("DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera", static=static)
    assert devices.device("10.99.0.1") == Device("Router", None)
    assert devices.device("fd99::1") == Device("nas", None)
    assert devices.device("10.99.0.134") == Device("Garden camera", MAC)
    assert devices.device("fd99::aa:bbff:fecc:dd02") == Device("tv", OTHER)
    tell(devices, "neigh 10.99.0.1 02-AA-BB-CC-DD-01")
    assert devices.device("10.99.0.1") == Device("Router", MAC)


@pytest.mark.parametrize("left_out", ["10.99.0.134", "10.99.0.128/28", MAC])
def test_nothing_is_remembered_of_a_device_that_is_left_out(left_out: str) -> None:
    devices = known(
        "DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera\nDHCPACK(v0) 10.99.0.10 02:aa:bb:cc:dd:02 tv\n"
        "DHCPREPLY(v0) 10.99.0.134 00:03:00:01:02:aa:bb:cc:dd:01 Camera",
        left_out=(left_out,),
    )
    assert devices.identity("10.99.0.134") == ""
    assert devices.device("10.99.0.134").name is None
    assert devices.identity("10.99.0.10") == OTHER
    assert devices.device("10.99.0.10").name == "tv"
    assert [key for key, _ in devices.owners.table.dump()] == [OTHER]
    # Only by this are the flows of a MAC told, after a restart too.
    assert devices.device("10.99.0.134").mac == (MAC if mac(left_out) else None)
    assert devices.identity("no address") == "no address"


@pytest.mark.parametrize(
    "rest",
    [
        "x SRC=1.2.3.4",
        "SRC=1.2.3.4",
        'x"y',
        "x\x1b[31m",
        "b\u00fcro",
        "caf\udce9",
        "10.0.0.1",
        "-x",
        "a..b",
        "x" * 64,
        ".",
        "a." * 127 + "b",
        "<script>",
        "x\x00y",
    ],
)
def test_a_name_that_can_not_be_one_is_left_out_and_counted(rest: str) -> None:
    devices = known()
    observe(devices, f"DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 {rest}")
    observe(devices, f"DHCPREPLY(v0) fd99::1 00:03:00:01:02:aa:bb:cc:dd:01 {rest}")
    assert devices.device("10.99.0.134") == devices.device("fd99::1") == Device(None, MAC)
    assert devices.counts["names_invalid"] == 2


@pytest.mark.parametrize(
    "line",
    [
        "DHCPACK(v0) 10.99.0.300 02:aa:bb:cc:dd:01 x",
        "DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd x",
        "DHCPACK(v0) 10.99.0.134 00:00:00:00:00:00 x",
        "DHCPACK(v0) 10.99.0.134 ff:ff:ff:ff:ff:ff x",
        "DHCPACK(v0) 10.99.0.134 06-02:aa:bb:cc:dd:01 x",
        "neigh 10.99.0.134 33:33:00:00:00:01",
        "neigh nowhere 02-AA-BB-CC-DD-01",
        "DHCPREPLY(v0) nowhere 00:03:00:01:02:aa:bb:cc:dd:01 x",
        "DHCPV6 RENEW IA_NA from 0003000102aabbccdd01 on br-lan: ok nowhere/128 ",
    ],
)
def test_a_line_that_can_not_be_right_is_counted(line: str) -> None:
    devices = known(line)
    assert len(devices.owners) == len(devices.bindings) == 0
    assert devices.counts["names_invalid"] == 1


@pytest.mark.parametrize(
    "line",
    [
        "DHCPNAK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 wrong address",
        "DHCPRELEASE(v0) 10.99.0.134 02:aa:bb:cc:dd:01",
        "RTR-ADVERT(v0) fd99::",
        "DHCPV6 SOLICIT IA_NA from 0003000102aabbccdd01 on br-lan: no addresses available fd99::1/128",
        "DHCPV6 RENEW IA_PD from 0003000102aabbccdd01 on br-lan: ok fd99:1::/64 ",
        "neigh 10.99.0.134",
        "prefix fd99::/64 br-lan",
        "DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 x".ljust(LONGEST + 1),
    ],
)
def test_other_lines_tell_nothing(line: str) -> None:
    devices = known()
    observe(devices, line)
    assert (len(devices.owners), len(devices.bindings), devices.counts["names_invalid"]) == (0, 0, 0)


_KNOWN_WORDS = """DHCPACK(v0) DHCPREPLY(v0) SLAAC-CONFIRM(v0) DHCPV6 RENEW IA_NA from on br-lan: ok fd99::1/128 neigh 7
    10.99.0.1 fd99::1 02:aa:bb:cc:dd:01 camera 0003000102aabbccdd01 00:03:00:01:02:aa:bb:cc:dd:01"""
_WORDS = st.one_of(st.sampled_from(_KNOWN_WORDS.split()), st.text(max_size=8))


@given(st.lists(st.lists(_WORDS, max_size=10).map(" ".join), max_size=8))
def test_any_text_is_taken_and_gives_right_names_or_none(lines: list[str]) -> None:
    devices = known()
    for line in lines:
        observe(devices, line)
    for ip in devices.bindings:
        device = devices.device(ip)
        assert device.name is None or hostname(device.name) == device.name
        assert device.mac is None or mac(device.mac) == device.mac


def test_a_lease_that_the_router_itself_tells_names_the_device() -> None:
    devices = known("lease 10.99.0.50 02:aa:bb:cc:dd:01 Camera\nlease 10.99.0.51 02:aa:bb:cc:dd:02")
    assert devices.device("10.99.0.50") == Device("camera", MAC)
    assert devices.device("10.99.0.51") == Device(None, OTHER)


def test_what_was_not_seen_for_long_is_forgotten() -> None:
    moved: list[str] = []
    devices = known("DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera", moved=moved)
    tell(devices, "neigh fd99::1 02-AA-BB-CC-DD-01", NOW + DEVICE_TTL - 1)
    refresh(devices, NOW + DEVICE_TTL + 1)
    assert devices.device("10.99.0.134") == Device(None, None)
    assert devices.device("fd99::1") == Device("camera", MAC)
    assert moved == ["10.99.0.134"]
    refresh(devices, NOW + 2 * DEVICE_TTL)
    assert (len(devices.owners), len(devices.bindings)) == (0, 0)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADDRESSES_OF_DEVICE", 5)
    monkeypatch.setattr(module, "ADDRESSES", 30)


@pytest.mark.usefixtures("small")
def test_faked_macs_over_a_pool_of_addresses_evict_nobody() -> None:
    devices = known("DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera")
    for number in range(1000):
        mac_ = f"06:aa:bb:cc:{number >> 8:02x}:{number & 255:02x}"
        tell(devices, f"DHCPACK(v0) 10.99.1.{number % 10} {mac_} n{number}")
    assert devices.device("10.99.0.134") == Device("camera", MAC)
    assert (len(devices.owners), devices.counts["addresses_refused"]) == (30, 0)
    tell(devices, "DHCPACK(v0) 10.99.0.135 02:aa:bb:cc:dd:02 tv")
    assert devices.device("10.99.0.135").name == "tv"


@pytest.mark.usefixtures("small")
def test_a_device_with_many_addresses_loses_its_own_oldest() -> None:
    devices = known("DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera")
    for number in range(100):
        tell(devices, f"neigh fd99::{number:x} {OTHER}")
    assert devices.mac("10.99.0.134") == MAC
    assert (devices.mac("fd99::5e"), devices.mac("fd99::5f")) == (None, OTHER)
    assert (len(devices.bindings), devices.counts["addresses_replaced"]) == (6, 95)


@pytest.mark.usefixtures("small")
def test_faked_macs_each_with_an_address_are_refused_in_favour_of_those_seen_lately() -> None:
    devices = known("DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera")
    for number in range(100):
        tell(devices, f"neigh fd99::{number:x} 06-AA-BB-CC-DD-{number:02X}")
    assert devices.device("10.99.0.134") == Device("camera", MAC)
    assert (len(devices.owners), devices.counts["addresses_refused"]) == (30, 71)
    tell(devices, f"neigh fd99::100 {OTHER}", NOW + LATELY)
    assert devices.mac("fd99::100") == OTHER


@pytest.mark.usefixtures("small")
def test_where_all_addresses_are_taken_the_newcomer_is_refused() -> None:
    devices = known()
    for number in range(30):
        tell(devices, f"neigh fd99::{number:x} 06-AA-BB-CC-DD-{number // 4:02X}")
    tell(devices, f"neigh fd99::a0 06-AA-BB-CC-DD-05\nneigh fd99::a1 {OTHER}")
    assert (devices.mac("fd99::14"), devices.mac("fd99::a0")) == (None, "06-AA-BB-CC-DD-05")
    assert devices.mac("fd99::a1") is None
    assert (devices.counts["addresses_replaced"], devices.counts["addresses_refused"]) == (1, 1)


def test_room_that_is_made_may_be_the_address_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADDRESSES", 1)
    devices = known(f"neigh fd99::1 {MAC}")
    tell(devices, f"neigh fd99::1 {OTHER}", NOW + LATELY)
    assert devices.mac("fd99::1") == OTHER


def test_no_bound_and_no_time_uncovers_a_device_that_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADDRESSES", 5)
    devices = known(left_out=(MAC,))
    for number in range(10):
        tell(devices, f"neigh 10.99.1.{number} 06-AA-BB-CC-DD-{number:02X}")
    for number in range(1, 200):
        tell(devices, f"neigh fd99::{number:x} {MAC}", NOW + number)
    refresh(devices, NOW + 400 * DAY)
    assert {devices.identity(f"fd99::{number:x}") for number in range(1, 200)} == {""}
    # Until another one has the address.
    tell(devices, f"neigh fd99::1 {OTHER}", NOW + 400 * DAY)
    assert devices.mac("fd99::1") == OTHER


def test_addresses_of_devices_left_out_have_a_bound_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HIDDEN", 10)
    devices = known(left_out=(MAC,))
    for number in range(30):
        tell(devices, f"neigh fd99::{number:x} {MAC}", NOW + number)
    assert len(devices.bindings) == 10


def restarted(directory: Path, told: int, left_out: tuple[str, ...] = ()) -> Names:
    before = state(directory)
    devices = known(of=before)
    before.open()
    tell(devices, f"DHCPACK(v0) 10.99.0.134 02:aa:bb:cc:dd:01 Camera\nneigh fd99::1 {MAC}", told)
    tell(devices, "SLAAC-CONFIRM(v0) fd99::2 tablet", told)
    devices.bindings.table.put("nowhere", [MAC, 1, None, 1])
    devices.owners.table.put(OTHER, 7)
    before.save()
    before.close()
    after = state(directory)
    devices = known(of=after, left_out=left_out)
    after.open()
    devices.load()
    after.close()
    return devices


@pytest.mark.parametrize("told", [NOW, NOW + 1000 * DAY])
def test_all_is_known_again_after_a_restart_whatever_the_clock_was(tmp_path: Path, told: int) -> None:
    devices = restarted(tmp_path, told)
    assert devices.device("10.99.0.134") == devices.device("fd99::1") == Device("camera", MAC)
    assert devices.device("fd99::2") == Device("tablet", None)
    assert len(devices.bindings) == 3
    # The lease of before does not outweigh for years what is seen.
    tell(devices, f"neigh 10.99.0.134 {OTHER}", NOW + LEASE)
    assert devices.mac("10.99.0.134") == OTHER


@pytest.mark.parametrize("left_out", [MAC, "10.99.0.134"])
def test_nothing_is_known_of_who_is_left_out_after_a_restart(tmp_path: Path, left_out: str) -> None:
    devices = restarted(tmp_path, NOW, (left_out,))
    assert devices.device("10.99.0.134") == Device(None, MAC if left_out == MAC else None)
    assert devices.identity("10.99.0.134") == ""
