"""wrtflow.passive_dns: the name that a device asked for, from lines as dnsmasq 2.91 wrote them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from naming import DAY, NOW, SECOND, state
from wrtflow import passive_dns as module
from wrtflow.passive_dns import ANSWERED, DNS_TTL, LATELY, OPEN_QUERIES, WAITING, PassiveDns
from wrtflow.state import State
from wrtflow.wellformed import LONGEST

ROUTER = "OpenWrt"


def made(identity: Callable[[str], str] = str, of: State | None = None) -> PassiveDns:
    return PassiveDns(of or state(), identity)


def fed(lines: str, now: int = NOW) -> PassiveDns:
    passive = made()
    feed(passive, lines, now)
    return passive


def feed(passive: PassiveDns, lines: str, now: int = NOW, observer: str = ROUTER) -> None:
    for line in lines.strip().splitlines():
        passive.observe(observer, line, now)


def test_the_name_asked_for_is_the_address_s_name() -> None:
    passive = fed("""
1 10.99.0.20/47890 query[A] www.photoprint.example from 10.99.0.20
1 10.99.0.20/47890 forwarded www.photoprint.example to 198.18.0.53
1 10.99.0.20/47890 reply www.photoprint.example is 198.18.1.80
""")
    assert passive.name("10.99.0.20", "198.18.1.80", NOW) == "www.photoprint.example"
    # To another device, and for another address, it is nothing.
    assert passive.name("10.99.0.21", "198.18.1.80", NOW) is None
    assert passive.name("10.99.0.20", "198.18.0.53", NOW) is None
    assert [passive.counts[what] for what in ("dns_queries", "dns_answers", "names_invalid")] == [1, 1, 0]


def test_aaaa() -> None:
    passive = fed("""
2 10.99.0.20/59152 query[AAAA] www.photoprint.example from 10.99.0.20
2 10.99.0.20/59152 forwarded www.photoprint.example to 198.18.0.53
2 10.99.0.20/59152 reply www.photoprint.example is fd77::2:1:0:0:80
""")
    assert passive.name("10.99.0.20", "fd77::2:1:0:0:80", NOW) == "www.photoprint.example"


def test_a_chain_of_aliases_ends_at_the_name_asked_for() -> None:
    passive = fed("""
3 10.99.0.20/40686 query[A] news.example from 10.99.0.20
3 10.99.0.20/40686 forwarded news.example to 198.18.0.53
3 10.99.0.20/40686 reply news.example is <CNAME>
3 10.99.0.20/40686 reply mid.cdn.example is <CNAME>
3 10.99.0.20/40686 reply edge.cdn.example is 198.18.3.80
4 10.99.0.21/42351 query[A] news.example from 10.99.0.21
4 10.99.0.21/42351 cached news.example is <CNAME>
4 10.99.0.21/42351 cached mid.cdn.example is <CNAME>
4 10.99.0.21/42351 cached edge.cdn.example is 198.18.3.80
""")
    assert passive.name("10.99.0.20", "198.18.3.80", NOW) == "news.example"
    assert passive.name("10.99.0.21", "198.18.3.80", NOW) == "news.example"


def test_a_cached_alias_whose_end_is_asked_for_over_ipv6() -> None:
    passive = fed("""
5 fd99::20/46432 query[AAAA] news.example from fd99::20
5 fd99::20/46432 cached news.example is <CNAME>
5 fd99::20/46432 cached mid.cdn.example is <CNAME>
5 fd99::20/46432 forwarded news.example to 198.18.0.53
5 fd99::20/46432 reply news.example is <CNAME>
5 fd99::20/46432 reply mid.cdn.example is <CNAME>
5 fd99::20/46432 reply edge.cdn.example is fd77::2:3:0:0:80
""")
    assert passive.name("fd99::20", "fd77::2:3:0:0:80", NOW) == "news.example"


def test_who_waits_for_the_same_answer_gets_it_too() -> None:
    passive = fed("""
1 10.99.0.20/36063 query[A] news.example from 10.99.0.20
1 10.99.0.20/36063 forwarded news.example to 198.18.0.99
2 10.99.0.21/59077 query[A] news.example from 10.99.0.21
3 10.99.0.22/59078 query[A] other.example from 10.99.0.22
1 10.99.0.20/36063 reply news.example is <CNAME>
1 10.99.0.20/36063 reply edge.cdn.example is 198.18.3.80
1 10.99.0.20/36063 reply edge.cdn.example is 198.18.3.81
2 10.99.0.21/59077 reply query is duplicate
3 10.99.0.22/59078 reply query is duplicate
""")
    assert passive.name("10.99.0.21", "198.18.3.80", NOW) == "news.example"
    assert passive.name("10.99.0.21", "198.18.3.81", NOW) == "news.example"
    # What was last answered isn't what this one waited for.
    assert passive.name("10.99.0.22", "198.18.3.80", NOW) is None


def test_a_repeated_query_of_the_same_name_answers_with_its_own_addresses_only() -> None:
    passive = fed("""
1 10.99.0.20/1001 query[A] news.example from 10.99.0.20
1 10.99.0.20/1001 reply news.example is 198.18.3.80
2 10.99.0.20/1002 query[A] news.example from 10.99.0.20
3 10.99.0.21/1003 query[A] news.example from 10.99.0.21
2 10.99.0.20/1002 reply news.example is 198.18.3.81
3 10.99.0.21/1003 reply query is duplicate
""")
    assert passive.name("10.99.0.21", "198.18.3.81", NOW) == "news.example"
    assert passive.name("10.99.0.21", "198.18.3.80", NOW) is None


def test_hosts_leases_configuration_tcp_protocol_and_dnssec() -> None:
    passive = fed("""
116 10.99.0.20/43406 query[A] myrouter.lan from 10.99.0.20
116 10.99.0.20/43406 /tmp/hosts myrouter.lan is 10.99.0.1
324 10.99.0.20/48978 query[A] camera.lan from 10.99.0.20
324 10.99.0.20/48978 DHCP camera.lan is 10.99.0.134
118 10.99.0.20/37291 query[A] fixed.example from 10.99.0.20
118 10.99.0.20/37291 config fixed.example is 198.18.9.1
TCP 7 10.99.0.21/55659 query[A] v4only.example from 10.99.0.21
TCP 7 10.99.0.21/55659 forwarded v4only.example to 198.18.0.99
TCP 7 10.99.0.21/55659 reply v4only.example is 198.18.4.4
8 10.99.0.21/55660 query[A] signed.example from 10.99.0.21
8 10.99.0.21/55660 dnssec-query[DS] example to 198.18.0.99
8 10.99.0.21/55660 validation result is SECURE
8 10.99.0.21/55660 reply signed.example is 198.18.4.5 (DNSSEC signed)
""")
    assert passive.name("10.99.0.20", "10.99.0.1", NOW) == "myrouter.lan"
    assert passive.name("10.99.0.20", "10.99.0.134", NOW) == "camera.lan"
    assert passive.name("10.99.0.20", "198.18.9.1", NOW) == "fixed.example"
    assert passive.name("10.99.0.21", "198.18.4.4", NOW) == "v4only.example"
    assert passive.name("10.99.0.21", "198.18.4.5", NOW) == "signed.example"


NAMELESS = {
    "no such name": """
7 10.99.0.20/47341 query[A] nowhere.example from 10.99.0.20
7 10.99.0.20/47341 forwarded nowhere.example to 198.18.0.53
7 10.99.0.20/47341 reply nowhere.example is NXDOMAIN
""",
    "no such record": """
9 10.99.0.20/58292 query[AAAA] v4only.example from 10.99.0.20
9 10.99.0.20/58292 reply v4only.example is NODATA-IPv6
""",
    "blocked": """
117 10.99.0.20/56166 query[A] ads.example from 10.99.0.20
117 10.99.0.20/56166 config ads.example is 0.0.0.0
118 10.99.0.20/56167 query[AAAA] ads.example from 10.99.0.20
118 10.99.0.20/56167 config ads.example is ::
""",
    "reverse": """
10 10.99.0.20/38620 query[PTR] 80.1.18.198.in-addr.arpa from 10.99.0.20
10 10.99.0.20/38620 reply 198.18.1.80 is www.photoprint.example
11 10.99.0.20/52490 query[PTR] 9.9.18.198.in-addr.arpa from 10.99.0.20
11 10.99.0.20/52490 reply 198.18.9.9 is 1.2.3.4
12 10.99.0.20/52491 query[PTR] 9.9.18.198.in-addr.arpa from 10.99.0.20
12 10.99.0.20/52491 cached 198.18.9.9 is 1.2.3.4
""",
    "a text that reads as an address": """
13 10.99.0.20/44351 query[TXT] txt.example from 10.99.0.20
13 10.99.0.20/44351 reply txt.example is 1.2.3.4
13 10.99.0.20/44351 reply txt.example is hello world is 6.6.6.6
""",
    "other types": """
14 10.99.0.20/55761 query[HTTPS] www.photoprint.example from 10.99.0.20
14 10.99.0.20/55761 reply www.photoprint.example is NODATA
16 10.99.0.20/37287 query[ANY] www.photoprint.example from 10.99.0.20
16 10.99.0.20/37287 reply www.photoprint.example is <A>
""",
    "the router itself": """
323 127.0.0.1/33777 query[A] www.photoprint.example from 127.0.0.1
323 127.0.0.1/33777 cached www.photoprint.example is 198.18.1.80
324 ::1/33777 query[A] www.photoprint.example from ::1
324 ::1/33777 cached www.photoprint.example is 198.18.1.80
""",
    "a name that can't be one": """
319 10.99.0.20/34288 query[A] <name unprintable> from 10.99.0.20
319 10.99.0.20/34288 reply <name unprintable> is 6.6.6.6
320 10.99.0.20/34289 query[A] 8.8.8.8 from 10.99.0.20
320 10.99.0.20/34289 config 8.8.8.8 is 8.8.8.8
321 10.99.0.20/49861 query[A] . from 10.99.0.20
321 10.99.0.20/49861 reply . is 6.6.6.6
322 10.99.0.20/49862 query[A] SRC=6.6.6.6 from 10.99.0.20
322 10.99.0.20/49862 reply SRC=6.6.6.6 is 6.6.6.6
""",
    "a name that reads as the rest of the line": """
318 10.99.0.20/38840 query[A] evil from 10.99.0.21 from 10.99.0.20
318 10.99.0.20/38840 query[A] evil from 10.99.0.21.example from 10.99.0.20
318 10.99.0.20/38840 reply evil is 6.6.6.6 is 7.7.7.7
318 10.99.0.20/38840 reply evil from 10.99.0.21.example is NXDOMAIN
""",
    "an answer without a query": "3 10.99.0.20/40686 reply news.example is 198.18.3.80",
    "not of the query log": """
started, version 2.91 cachesize 150
using nameserver 198.18.0.53#53
read /tmp/hosts - 2 names
exiting on receipt of SIGTERM

""",
}


@pytest.mark.parametrize("lines", NAMELESS.values(), ids=NAMELESS.keys())
def test_nothing_is_named_by(lines: str) -> None:
    assert len(fed(lines).records) == 0


def test_equal_query_numbers_of_two_routers_are_two_queries() -> None:
    passive = made()
    feed(passive, "1 10.99.0.20/1 query[A] a.example from 10.99.0.20", observer="one")
    feed(passive, "1 10.99.0.20/1 reply a.example is 198.18.1.1", observer="two")
    assert len(passive.records) == 0
    feed(passive, "1 10.99.0.20/1 reply a.example is 198.18.1.1", observer="one")
    assert passive.name("10.99.0.20", "198.18.1.1", NOW) == "a.example"


def asked(name: str, remote: str, device: str = "10.99.0.20", number: int = 1) -> str:
    head = f"{number} {device}/{20000 + number}"
    return f"{head} query[A] {name} from {device}\n{head} cached {name} is {remote}\n"


def test_names_are_stored_in_lower_case_and_without_the_last_dot() -> None:
    passive = fed(
        asked("WWW.PhotoPrint.Example.", "198.18.1.80") + asked("xn--bro-hoa.example", "198.18.1.81")
    )
    assert passive.name("10.99.0.20", "198.18.1.80", NOW) == "www.photoprint.example"
    assert passive.name("10.99.0.20", "198.18.1.81", NOW) == "xn--bro-hoa.example"


def test_of_several_names_the_device_s_own_latest_wins() -> None:
    passive = fed(asked("a.example", "198.18.1.1"))
    feed(passive, asked("b.example", "198.18.1.1"), NOW + 10)
    feed(passive, asked("c.example", "198.18.1.1", device="10.99.0.21"), NOW + 20)
    assert passive.name("10.99.0.20", "198.18.1.1", NOW + 30) == "b.example"
    assert passive.name("10.99.0.21", "198.18.1.1", NOW + 30) == "c.example"


def test_a_device_is_what_identity_makes_of_its_address() -> None:
    passive = made(identity={"10.99.0.20": "camera", "10.99.0.9": ""}.__getitem__)
    feed(passive, asked("a.example", "198.18.1.1") + asked("b.example", "198.18.1.2", device="10.99.0.9"))
    assert passive.name("camera", "198.18.1.1", NOW) == "a.example"
    assert len(passive.records) == 1


def test_what_a_device_asked_for_can_be_forgotten() -> None:
    passive = fed(asked("a.example", "198.18.1.1") + asked("a.example", "198.18.1.1", device="10.99.0.2"))
    passive.shares.forget("10.99.0.2")
    assert passive.name("10.99.0.2", "198.18.1.1", NOW) is None
    assert passive.name("10.99.0.20", "198.18.1.1", NOW) == "a.example"


# Hostile lines.

_KNOWN_WORDS = """1 UDP TCP reply cached query[A] query[AAAA] query[PTR] is from to <CNAME> duplicate query forwarded
    10.99.0.20/1 10.99.0.20 127.0.0.1 a.example b.example 198.18.1.1 :: 1.2.3.4 (DNSSEC signed)"""
_WORDS = st.one_of(st.sampled_from(_KNOWN_WORDS.split()), st.text(max_size=8))


@given(st.lists(st.lists(_WORDS, max_size=9).map(" ".join), max_size=12))
def test_any_text_is_taken_and_gives_right_names_or_none(lines: list[str]) -> None:
    passive = made()
    for line in lines:
        passive.observe(ROUTER, line, NOW)
    for key in passive.records:
        device, remote = key.split(" ")
        name = passive.name(device, remote, NOW)
        # Somebody asked for it in these very words, and the address was in an answer.
        assert any(name in line.lower().split() and "query[A" in line for line in lines if name)
        assert any(remote in line.split() or ":" in remote for line in lines)


@given(st.text(), st.binary())
def test_no_text_raises(text: str, octets: bytes) -> None:
    passive = made()
    for line in (text, octets.decode("utf-8", "surrogateescape"), octets.decode("latin-1")):
        passive.observe(line, line, NOW)
        passive.observe(ROUTER, f"1 10.99.0.20/1 query[A] {line} from 10.99.0.20", NOW)
        passive.observe(ROUTER, f"1 10.99.0.20/1 reply {line} is 198.18.1.1", NOW)
        passive.observe(ROUTER, f"1 10.99.0.20/1 reply a is {line}", NOW)
        passive.observe(ROUTER, f"query[A] {line} from {line}", NOW)
        passive.observe(ROUTER, f"cached {line} is {line}", NOW)


def test_a_huge_line_is_counted_and_costs_nothing() -> None:
    passive = fed("1 10.99.0.20/1 query[A] " + "a" * LONGEST + " from 10.99.0.20")
    assert passive.counts["names_invalid"] == 1
    passive.observe(ROUTER, "is from " * 1_000_000, NOW)
    assert passive.counts["names_invalid"] == 2


def test_a_flow_has_the_name_that_was_asked_for_last_before_it() -> None:
    passive = made()
    for second, name in enumerate(("ads", "bank", "bank", "ads", "news")):
        feed(passive, asked(f"{name}.example", "198.18.1.1"), NOW + second * 100 * SECOND)
    for second, name in ((50, "ads"), (150, "bank"), (250, "bank"), (350, "ads"), (450, "news")):
        assert passive.name("10.99.0.20", "198.18.1.1", NOW + second * SECOND) == f"{name}.example"
    # Older than every question: it did not ask.
    assert passive.name("10.99.0.20", "198.18.1.1", NOW - 1) is None


def test_a_name_lives_as_long_as_its_ttl_after_it_was_last_asked_for() -> None:
    passive = fed(asked("a.example", "198.18.1.1"))
    assert passive.name("10.99.0.20", "198.18.1.1", NOW + DNS_TTL) == "a.example"
    assert passive.name("10.99.0.20", "198.18.1.1", NOW + DNS_TTL + 1) is None
    passive.shares.refresh(NOW + DNS_TTL)
    assert len(passive.records) == 1
    passive.shares.refresh(NOW + DNS_TTL + 1)
    assert len(passive.records) == 0


def test_asking_again_at_once_is_not_written_again() -> None:
    passive = fed(asked("a.example", "198.18.1.1"))
    assert passive.records.table.changes()
    feed(passive, asked("a.example", "198.18.1.1"), NOW + DNS_TTL // 1000 - 1)
    assert not passive.records.table.changes()
    feed(passive, asked("a.example", "198.18.1.1"), NOW + DNS_TTL // 1000)
    assert passive.records.table.changes()


def flood(passive: PassiveDns, count: int, device: Callable[[int], str], now: int = NOW) -> None:
    for number in range(count):
        remote = f"198.18.{number >> 8}.{number & 255}"
        feed(passive, asked(f"n{number}.example", remote, device(number), number), now)


def test_a_device_that_asks_many_names_loses_its_own_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DNS_OF_DEVICE", 50)
    passive = fed(asked("a.example", "198.18.1.1"))
    flood(passive, 500, lambda _: "10.99.0.66")
    assert passive.name("10.99.0.20", "198.18.1.1", NOW) == "a.example"
    assert passive.name("10.99.0.66", "198.18.1.243", NOW) == "n499.example"
    assert (len(passive.records), passive.counts["dns_replaced"]) == (51, 450)


def test_devices_that_are_faked_are_refused_until_others_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DNS_SIZE", 50)
    passive = fed(asked("a.example", "198.18.1.1"))
    flood(passive, 200, lambda number: f"fd99::{number:x}")
    assert passive.name("10.99.0.20", "198.18.1.1", NOW) == "a.example"
    assert (len(passive.records), passive.counts["dns_refused"]) == (50, 151)
    # Whoever is known replaces its own.
    feed(passive, asked("b.example", "198.18.1.2"))
    assert passive.name("10.99.0.20", "198.18.1.2", NOW) == "b.example"
    feed(passive, asked("c.example", "198.18.1.3", "10.99.0.21"), NOW + LATELY)
    assert passive.name("10.99.0.21", "198.18.1.3", NOW + LATELY) == "c.example"
    assert len(passive.records) == 50


def test_queries_without_answers_cost_nobody_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERIES", 1 + OPEN_QUERIES + 18)
    passive = fed("1 10.99.0.20/1 query[A] a.example from 10.99.0.20")
    for number in range(1000):
        feed(passive, f"{number} 10.99.0.66/1 query[A] n.example from 10.99.0.66")
    for number in range(1000):
        feed(passive, f"{number} fd99::{number:x}/1 query[A] n.example from fd99::{number:x}")
    feed(passive, "1 10.99.0.20/1 reply a.example is 198.18.1.1")
    assert passive.name("10.99.0.20", "198.18.1.1", NOW) == "a.example"
    assert len(passive._queries) == 1 + OPEN_QUERIES + 18
    assert passive.counts["dns_queries_replaced"] == 1000 - OPEN_QUERIES
    assert passive.counts["dns_queries_refused"] == 982
    feed(passive, asked("b.example", "198.18.1.2", "10.99.0.21"), NOW + ANSWERED)
    assert passive.name("10.99.0.21", "198.18.1.2", NOW + ANSWERED) == "b.example"


def test_routers_and_who_waits_are_bounded() -> None:
    passive = made()
    for number in range(200):
        feed(passive, asked("a.example", "198.18.1.1"), observer=f"router{number}")
        assert len(passive._answers) <= module.ROUTERS
    assert len(passive._queries) == OPEN_QUERIES
    for number in range(WAITING + 9):
        feed(passive, f"1 10.99.0.20/20001 reply a.example is 198.18.0.{number}", observer="router199")
    assert len(passive._answers["router199"][1]) == WAITING


@pytest.mark.parametrize("told", [NOW, NOW + 1000 * DAY])
def test_names_come_back_after_a_restart_whatever_the_clock_was(tmp_path: Path, told: int) -> None:
    before = state(tmp_path)
    passive = made(of=before)
    before.open()
    feed(passive, asked("a.example", "198.18.1.1") + asked("b.example", "198.18.1.1"), told)
    feed(passive, asked("c.example", "198.18.1.1", "10.99.0.9"), told)
    passive.records.table.put("10.99.0.8 198.18.1.1", [])
    before.save()
    before.close()
    after = state(tmp_path)
    passive = made({"10.99.0.20": "10.99.0.20", "10.99.0.9": ""}.__getitem__, after)
    after.open()
    passive.load(NOW)
    after.close()
    assert passive.name("10.99.0.20", "198.18.1.1", NOW) == "b.example"
    assert passive.name("10.99.0.20", "198.18.1.1", NOW + DNS_TTL + 1) is None
    # That of a device that is left out is not.
    assert len(passive.records) == 1
