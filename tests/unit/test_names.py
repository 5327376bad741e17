"""wrtflow.names: the names of devices and sites, as the parsers get them."""

import threading
from collections.abc import Iterator
from pathlib import Path

import house
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naming import DAY, NOW, SECOND, SetClock, state, until
from wrtflow import settings
from wrtflow.names import UNKNOWN, Device, Names
from wrtflow.places import LeftOut
from wrtflow.state import State

MAC = "02-AA-BB-CC-DD-01"
CAMERA, CAMERA6 = "10.99.0.20", "fd99::13a"
SITE = "198.18.3.80"


def made(clock: SetClock | None = None, of: State | None = None, left_out: tuple[str, ...] = ()) -> Names:
    # A port where nobody answers: what these tests know of reverse DNS they put there.
    chosen = house.settings(
        Path("/nonexistent"),
        names=settings.Names(resolvers=("127.0.0.1#1",), local_domains=("lan", "home.arpa")),
    )
    return Names(chosen, of or state(), clock or SetClock(), LeftOut(left_out))


def tell(name: Names, lines: str) -> None:
    for line in lines.strip().splitlines():
        program, _, text = line.partition(": ")
        if program == "wrtflow-net":
            name.observe("OpenWrt", "wrtflow-net", text)
        else:
            name.observe("OpenWrt", program.partition("[")[0], text)


def question(site: str, remote: str = SITE, device: str = CAMERA) -> str:
    head = f"dnsmasq[1]: 9 {device}/4"
    return f"{head} query[A] {site} from {device}\n{head} reply {site} is {remote}\n"


def pointing(name: Names, ip: str, to: str, confirmed: bool = False) -> None:
    name._reverse.names[ip] = to, confirmed, NOW + DAY


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
def known() -> Iterator[Names]:
    name = made()
    name.start()
    yield name
    name.stop()


@pytest.mark.parametrize("program", ["dnsmasq", "dnsmasq[1]", "dnsmasq[12345]"])
def test_what_a_device_asked_for_is_its_own(known: Names, program: str) -> None:
    tell(known, ASKED.replace("dnsmasq[1]", program))
    assert known.asked(CAMERA, SITE) == "news.example"
    assert known.asked("10.99.0.21", SITE) is None
    assert known.asked(CAMERA, "198.18.4.4") is None


def test_the_name_is_settled_at_the_new() -> None:
    clock = SetClock()
    name = made(clock)
    tell(name, question("ads.example"))
    clock.time += SECOND
    tell(name, question("bank.example"))
    clock.time += SECOND
    start = clock.time
    assert name.asked(CAMERA, SITE) == "bank.example"
    clock.time += SECOND
    tell(name, question("ads.example"))
    assert name.asked(CAMERA, SITE, start) == "bank.example"
    assert name.asked(CAMERA, SITE) == "ads.example"
    assert name.asked(CAMERA, SITE, NOW - 1) is None


def test_reverse_tells_whether_a_name_is_confirmed(known: Names) -> None:
    assert known.reverse(SITE) == (None, "none")
    pointing(known, SITE, "edge.example")
    assert known.reverse(SITE) == ("edge.example", "ptr_unconfirmed")
    pointing(known, SITE, "edge.example", confirmed=True)
    assert known.reverse(SITE) == ("edge.example", "ptr")


def test_a_question_over_ipv4_names_the_same_device_s_flow_over_ipv6(known: Names) -> None:
    tell(known, LEASE + ASKED)
    assert known.asked(CAMERA6, "fd77::2:3:0:0:80") is None
    tell(known, NEIGHBOUR)
    assert known.asked(CAMERA6, "fd77::2:3:0:0:80") == "news.example"
    assert known.device(CAMERA6) == known.device(CAMERA) == Device("camera", MAC)
    assert known.mac(CAMERA6) == MAC


def test_a_question_from_before_the_mac_was_known_still_counts(known: Names) -> None:
    tell(known, ASKED + LEASE)
    assert known.asked(CAMERA, SITE) == "news.example"


def test_what_was_asked_long_before_the_mac_was_known_is_nobody_s() -> None:
    clock = SetClock()
    name = made(clock)
    tell(name, ASKED)
    clock.time += UNKNOWN - SECOND
    tell(name, question("late.example", "198.18.4.4"))
    clock.time += 2 * SECOND
    assert name.asked(CAMERA, SITE) == "news.example"
    tell(name, LEASE)
    assert name.asked(CAMERA, SITE) is None
    assert name.asked(CAMERA, "198.18.4.4") == "late.example"


def test_a_device_that_comes_from_another_address_has_not_asked_from_this_one(known: Names) -> None:
    tell(known, LEASE.replace("0.20", "0.30") + question("bank.example", "198.18.4.4", "10.99.0.30") + ASKED)
    assert known.asked(CAMERA, SITE) == "news.example"
    tell(known, LEASE)
    assert known.asked(CAMERA, SITE) is None
    assert known.asked(CAMERA, "198.18.4.4") == "bank.example"
    # But an IPv6 address is one of many.
    tell(known, question("six.example", SITE, CAMERA6) + NEIGHBOUR)
    assert known.asked(CAMERA6, SITE) == "six.example"


def test_an_address_that_moves_takes_no_question_along(known: Names) -> None:
    other = LEASE.replace("dd:01 Camera", "dd:02 tv")
    tell(known, ASKED + LEASE + other)
    assert known.asked(CAMERA, SITE) is None
    tell(known, ASKED + LEASE)
    assert known.asked(CAMERA, SITE) is None
    tell(known, other)
    assert known.asked(CAMERA, SITE) == "news.example"


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
def test_no_line_raises(program: str, text: str, octets: bytes) -> None:
    name = made()
    for line in (text, octets.decode("utf-8", "surrogateescape"), octets.decode("latin-1")):
        for of in (program, "dnsmasq", "dnsmasq-dhcp", "odhcpd"):
            name.observe(line, of, line)
        name.observe(line, "wrtflow-net", line)
        name.observe("OpenWrt", "wrtflow-net", f"neigh {line} {line}")
        name.observe("OpenWrt", "wrtflow-net", f"lease {CAMERA} {MAC} {line}")


def test_all_is_known_again_after_a_restart_but_of_who_is_left_out(tmp_path: Path) -> None:
    for left_out in ((), (), (MAC,)):
        of = state(tmp_path)
        name = made(of=of, left_out=left_out)
        of.open()
        name.load()
        if of.report()["rows_skipped"] == 0 and not name.stats()["dns_kept"] and not left_out:
            tell(name, LEASE + NEIGHBOUR + ASKED + "dnsmasq-dhcp: SLAAC-CONFIRM(br-lan) fd99::2 tablet")
        assert name.device("fd99::2") == Device("tablet", None)
        assert name.device(CAMERA6) == Device(None if left_out else "camera", MAC)
        assert name.asked(CAMERA6, SITE) == (None if left_out else "news.example")
        of.save()
        of.close()
    tell(name, LEASE + ASKED)
    assert name.stats()["dns_kept"] == 0


def test_what_a_device_asked_for_is_forgotten_when_it_is_known_to_be_left_out() -> None:
    name = made(left_out=(MAC,))
    tell(name, ASKED)
    assert name.stats()["dns_kept"]
    tell(name, LEASE)
    assert name.stats()["dns_kept"] == 0


def test_what_grows_too_old_is_let_go_of() -> None:
    clock = SetClock()
    name = made(clock)
    tell(name, LEASE + ASKED)
    pointing(name, SITE, "a.example")
    clock.time += 40 * DAY
    name.refresh()
    stats = name.stats()
    assert [stats[kind] for kind in ("dns_kept", "devices_known", "addresses_known", "ptr_kept")] == [0] * 4


def test_threads_that_tell_and_ask_at_once_do_no_harm(tmp_path: Path) -> None:
    of = state(tmp_path)
    name = made(of=of)
    of.open()
    failures: list[BaseException] = []

    def work(own: int) -> None:
        try:
            for number in range(1000):
                device, remote = f"10.{own % 2}.0.{number % 100}", f"198.18.{number % 7}.{number % 200}"
                tell(name, question(f"n{number % 9}.example", remote, device))
                tell(name, f"dnsmasq-dhcp: DHCPACK(x) {device} 02:00:00:00:{own:02x}:{number % 100:02x} n")
                name.asked(device, remote)
                name.device(device)
                if number % 100 == own:
                    name.refresh()
                    of.save()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    of.close()
    assert failures == []
