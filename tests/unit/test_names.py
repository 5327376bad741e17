"""wrtflow.names: what the parsers see of the names of devices and sites."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from wrtflow import names, settings
from wrtflow.names import Device, Names

MAC = "02-AA-BB-CC-DD-01"
CAMERA = "10.99.0.20"
CAMERA6 = "fd99::13a"


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


def made(directory: Path, left_out: tuple[str, ...] = (), **options: object) -> Names:
    # A port where nobody answers: what these tests know of reverse DNS they put there.
    given_options = {"resolvers": ("127.0.0.1#1",), "ptr_timeout": 0.2, **options}
    return Names(
        settings.Settings(
            state_directory=str(directory), left_out=left_out, names=settings.Names(**given_options)
        )
    )


def tell(name: Names, lines: str, now: float | None = None) -> None:
    now = time.time() if now is None else now
    for line in lines.strip().splitlines():
        program, _, message = line.partition(": ")
        if program == "wrtflow-net":
            name.observe_neighbour("OpenWrt", message, now)
        else:
            name.observe_dnsmasq("OpenWrt", program, message, now)


ASKED = """
dnsmasq[1]: 3 10.99.0.20/40686 query[A] news.example from 10.99.0.20
dnsmasq[1]: 3 10.99.0.20/40686 reply news.example is <CNAME>
dnsmasq[1]: 3 10.99.0.20/40686 reply edge.cdn.example is 198.18.3.80
dnsmasq[1]: 4 10.99.0.20/40687 query[AAAA] news.example from 10.99.0.20
dnsmasq[1]: 4 10.99.0.20/40687 reply news.example is fd77::2:3:0:0:80
"""
LEASE = "dnsmasq-dhcp[1]: DHCPACK(br-lan) 10.99.0.20 02:aa:bb:cc:dd:01 Camera\n"
NEIGHBOUR = "wrtflow-net: neigh fd99::13a 02-AA-BB-CC-DD-01\n"


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Names]:
    name = made(tmp_path)
    name.start()
    yield name
    name.stop()


def pointing(name: Names, ip: str, to: str) -> None:
    name._reverse.names.put(ip, (to, time.time() + 60))


@pytest.mark.parametrize("program", ["dnsmasq", "dnsmasq[1]", "dnsmasq[12345]"])
def test_what_the_device_asked_for_comes_before_reverse_dns(known: Names, program: str) -> None:
    pointing(known, "198.18.3.80", "edge-7.cdn.example")
    assert known.site(CAMERA, "198.18.3.80", time.time()) == ("edge-7.cdn.example", "ptr")
    tell(known, ASKED.replace("dnsmasq[1]", program))
    assert known.site(CAMERA, "198.18.3.80", time.time()) == ("news.example", "dns")
    assert known.site("10.99.0.21", "198.18.3.80", time.time()) == ("edge-7.cdn.example", "ptr")
    assert known.site(CAMERA, "198.18.4.4", time.time()) == (None, "none")
    stats = known.stats()
    assert (stats["sites_dns"], stats["sites_ptr"], stats["sites_none"]) == (1, 2, 1)


def test_a_question_over_ipv4_names_the_same_device_s_flow_over_ipv6(known: Names) -> None:
    tell(known, LEASE + ASKED)
    assert known.site(CAMERA6, "fd77::2:3:0:0:80", time.time()) == (None, "none")
    tell(known, NEIGHBOUR)
    assert known.site(CAMERA6, "fd77::2:3:0:0:80", time.time()) == ("news.example", "dns")
    assert known.device(CAMERA6) == known.device(CAMERA) == Device("camera", MAC)


def test_a_question_from_before_the_mac_was_known_still_counts(known: Names) -> None:
    tell(known, ASKED + LEASE)
    assert known.site(CAMERA, "198.18.3.80", time.time()) == ("news.example", "dns")


def test_what_the_access_point_asked_for_comes_after_what_the_device_asked_for(known: Names) -> None:
    behind, site = "192.168.8.20", "198.51.100.7"
    pointing(known, site, "edge-7.cdn.example")
    assert known.site(behind, site, time.time(), CAMERA) == ("edge-7.cdn.example", "ptr")
    for device, name in ((CAMERA, "forwarded.example"), (behind, "asked.example")):
        tell(
            known,
            f"dnsmasq[1]: 7 {device}/4 query[A] {name} from {device}\n"
            f"dnsmasq[1]: 7 {device}/4 reply {name} is {site}",
        )
        assert known.site(behind, site, time.time(), CAMERA) == (name, "dns")
    assert known.site(behind, site, time.time()) == ("asked.example", "dns")


def test_an_address_that_moves_takes_no_question_along(known: Names) -> None:
    other = LEASE.replace("dd:01 Camera", "dd:02 tv")
    tell(known, ASKED + LEASE + other)
    assert known.site(CAMERA, "198.18.3.80", time.time()) == (None, "none")
    tell(known, ASKED + LEASE)
    assert known.site(CAMERA, "198.18.3.80", time.time()) == (None, "none")
    tell(known, other)
    assert known.site(CAMERA, "198.18.3.80", time.time()) == ("news.example", "dns")


def test_a_flow_of_days_has_the_name_of_its_start(known: Names) -> None:
    now = time.time()
    tell(known, ASKED, now - 5 * 86400)
    assert known.site(CAMERA, "198.18.3.80", now - 5 * 86400 + 1) == ("news.example", "dns")
    assert known.site(CAMERA, "198.18.3.80", now) == (None, "none")


def test_other_programs_lines_are_none_of_ours(known: Names) -> None:
    for program in ("", "dnsmasq-tftp", "dnsmasqd", "ulogd", "[1]", "dnsmasq-dhcp", "odhcpd[9]"):
        tell(known, ASKED.replace("dnsmasq[1]", program))
    tell(known, LEASE.replace("dnsmasq-dhcp[1]", "dnsmasq[1]"))
    assert known.stats()["dns_kept"] == known.stats()["devices_known"] == 0


def test_a_device_is_called_without_the_house_s_domain(known: Names) -> None:
    tell(known, "dnsmasq-dhcp[1]: DHCPACK(br-lan) 10.99.0.20 02:aa:bb:cc:dd:01 Laptop.lan\n")
    assert known.device(CAMERA).name == "laptop"
    for ip, told, name in (
        ("10.99.0.21", "laptop.lan", "laptop"),
        ("10.99.0.22", "nas.home.arpa", "nas"),
        ("10.99.0.23", "www.planet.example", "www.planet.example"),
        ("10.99.0.24", "lan", "lan"),
    ):
        pointing(known, ip, told)
        assert known.device(ip).name == name


def test_a_device_without_a_name_has_that_of_its_reverse_dns(known: Names) -> None:
    tell(known, LEASE.replace(" Camera", " "))
    assert known.device(CAMERA) == Device(None, MAC)
    # It was wanted by that alone.
    until(lambda: known.stats()["ptr_failed"] == 1)
    pointing(known, CAMERA, "camera.lan")
    assert known.device(CAMERA) == Device("camera", MAC)
    assert known.device("10.99.0.99") == Device(None, None)


def test_odhcpd_tells_too(known: Names) -> None:
    tell(
        known, LEASE + "odhcpd[2]: DHCPV6 RENEW IA_NA from 0003000102aabbccdd01 on br-lan: ok fd99::13a/128 "
    )
    assert known.device(CAMERA6) == Device("camera", MAC)


@given(st.text(max_size=5), st.text(), st.binary())
@effort(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_line_raises(tmp_path: Path, program: str, text: str, octets: bytes) -> None:
    name = made(tmp_path)
    for line in (text, octets.decode("utf-8", "surrogateescape"), octets.decode("latin-1")):
        for of in (program, "dnsmasq", "dnsmasq-dhcp", "odhcpd"):
            name.observe_dnsmasq("OpenWrt", of, line, 0.0)
        name.observe_neighbour(line, line, 0.0)
        name.observe_neighbour("OpenWrt", f"neigh {line} {line}", 0.0)
    assert name.stats()["errors"] == 0


def test_a_fault_of_ours_is_counted_and_stops_nobody(known: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(known._passive, "observe", fails)
    monkeypatch.setattr(known._devices, "observe_neighbour", fails)
    tell(known, ASKED.strip().splitlines()[0] + "\n" + NEIGHBOUR)
    assert known.stats()["errors"] == 2


def test_all_is_known_again_after_a_restart(tmp_path: Path) -> None:
    name = made(tmp_path)
    name.start()
    tell(name, LEASE + NEIGHBOUR + ASKED + "dnsmasq-dhcp: SLAAC-CONFIRM(br-lan) fd99::2 tablet")
    pointing(name, "198.18.1.80", "www.photoprint.example")
    name.stop()
    again = made(tmp_path)
    again.start()
    assert again.device(CAMERA6) == Device("camera", MAC)
    assert again.device("fd99::2") == Device("tablet", None)
    assert again.site(CAMERA6, "198.18.3.80", time.time()) == ("news.example", "dns")
    assert again.site(CAMERA6, "198.18.1.80", time.time()) == ("www.photoprint.example", "ptr")
    again.stop()


def test_what_changes_is_written_while_it_runs(tmp_path: Path) -> None:
    name = made(tmp_path, save_every=0.02)
    name.start()
    tell(name, ASKED)

    def written() -> int:
        with sqlite3.connect(tmp_path / "names.sqlite") as database:
            return int(database.execute("SELECT count(*) FROM kept WHERE part = 'dns'").fetchone()[0])

    until(lambda: written() == 2)
    name.stop()


def test_what_grows_too_old_is_let_go_of_while_it_runs(tmp_path: Path) -> None:
    name = made(tmp_path, save_every=0.02, device_ttl=1)
    name.start()
    tell(name, LEASE, time.time() - 0.7)
    assert name.device(CAMERA).name == "camera"
    until(lambda: name.device(CAMERA) == Device(None, None))
    name.stop()


def test_nothing_of_a_device_that_is_left_out_is_kept_not_even_from_before(tmp_path: Path) -> None:
    name = made(tmp_path)
    name.start()
    tell(name, LEASE + ASKED)
    name.stop()
    again = made(tmp_path, left_out=(MAC,))
    again.start()
    tell(again, LEASE + ASKED)
    assert again.stats()["dns_kept"] == again.stats()["devices_known"] == 0
    again.stop()
    with sqlite3.connect(tmp_path / "names.sqlite") as database:
        rows = database.execute("SELECT part, key FROM kept").fetchall()
    # That this address has the MAC in the settings is how its flows are told.
    assert rows == [("address", CAMERA)]


def test_what_a_device_asked_for_is_forgotten_when_it_is_known_to_be_left_out(tmp_path: Path) -> None:
    name = made(tmp_path, left_out=(MAC,))
    name.start()
    tell(name, ASKED)
    assert name.stats()["dns_kept"]
    tell(name, LEASE)
    assert name.stats()["dns_kept"] == 0
    name.stop()


def test_each_start_has_its_stop(tmp_path: Path) -> None:
    name = made(tmp_path)
    before = threading.active_count()
    name.start()
    running = threading.active_count()
    name.start()
    name.stop()
    assert running > before
    assert threading.active_count() == running
    name.stop()
    until(lambda: threading.active_count() == before)
    name.stop()
    name.start()
    assert threading.active_count() == running
    name.stop()


def test_a_state_directory_that_can_not_be_written_costs_the_restart_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    name = made(tmp_path / "file")
    name.start()
    tell(name, ASKED)
    name.stop()
    assert name.stats()["file_errors"] > 0
    assert name.site(CAMERA, "198.18.3.80", time.time()) == ("news.example", "dns")


def test_the_shared_instance_outlives_a_reload_but_not_its_settings(tmp_path: Path) -> None:
    one = settings.Settings(state_directory=str(tmp_path))
    first = names.shared(one)
    assert names.shared(settings.Settings(state_directory=str(tmp_path))) is first
    assert names.shared(settings.Settings(state_directory=str(tmp_path), left_out=("10.0.0.1",))) is not first


def test_threads_that_tell_and_ask_at_once_do_no_harm(tmp_path: Path) -> None:
    name = made(tmp_path, dns_size=50, device_size=50, save_every=0.001)
    name.start()
    failures: list[BaseException] = []

    def work(own: int) -> None:
        try:
            for number in range(2000):
                device, remote = f"10.{own % 2}.0.{number % 100}", f"198.18.{number % 7}.{number % 200}"
                head = f"dnsmasq: {number} {device}/{own}"
                tell(name, f"{head} query[A] n{number % 9}.example from {device}")
                tell(name, f"{head} reply n{number % 9}.example is {remote}")
                tell(name, f"dnsmasq-dhcp: DHCPACK(x) {device} 02:00:00:00:{own:02x}:{number % 100:02x} n")
                name.site(device, remote, time.time())
                name.device(device)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    name.stop()
    assert failures == []
    assert (name.stats()["errors"], name.stats()["file_errors"]) == (0, 0)
    assert name.stats()["dns_kept"] <= 50
