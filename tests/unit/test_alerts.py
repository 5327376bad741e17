"""The alerts: chain and house against flows in memory, delivery to a real HTTP receiver and to a sendmail double."""

import http.server
import json
import threading
import time
import urllib.parse
from collections import Counter
from dataclasses import replace
from pathlib import Path

import elastic
import pytest
from wrtflow import __main__ as collector_tool
from wrtflow_alerts import __main__ as tool
from wrtflow_alerts import memory, message, post, rules, storage, watch
from wrtflow_alerts.settings import Settings, iso

ROLE = Path(__file__).parents[2] / "roles/alerts"
RULES = rules.load(ROLE / "files/rules.toml")

#: Tuesday, 1 December 2026, 12:00 UTC.
NOW = 1796126400.0
HOUR, DAY = 3600, 86400

COUNTRIES = {"DE": "Germany", "CN": "China", "HU": "Hungary", "US": "United States"}


class Receiver(http.server.ThreadingHTTPServer):
    """A webhook and ntfy, which may be away or refuse."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[str, dict, str | None]] = []
        self.status = 200
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"

    @property
    def messages(self) -> list[dict]:
        return [content for path, content, _ in self.got if path == "/hook"]

    @property
    def titles(self) -> list[str]:
        return [each["title"] for each in self.messages]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 200:
            self.server.got.append((self.path, json.loads(content), self.headers["Authorization"]))
        self.send_response(self.server.status)
        self.send_header("Location", self.server.url)
        self.end_headers()

    def do_GET(self):
        """Answer as a web page does: a redirected POST ends here."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


class House:
    """Flows in memory, a health record, a clock, and the program that looks at them."""

    def __init__(self, folder, monkeypatch, receiver, **settings) -> None:
        self.core, self.receiver = elastic.Core(), receiver
        self.settings = Settings(
            "https://storage:9200", "ca", "key", kibana_url="https://kibana:5601", timezone="Europe/Berlin",
            webhook_url=receiver.url, sendmail=str(folder / "sendmail"), **settings,
        )  # fmt: skip
        self.now, self.rules = NOW, dict(RULES)
        self.lines = 0
        self.record = {
            "pid": 1, "flows": {"lines": 0}, "queue": {"waiting": 0, "bytes": 0, "capacity": 1000},
            "delivery": {"reason": None, "spool": {"documents": 0}}, "databases": {"GeoLite2-City": 3.0},
            "firewall": {"loaded": True, "strangers": {}}, "senders": {"strangers": 0}, "faults": [],
        }  # fmt: skip
        self.file = memory.File(folder / "alerts.json")
        monkeypatch.setattr(storage.Storage, "ask", lambda _, path, body=None: self.core.ask(path, body))
        monkeypatch.setattr(watch.time, "time", lambda: self.now)
        monkeypatch.setattr(watch.chain, "_used", lambda path: 0.5)

    def flow(self, device="laptop", at=None, country=None, first=False, port=443, **more) -> dict:
        """Have a flow stored that ended at a time (NOW unless given)."""
        document = {
            "@timestamp": iso(self.now if at is None else at),
            "observer": {"type": more.pop("observer", "router"), "hostname": more.pop("router", "attic")},
            "network": {"direction": more.pop("direction", "outbound")},
            "source": {"ip": more.pop("ip", "192.168.1.20")},
            "destination": {"ip": "198.51.100.7", "port": port, "domain": "site.example"},
            "wrtflow": {"device": device, "first_seen": first},
        }
        if mac := more.pop("mac", None):
            document["source"]["mac"] = mac
            document["device"] = {"manufacturer": more.pop("maker", "Espressif Inc.")}
        if country:
            document["destination"]["geo"] = {
                "country_iso_code": country, "country_name": COUNTRIES[country]
            }  # fmt: skip
        assert not more
        self.core.documents.append(document)
        return document

    def look(
        self, minutes: float = 0, health: bool = True, lines: bool = True, again: bool = True
    ) -> list[str]:
        """Let time pass and look, as after a restart. Returns the titles of what came."""
        self.now += minutes * 60
        if lines:
            self.lines += 1
            if again:
                self.flow("laptop", country="DE")
        self.record |= {"written": iso(self.now), "flows": {"lines": self.lines}}
        before = len(self.receiver.titles)
        kept = self.file.load()
        watch.Watch(self.settings, self.rules, kept).look(
            self.record if health else {}, lambda: self.file.save(kept)
        )
        return self.receiver.titles[before:]


@pytest.fixture
def receiver():
    server = Receiver()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def houses(tmp_path, monkeypatch, receiver):
    def make(**settings):
        made = House(tmp_path, monkeypatch, receiver, **settings)
        # A house that has been there for a month: laptop and camera know Germany.
        for day in range(1, 30):
            made.flow("laptop", NOW - day * DAY, "DE", mac="AA-BB-CC-00-00-01")
            made.flow("camera", NOW - day * DAY, "DE", mac="AA-BB-CC-00-00-02", ip="192.168.1.21")
        return made

    return make


@pytest.fixture
def house(houses):
    return houses()


class TestHouse:
    def test_a_usual_day_has_nothing_to_tell(self, house):
        for _ in range(5):
            assert house.look(1) == []

    def test_a_first_contact_to_a_country_is_told_once_with_all_that_a_person_needs(self, house):
        house.look()
        house.flow("camera", country="CN", first=True, mac="AA-BB-CC-00-00-02", maker="Gadget Ltd")
        assert house.look(1) == ["camera has called China (site.example) for the first time"]
        (told,) = house.receiver.messages
        assert (told["rule"], told["device"], told["since"]) == ("first-country", "camera", iso(NOW))
        assert told["manufacturer"] == "Gadget Ltd"
        assert "Since: Tue 1 Dec, 13:00" in told["text"]
        address = urllib.parse.unquote(told["link"])
        assert address.startswith("https://kibana:5601/app/dashboards#/view/wrtflow-device?")
        assert "from:'2026-12-01T11:00:00.000Z',to:'2026-12-01T13:00:00.000Z'" in address
        assert '\'wrtflow.device: "camera" and destination.geo.country_iso_code: "CN"\'' in address
        house.flow("camera", country="CN", mac="AA-BB-CC-00-00-02")
        assert house.look(1) == []

    def test_the_first_contact_to_another_network_of_a_known_country_is_none(self, house):
        house.look()
        house.flow("camera", country="DE", first=True, mac="AA-BB-CC-00-00-02")
        assert house.look(1) == []

    def test_a_device_that_was_renamed_has_not_met_its_countries_for_the_first_time(self, house):
        house.look()
        house.flow("garden", country="DE", first=True, mac="AA-BB-CC-00-00-02")
        assert house.look(1) == []

    @pytest.mark.parametrize(("hours", "told"), [(23, 0), (25, 1)])
    def test_in_its_first_day_everything_is_new_to_a_device(self, house, hours, told):
        house.flow("tv", NOW - hours * HOUR, "DE", mac="AA-BB-CC-00-00-03")
        house.look()
        house.flow("tv", NOW + 30, "CN", first=True, mac="AA-BB-CC-00-00-03")
        assert len([title for title in house.look(1) if "China" in title]) == told

    def test_a_new_device_is_told_with_its_manufacturer(self, house):
        house.look()
        house.flow("esp", mac="AA-BB-CC-00-00-09", ip="192.168.1.77")
        assert house.look(1) == ["A new device is in the house: esp"]
        assert "Espressif Inc., AA-BB-CC-00-00-09, 192.168.1.77" in house.receiver.messages[0]["text"]
        assert house.look(1) == []

    def test_a_new_device_that_gets_its_name_a_moment_later_is_one(self, house):
        house.look()
        house.flow("AA-BB-CC-00-00-09", NOW + 1, mac="AA-BB-CC-00-00-09")
        house.flow("esp", NOW + 20, mac="AA-BB-CC-00-00-09")
        assert house.look(1) == ["A new device is in the house: esp"]
        assert house.look(1) == []

    def test_a_known_device_with_another_name_or_another_mac_is_not_new(self, house):
        house.look()
        house.flow("webcam", mac="AA-BB-CC-00-00-02")
        house.flow("laptop", mac="AA-BB-CC-00-00-0F")
        assert house.look(1) == []

    def test_what_was_forgotten_is_looked_up_in_the_past(self, house):
        house.flow("camera", mac="AA-BB-CC-00-00-02")
        assert house.look() == []
        house.file._path.unlink()
        assert house.look(1) == []

    def test_when_a_house_begins_everything_is_new(self, house):
        house.core.documents.clear()
        house.flow("laptop", NOW - 23 * HOUR)
        house.flow("esp", mac="AA-BB-CC-00-00-09")
        assert house.look() == []
        # Known by now.
        assert house.look(24 * 60) == []

    def test_an_address_is_a_device_only_if_nobody_tells_whose_it_is(self, house):
        house.look()
        house.flow("192.168.1.50", ip="192.168.1.50")
        house.flow("192.168.1.51", ip="192.168.1.51")
        house.flow("2001:db8::5", ip="2001:db8::5")
        house.flow("laptop", NOW + 30, ip="192.168.1.51", mac="AA-BB-CC-00-00-01")
        assert house.look(1) == []
        assert house.look(10) == ["A new device is in the house: 192.168.1.50"]

    def test_what_an_access_point_sees_is_not_seen_again(self, house):
        house.look()
        house.flow("esp", mac="AA-BB-CC-00-00-09", observer="access_point")
        house.flow("camera", port=53, observer="access_point")
        assert house.look(1) == []

    def test_ports_that_flows_to_outside_should_not_go_to(self, house):
        house.look()
        house.flow("camera", port=53, ip="192.168.1.21")
        house.flow("camera", port=853, ip="192.168.1.21")
        house.flow("camera", port=23, ip="192.168.1.21")
        house.flow("laptop", port=53, direction="internal")
        assert sorted(house.look(1)) == [
            "camera asks for names past the router: port 53 and 853 of site.example",
            "camera logs in without encryption: port 23 of site.example",
        ]
        house.flow("camera", port=53, ip="192.168.1.21")
        assert house.look(1) == []

    def test_it_is_told_again_after_a_month_of_quiet(self, house):
        house.look()
        house.flow("camera", port=53)
        assert len(house.look(1)) == 1
        house.look(120)
        house.look(31 * 24 * 60)
        house.flow("camera", port=53)
        assert len(house.look(1)) == 1

    def test_a_rule_of_ones_own(self, house, tmp_path):
        own = tmp_path / "rules.toml"
        own.write_text('[mail]\nsay = "{device} sends mail: {what}"\ndo = "Ask it why."\nports = [25]\n')
        house.rules = rules.load(own)
        house.flow("camera", port=25)
        assert house.look() == ["camera sends mail: port 25 of site.example"]

    def test_flows_that_come_late_are_looked_at_all_the_same(self, house):
        house.look()
        house.record["queue"]["waiting"] = 9
        for _ in range(6):
            house.look(60, again=False)
        house.record["queue"]["waiting"] = 0
        house.flow("camera", NOW + HOUR, "CN", first=True)
        assert "camera has called China (site.example) for the first time" in house.look(1)

    def test_flows_from_while_elasticsearch_was_away(self, house):
        house.look()
        house.core.fault = storage.StorageError("away")
        for _ in range(6):
            house.look(60)
        house.core.fault = None
        house.flow("camera", NOW + HOUR, "CN", first=True)
        assert "camera has called China (site.example) for the first time" in house.look(1)


class TestChain:
    def test_a_fault_is_told_when_it_has_lasted_and_once_more_when_it_is_over(self, house):
        house.look()
        house.record["faults"] = ["state: the disk is full, 87 times"]
        assert house.look(1) == []
        house.record["faults"] = ["state: the disk is full, 99 times"]
        assert house.look(4) == []
        assert house.look(1) == ["The collector has a fault: state: the disk is full, 99 times"]
        assert house.look(60) == []
        house.record["faults"] = []
        assert house.look(1) == []
        assert house.look(2) == ["Well again: the fault is over (state: the disk is full, 99 times)"]
        assert [each["state"] for each in house.receiver.messages] == ["alert", "well again"]
        assert '99 times" is over since Tue 1 Dec, 14:07, after 66 min.' in house.receiver.messages[1]["text"]
        assert house.look(5) == []

    def test_what_comes_and_goes_is_one_fault(self, house):
        house.record["faults"] = ["it flaps"]
        house.look()
        assert len(house.look(5)) == 1
        for _ in range(5):
            house.record["faults"] = []
            assert house.look(1) == []
            house.record["faults"] = ["it flaps"]
            assert house.look(1) == []

    def test_routers_that_are_silent(self, house):
        house.look()
        assert house.look(29, lines=False) == []
        assert house.look(1, lines=False) == ["attic is silent: no line has come for 30 minutes"]
        assert house.receiver.messages[0]["since"] == iso(NOW)
        assert house.receiver.messages[0]["device"] == "attic"
        link = house.receiver.messages[0]["link"]
        assert "wrtflow-health?" in link
        assert "observer.hostname" in link
        # A restart of syslog-ng brings no line, and its counter begins at 0.
        house.record["pid"], house.lines = 2, 0
        assert house.look(5, lines=False) == []
        assert house.look(1) == []
        assert house.look(2) == ["Well again: attic speaks again"]

    def test_a_collector_that_does_not_run_says_nothing_about_routers(self, house):
        house.look()
        written = house.record["written"]
        for _ in range(3):
            house.now += 20 * 60
            house.record |= {"faults": ["the health record is 1200 s old: syslog-ng does not run"]}
            kept = house.file.load()
            house.record["written"] = written
            watch.Watch(house.settings, house.rules, kept).look(
                house.record, lambda k=kept: house.file.save(k)
            )
        assert not any("silent" in title for title in house.receiver.titles)
        assert "The collector has a fault: the health record is 1200 s old: syslog-ng does not run" in (
            house.receiver.titles
        )

    def test_a_collector_that_stops_makes_no_router_well_again(self, house):
        house.look()
        assert len(house.look(30, lines=False)) == 1
        house.record["written"] = iso(house.now)
        for _ in range(3):
            house.now += 10 * 60
            kept = house.file.load()
            watch.Watch(house.settings, house.rules, kept).look(
                house.record, lambda k=kept: house.file.save(k)
            )
        assert [title for title in house.receiver.titles if "silent" in title] == house.receiver.titles[:1]

    def test_one_of_two_routers_is_silent(self, house):
        house.flow("tablet", router="cellar")
        house.look()
        assert house.look(31) == ["cellar is silent: it has reported no flow for 31 minutes"]
        house.flow("tablet", router="cellar")
        house.look(1)
        house.flow("tablet", router="cellar")
        assert house.look(2) == ["Well again: cellar speaks again"]

    def test_nothing_is_indexed_though_lines_come(self, house):
        house.look()
        assert house.look(29, again=False) == []
        assert house.look(2, again=False) == ["No flow is stored any more: the newest one is 31 minutes old"]
        house.look(1)
        assert len(house.look(2)) == 1

    def test_elasticsearch_is_away_and_what_it_would_tell_is_not_well_again(self, house):
        house.core.disks["node"] = 0.9
        house.look()
        assert house.look(5) == ["The disk of node is filling up: it is 90% full"]
        house.core.fault = storage.StorageError("nobody is there.")
        assert house.look(1) == []
        assert house.look(10) == ["Elasticsearch does not answer: nobody is there."]
        house.core.fault, house.core.disks["node"] = None, 0.2
        assert house.look(1) == []
        assert sorted(house.look(3)) == [
            "Well again: Elasticsearch answers",
            "Well again: the disk of node has room",
        ]

    def test_a_full_disk_names_the_oldest_month(self, house):
        house.core.disks["node"] = 0.9
        house.core.sizes = {
            "network-2025.02": 5, "network-2025.01": 2_500_000_000, "network-2024.12-old": 7, "network-9999.01": 9,
        }  # fmt: skip
        house.look()
        assert house.look(5) == [
            "The disk of node is filling up: it is 90% full; deleting network-2025.01 frees 2.5 GB"
        ]
        # The current month must stay.
        house.core.sizes = {f"network-{time.strftime('%Y.%m', time.gmtime())}": 9}
        house.core.disks["other"] = 0.95
        house.look()
        assert house.look(5) == ["The disk of other is filling up: it is 95% full"]
        house.core.disks["other"] = 0.2
        house.core.disks["node"] = 0.2
        assert house.look(1) == []
        told = house.look(3)
        assert sorted(told) == [
            "Well again: the disk of node has room",
            "Well again: the disk of other has room",
        ]

    def test_a_headline_is_one_line_that_a_mail_can_have_as_its_subject(self, houses, tmp_path):
        sendmail(tmp_path)
        house = houses(mail_to=("me@example.org",))
        house.record["faults"] = ["it says:\nSubject: x " + "y" * 500]
        house.look()
        (title,) = house.look(5)
        assert title.startswith("The collector has a fault: it says: Subject: x yyy")
        assert len(title) < 210
        assert len(house.file.load().queue) == 0

    def test_what_elasticsearch_refuses_is_said_once_in_its_own_words(self, house, capsys):
        assert storage._reason(b'{"error": {"type": "t", "reason": "no key."}}') == "no key"
        assert storage._reason(b"<html>\nbad gateway") == "<html> bad gateway"
        house.core.fault = storage.StorageError("Elasticsearch answers 401: no key.")
        for _ in range(3):
            house.look(1)
        assert capsys.readouterr().out.count("no key") == 1

    def test_a_clock_that_was_ahead_hides_nothing(self, house):
        house.look(600)
        house.now -= 600 * 60
        house.look()
        house.flow("camera", port=53)
        assert len(house.look(1)) == 1

    def test_elasticsearch_is_away_is_one_alert_though_the_collector_finds_it_as_well(self, house):
        house.look()
        house.core.fault = storage.StorageError("nobody is there.")
        sentence = "Elasticsearch at https://storage:9200 is not reached (refused)."
        house.record["delivery"] |= {"reason": sentence}
        house.record["faults"] = [f"{sentence} Now 12 documents are queued."]
        house.look(1)
        assert house.look(10) == ["Elasticsearch does not answer: nobody is there."]

    def test_one_disk_of_one_machine_is_one_alert(self, house, monkeypatch):
        monkeypatch.setattr(watch.chain, "_used", lambda path: 0.9)
        house.core.disks = {watch.chain.os.uname().nodename: 0.9}
        house.look()
        assert len(house.look(5)) == 1

    def test_no_health_record_is_a_fault(self, house):
        house.look(health=False)
        assert house.look(5, health=False) == ["The collector has a fault: it has no health record"]

    @pytest.mark.parametrize(
        ("part", "change", "title", "well"),
        [
            (
                "delivery",
                {"spool": {"documents": 4}},
                "Elasticsearch refused flows: 4 are kept in the spool",
                "no refused flow is kept any more",
            ),
            (
                "databases",
                {"GeoLite2-ASN": 31.2},
                "The database GeoLite2-ASN is old: it was built 31 days ago",
                "the database GeoLite2-ASN is fresh",
            ),
            (
                "firewall",
                {"strangers": {"10.0.0.9": 3}},
                "A stranger sends to the collector: 10.0.0.9 was refused within the last hour",
                "10.0.0.9 has not called for an hour",
            ),
        ],
    )
    def test_rules_of_the_record(self, house, part, change, title, well):
        house.look()
        before = house.record[part]
        house.record[part] = before | change
        assert house.look(1) == [title]
        house.record[part] = before
        house.look(1)
        assert house.look(2) == [f"Well again: {well}"]

    def test_the_disk_buffer_fills_up(self, house):
        house.look()
        house.record["queue"] = {"waiting": 900, "bytes": 850, "capacity": 1000}
        house.look(1)
        (title,) = house.look(5)
        assert title.endswith("the disk buffer is 85% full, 900 flows wait in it")

    def test_what_a_rule_tells_is_not_told_as_a_fault_as_well(self, house, tmp_path):
        """The sentences are the collector's own."""
        house.record |= {"written": iso(NOW), "connections": {}}
        for part, change in {
            "delivery": {"spool": {"documents": 4}},
            "firewall": {"loaded": True, "strangers": {"10.0.0.9": 3}},
            "senders": {"strangers": 7},
        }.items():
            record = house.record | {part: change, "flows": {"lines": 0}}
            sentences = list(collector_tool._faults(tmp_path, record))
            found = watch.chain.Found()
            watch.chain._record(found, RULES, record | {"faults": sentences}, "here", NOW)
            assert sentences
            assert "fault" not in {each.rule for each in found.wrong}, sentences

    def test_addresses_and_numbers_in_a_fault_do_not_make_another_one(self):
        texts = [
            "within the last hour 10.0.0.1, fd77::2 and 4 more wanted too many connections, which were refused",
            "within the last hour 10.0.0.9 wanted too many connections, which were refused",
        ]
        assert len({watch.chain._lasting(each) for each in texts}) == 1

    def test_old_and_damaged_health_files_are_none(self, tmp_path):
        path = tmp_path / "health.json"
        now = tool.time.time()
        assert watch.record(path, now) == {}
        path.write_text('{"pid": 1}')
        assert watch.record(path, now) == {"pid": 1}
        assert watch.record(path, now + 300) == {}
        path.write_text("{")
        assert watch.record(path, now) == {}


class TestSilence:
    @pytest.mark.parametrize(
        ("entry", "told"),
        [
            ("dns-past-router", 1),
            ("camera", 0),
            ("Camera", 0),
            ("aa:bb:cc:00:00:02", 0),
            ("192.168.1.21", 0),
            ("dns-past-router/camera", 1),
            ("first-country/laptop", 2),
            ("other", 2),
        ],
    )
    def test_rules_and_devices(self, houses, entry, told):
        house = houses(silenced=(entry,))
        house.look()
        house.flow("camera", port=53, mac="AA-BB-CC-00-00-02", ip="192.168.1.21")
        house.flow("camera", country="CN", first=True, mac="AA-BB-CC-00-00-02", ip="192.168.1.21")
        assert len(house.look(1)) == told

    def test_a_condition(self, houses):
        house = houses(silenced=("refused",))
        house.record["delivery"] = {"spool": {"documents": 4}}
        assert house.look() == []

    def test_a_condition_that_is_silenced_is_not_well_again(self, house):
        house.record["delivery"] = {"spool": {"documents": 4}}
        assert len(house.look()) == 1
        house.settings = replace(house.settings, silenced=("refused",))
        assert house.look(1) == house.look(5) == []

    def test_what_was_silenced_is_not_told_afterwards(self, houses):
        house = houses(silenced=("camera",))
        house.look()
        house.flow("camera", port=53)
        assert house.look(1) == []
        house.settings = replace(house.settings, silenced=())
        assert house.look(1) == []


class TestDelivery:
    def many(self, house, count):
        for number in range(count):
            house.flow(f"camera{number}", country="DE", mac=f"AA-BB-CC-00-01-{number:02X}")

    def test_at_most_so_many_an_hour_then_one_that_says_how_many_more(self, house):
        house.look()
        self.many(house, 10)
        titles = house.look(1)
        assert len(titles) == 7
        assert titles[-1] == "4 more alerts in this hour"
        more = house.receiver.messages[-1]
        assert more["state"] == "more"
        assert Counter(line[:2] for line in more["text"].splitlines())["- "] == 4
        house.flow("tv", mac="AA-BB-CC-00-02-01")
        house.flow("radio", mac="AA-BB-CC-00-02-02")
        assert house.look(1) == []
        assert len(house.look(59)) == 2

    def test_the_chain_goes_first(self, house, receiver):
        house.look()
        receiver.status = 500
        self.many(house, 10)
        assert house.look(1) == []
        receiver.status = 200
        house.record["delivery"] = {"spool": {"documents": 4}}
        assert house.look(1)[0] == "Elasticsearch refused flows: 4 are kept in the spool"

    @pytest.mark.parametrize("status", [500, 302, 404, 401])
    def test_a_receiver_that_was_away_gets_each_once_in_order(self, house, receiver, status):
        house.look()
        receiver.status = status
        house.flow("camera", port=53)
        assert house.look(1) == []
        house.flow("camera", NOW + 90, port=23)
        assert house.look(1) == []
        receiver.status = 200
        assert [title.split(":")[0] for title in house.look(1)] == [
            "camera asks for names past the router",
            "camera logs in without encryption",
        ]
        assert house.look(1) == []

    def test_a_message_that_will_never_be_taken_holds_up_no_other(self, house, receiver):
        house.look()
        receiver.status = 400
        house.flow("camera", port=53)
        house.look(1)
        receiver.status = 200
        house.flow("camera", port=23)
        assert [title.split(":")[0] for title in house.look(1)] == ["camera logs in without encryption"]

    def test_one_receiver_that_is_away_holds_up_no_other(self, houses, receiver, tmp_path):
        house = houses(mail_to=("me@example.org",))
        house.look()
        house.flow("camera", port=53)
        assert len(house.look(1)) == 1
        house.flow("camera", port=23)
        assert len(house.look(1)) == 1
        sendmail(tmp_path)
        assert house.look(1) == []
        mails = (tmp_path / "mails").read_text()
        assert mails.index("past the router") < mails.index("without encryption")
        assert mails.count("To: me@example.org") == 2
        assert house.look(1) == []
        assert (tmp_path / "mails").read_text() == mails

    def test_a_crash_after_a_message_sends_no_other_twice(self, house, receiver):
        house.look()
        self.many(house, 3)
        house.now += 60
        kept = house.file.load()
        saved = []

        def save():
            saved.append(house.file.save(kept))
            if len(receiver.titles) == 2:
                raise SystemExit

        with pytest.raises(SystemExit):
            watch.Watch(house.settings, house.rules, kept).look(house.record, save)
        assert len(house.look()) == 1
        assert len({each["id"] for each in receiver.messages}) == 3

    def test_ids_stay_the_same_when_a_message_is_sent_again(self, house, receiver):
        house.look()
        house.flow("camera", port=53)
        receiver.status = 500
        house.look(1)
        (kept,) = house.file.load().queue
        receiver.status = 200
        house.look(1)
        assert receiver.messages[0]["id"] == kept["message"]["id"]

    def test_the_queue_is_bounded_and_what_found_no_place_is_counted(self, house, receiver):
        house.look()
        receiver.status = 500
        self.many(house, 250)
        house.look(1)
        assert len(house.file.load().queue) == post.MOST
        receiver.status = 200
        assert house.look(1)[-1] == "244 more alerts in this hour"

    def test_webhook_with_token(self, houses, receiver):
        house = houses(webhook_token="s3cret")
        house.look()
        house.flow("camera", port=53)
        house.look(1)
        ((_, _, authorization),) = receiver.got
        assert authorization == "Bearer s3cret"

    def test_ntfy(self, houses, receiver):
        house = houses(ntfy_url=f"http://127.0.0.1:{receiver.server_port}/my-house", ntfy_token="tk_1")
        house.look()
        house.flow("café", country="CN", mac="AA-BB-CC-00-00-0A")
        house.look(1)
        ((_, content, authorization),) = [each for each in receiver.got if each[0] == "/"]
        assert authorization == "Bearer tk_1"
        assert content["topic"] == "my-house"
        assert content["title"] == "A new device is in the house: café"
        assert content["click"].startswith("https://kibana:5601/")

    def test_the_address_of_a_receiver_is_no_part_of_what_is_said(self, house, receiver, capsys):
        house.settings = replace(house.settings, webhook_url=receiver.url + "/T0KEN")
        house.look()
        receiver.status = 403
        house.flow("camera", port=53)
        house.look(1)
        said = capsys.readouterr().out
        assert "The webhook does not take" in said
        assert "T0KEN" not in said + repr(house.settings)
        house.look(1)
        assert capsys.readouterr().out == ""

    def test_mail_is_a_whole_message(self, tmp_path):
        sendmail(tmp_path)
        settings = Settings("", "", "", mail_to=("a@example.org", "b@example.org"), mail_from="w@example.org",
                            sendmail=str(tmp_path / "sendmail"))  # fmt: skip
        sent = message.Message("1", "disk", "alert", "nas", "é", iso(NOW), "Title é", "Text é", "")
        post.mail(settings, sent)
        mails = (tmp_path / "mails").read_text()
        assert "From: w@example.org" in mails
        assert "=?utf-8?" in mails
        assert "arguments: -i -- a@example.org b@example.org" in mails

    def test_a_sendmail_that_fails_is_away(self, tmp_path):
        (tmp_path / "sendmail").write_text("#!/bin/sh\necho 'no relay' >&2; exit 75\n")
        (tmp_path / "sendmail").chmod(0o755)
        settings = Settings("", "", "", mail_to=("a@example.org",), sendmail=str(tmp_path / "sendmail"))
        sent = message.Message("1", "disk", "alert", "nas", "x", iso(NOW), "Title", "Text", "")
        with pytest.raises(post.Away, match="75: no relay"):
            post.mail(settings, sent)


def sendmail(folder: Path) -> None:
    program = folder / "sendmail"
    program.write_text(
        f'#!/bin/sh\n{{ echo "arguments: $*"; cat; echo; }} >>{folder}/mails\n', encoding="ascii"
    )
    program.chmod(0o755)


class TestMemory:
    def test_a_damaged_file_is_set_aside(self, tmp_path):
        path = tmp_path / "alerts.json"
        for damage in ("{", "[]", '{"queue": "x"}', '{"other": 1}'):
            path.write_text(damage)
            file = memory.File(path)
            assert file.load() == memory.Memory()
            assert file.damaged
            assert (tmp_path / "alerts.json.damaged").read_text() == damage

    def test_it_is_there_again(self, tmp_path):
        file = memory.File(tmp_path / "alerts.json")
        kept = memory.Memory(since=NOW, known={"a": NOW}, queue=[{"left": None}])
        file.save(kept)
        assert file.load() == kept
        assert (tmp_path / "alerts.json").stat().st_mode & 0o777 == 0o600


class TestRules:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[fault", "rules.toml"),
            ("fault = 1", "a rule begins with [fault]"),
            ('[fault]\nsay = "x"\nwell = "z"\ndo = "y"\nafter = "x"', "after = 'x'"),
            ('[fault]\nsay = "x"\nwell = "z"\ndo = "y"\nother = 1', "has other"),
            ('[fault]\nsay = "x"', "needs do"),
            ('[fault]\nsay = "x"\ndo = "y"', "needs well"),
            ('[fault]\nsay = "x"\nwell = "z"\ndo = "y"\nports = [1]', "ports"),
            ('[mine]\nsay = "x"\ndo = "y"', "names ports"),
            ('[mine]\nsay = "x"\ndo = "y"\nports = [0]', "ports = [0]"),
            ('[mine]\nsay = "{nobody}"\ndo = "y"\nports = [1]', "in a text"),
        ],
    )
    def test_what_is_wrong_with_a_file_is_said(self, tmp_path, text, said):
        (tmp_path / "rules.toml").write_text(text)
        with pytest.raises(rules.RulesError) as error:
            rules.load(tmp_path / "rules.toml")
        assert said in str(error.value)

    def test_every_rule_is_explained_in_the_readme(self):
        readme = (ROLE / "README.md").read_text()
        assert [name for name in RULES if f"`{name}`" not in readme] == []
        assert set(rules.CHAIN + rules.HOUSE) <= set(RULES)


class TestTool:
    def run(self, tmp_path, settings, *arguments):
        (tmp_path / "settings.json").write_text(json.dumps(settings))
        paths = {"settings": "settings.json", "state": ".", "health": "health.json"}
        options = [f"--{name}={tmp_path / path}" for name, path in paths.items()]
        return tool.main([*arguments, *options, f"--rules={ROLE / 'files/rules.toml'}"])

    def test_a_test_message(self, tmp_path, receiver, capsys):
        settings = {
            "elasticsearch_url": "https://x:1", "elasticsearch_ca": "/none", "elasticsearch_key": "k",
            "webhook_url": receiver.url, "mail_to": ["a@example.org"], "sendmail": "/none",
        }  # fmt: skip
        assert self.run(tmp_path, settings, "test") == 1
        assert capsys.readouterr().out.splitlines()[0] == "webhook: taken"
        assert receiver.titles == ["A test of wrtflow's alerts"]

    def test_a_run_without_anybody_there(self, tmp_path, receiver, capsys):
        settings = {
            "elasticsearch_url": "https://127.0.0.1:1", "elasticsearch_ca": "/none", "elasticsearch_key": "k",
            "webhook_url": receiver.url,
        }  # fmt: skip
        assert self.run(tmp_path, settings) == 0
        assert "can't be read" in capsys.readouterr().out
        assert len(memory.File(tmp_path / "alerts.json").load().wrong) == 2

    def test_settings_that_are_wrong_are_one_sentence(self, tmp_path, capsys):
        assert self.run(tmp_path, {"colour": "red"}) == 1
        assert capsys.readouterr().err.startswith("wrtflow-alerts: ")
