"""The weekly letter: its figures against those of plain Python, and what it says of them."""

import html.parser
import json
import os
from email import message_from_string, policy
from pathlib import Path

import elastic
import house_weeks
import pytest
from wrtflow_alerts import letter, page, report, storage
from wrtflow_alerts.letter import Figures, NewDevice, Sites, Traffic
from wrtflow_alerts.settings import Settings

#: Tuesday, 1 December 2026, 12:00 UTC.
NOW = 1796126400.0
DAY = 86_400

SETTINGS = Settings("https://x", "", "", kibana_url="https://kibana:5601", timezone="Europe/Berlin")


@pytest.fixture
def core(monkeypatch):
    made = elastic.Core()
    monkeypatch.setattr(storage.Storage, "ask", lambda _, path, body=None: made.ask(path, body))
    monkeypatch.setattr(storage, "_PAGE", 3)
    return made


class TestFigures:
    @pytest.mark.parametrize("days", [7, 3])
    def test_they_are_those_of_the_documents(self, core, days):
        core.documents = house_weeks.weeks(NOW)
        found = letter.figures(storage.Storage(SETTINGS), NOW, days)
        wanted = house_weeks.expected(core.documents, NOW, days)
        for name in ("flows", "outbound", "unnamed", "timeouts"):
            assert getattr(found, name) == wanted[name] > 0, name
        assert {one.device for one in found.new_devices} == wanted["new_devices"] == {"esp"}
        assert {one: set(names) for one, names in found.new_countries.items()} == wanted["new_countries"]
        assert {one: sites.count for one, sites in found.new_sites.items()} == {
            one: len(sites) for one, sites in wanted["new_sites"].items()
        }
        assert {
            one.device: (one.up, one.down, one.night, one.usual_up, one.usual_down, one.usual_night)
            for one in found.traffic
        } == {device: pytest.approx(values) for device, values in wanted["traffic"].items()}
        assert [one.up + one.down for one in found.traffic] == sorted(
            (one.up + one.down for one in found.traffic), reverse=True
        )
        large = {
            device
            for device, (up, _, _, usual, *_) in wanted["traffic"].items()
            if usual is not None and up >= 1_000_000 and up > 3 * usual
        }
        assert {one.device for one in found.traffic if one.large} == large
        assert large == ({"camera"} if days == 7 else set())

    def test_in_the_first_week_nothing_is_called_new(self, core):
        core.documents = [
            each for each in house_weeks.weeks(NOW) if elastic.seconds(each["@timestamp"]) > NOW - 5 * DAY
        ]
        found = letter.figures(storage.Storage(SETTINGS), NOW, 7)
        assert found.flows
        assert not found.whole
        assert (found.new_devices, found.new_countries, found.new_sites) == ([], {}, {})

    def test_an_empty_house(self, core):
        assert letter.figures(storage.Storage(SETTINGS), NOW, 7) == Figures(NOW - 7 * DAY, NOW)


def figures(**more) -> Figures:
    traffic = [
        Traffic("laptop", 9e8, 6e10, 0, 1e9, 5e10, 0),
        Traffic("camera", 7e9, 1e6, 3e9, 1e9, 1e6, 1e6),
        Traffic("esp", 2e6, 1e6),
    ]
    return Figures(
        NOW - 7 * DAY, NOW, NOW - 90 * DAY, 1000, traffic,
        [NewDevice("esp", "Espressif Inc.", ["AA-BB-CC-00-00-09"], ["192.168.1.77"], NOW - DAY)],
        {"camera": ["China"]}, {"laptop": Sites(12, ["a.example", "b.example"])}, 800, 96, **more,
    )  # fmt: skip


class TestWords:
    def test_a_letter(self):
        written = page.write(
            SETTINGS,
            figures(timeouts=1, losses=["2 documents were dropped: the disk buffer was full"]),
            ["state: the disk is full"],
            "https://k",
        )
        assert written.subject == (
            "Your network, Tue 24 Nov to Tue 1 Dec: 1 new device, camera sent far more than usual,"
            " 1 device called a new country"
        )
        assert page.as_text(written) == (Path(__file__).parent / "letter.txt").read_text()

    def test_it_is_silent_about_what_has_nothing_to_tell(self):
        quiet = Figures(
            NOW - 7 * DAY, NOW, NOW - 90 * DAY, 5, [Traffic("laptop", 1e6, 2e6, 0, 1e6, 2e6, 0)], outbound=5
        )
        written = page.write(SETTINGS, quiet, [], "")
        assert [block.heading for block in written.blocks] == ["Most traffic"]
        assert written.subject.endswith(": nothing new")
        assert "about as much as usual" in written.opening
        assert "dashboards" not in page.as_text(written)

    def test_a_week_without_a_flow_is_a_fault(self):
        written = page.write(SETTINGS, Figures(0, 1), [], "")
        assert "That is a fault" in written.opening
        assert written.subject.endswith(": nothing was recorded")

    def test_the_first_letter_says_why_nothing_is_new(self):
        first = Figures(NOW - 7 * DAY, NOW, NOW - DAY, 5, [Traffic("laptop", 1e6, 2e6)])
        written = page.write(SETTINGS, first, [], "")
        assert "has not watched for longer" in written.opening
        assert written.blocks[0].header == ("device", "received", "sent")

    def test_html_says_the_same_and_no_name_becomes_markup(self):
        found = figures()
        found.traffic[0].device = "<script>alert(1)</script>"
        found.new_countries["<script>"] = ["China"]
        written = page.write(SETTINGS, found, [], "https://k/?a=1&b=2")
        whole = page.as_html(written)
        assert "<script" not in whole
        assert "&lt;script&gt;" in whole
        text = Text()
        text.feed(whole)
        for block in written.blocks:
            for said in [block.heading, *block.lines, *(cell for row in block.rows for cell in row)]:
                assert said in text.said
        assert 'href="https://k/?a=1&amp;b=2"' in whole

    @pytest.mark.parametrize(
        ("count", "said"),
        [(0, "0 B"), (999, "999 B"), (1e3, "1.0 kB"), (2.5e9, "2.5 GB"), (3e15, "3000.0 TB")],
    )
    def test_sizes(self, count, said):
        assert page.size(count) == said


class Text(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.said = []

    def handle_data(self, data):
        self.said.append(data)


class TestTool:
    @pytest.fixture
    def run(self, core, tmp_path, monkeypatch):
        core.documents = house_weeks.weeks(NOW)
        monkeypatch.setattr(report.time, "time", lambda: NOW)
        monkeypatch.setattr(report, "_COLLECTOR", "/none")
        program = tmp_path / "sendmail"
        program.write_text(f'#!/bin/sh\ncat >{tmp_path}/mail\necho "$@" >{tmp_path}/arguments\n')
        program.chmod(0o755)

        def run(*arguments, **settings):
            known = {
                "elasticsearch_url": "",
                "elasticsearch_ca": "",
                "elasticsearch_key": "",
                "sendmail": str(program),
            }
            (tmp_path / "settings.json").write_text(json.dumps(known | settings))
            told = {
                "health": {"faults": ["the disk is full"]},
                "ledger": {
                    "differences": [
                        {"lost": True, "what": "4 documents were dropped"},
                        {"lost": False, "what": "1 document was sent twice"},
                    ]
                },
            }
            for name, record in told.items():
                (tmp_path / f"{name}.json").write_text(json.dumps(record))
                os.utime(tmp_path / f"{name}.json", (NOW, NOW))
            paths = {"settings": "settings.json", "health": "health.json", "ledger": "ledger.json"}
            return report.main([*arguments, *(f"--{name}={tmp_path / path}" for name, path in paths.items())])

        return run

    def test_it_is_printed(self, run, capsys):
        assert run() == 0
        said = capsys.readouterr().out
        assert said.startswith("Your network, ")
        assert "- The disk is full." in said
        assert "- 4 documents were dropped." in said
        assert "sent twice" not in said
        assert run("--html") == 0
        assert capsys.readouterr().out.startswith("<!DOCTYPE html>")
        assert run("--json", "--days", "3") == 0
        assert json.loads(capsys.readouterr().out)["begin"] == NOW - 3 * DAY

    def test_it_is_sent_as_text_and_html(self, run, tmp_path):
        assert run("--mail", letter_to=["a@example.org", "b@example.org"]) == 0
        sent = message_from_string((tmp_path / "mail").read_text(), policy=policy.default)
        assert (tmp_path / "arguments").read_text() == "-i -- a@example.org b@example.org\n"
        assert sent["Subject"].startswith("Your network, ")
        assert [part.get_content_type() for part in sent.iter_parts()] == ["text/plain", "text/html"]
        assert "4 documents were dropped" in sent.get_body(("plain",)).get_content()

    def test_a_letter_to_nobody_and_a_broken_sendmail_say_so(self, run, tmp_path, capsys):
        assert run("--mail") == 1
        assert "alerts_letter_to names nobody" in capsys.readouterr().err
        (tmp_path / "sendmail").write_text("#!/bin/sh\nexit 75\n")
        assert run("--mail", letter_to=["a@example.org"]) == 1
        assert "ended with 75" in capsys.readouterr().err
