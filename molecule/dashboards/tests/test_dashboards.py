"""Kibana as roles/kibana leaves it, and what the dashboards' panels learn from Elasticsearch."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import lab
import panels
import pytest
import requests

testinfra_hosts = ["docker://wrtflow-logserver"]

CA = lab.SECRETS / "elasticsearch-ca.crt"
INDEX = "network-1999.03"


def kibana(method: str, path: str, *, user: str | None = "wrtflow", **more: Any) -> requests.Response:
    """Send a request to Kibana, by default as the person who looks at the dashboards."""
    more.setdefault("headers", {"kbn-xsrf": "test"})
    auth = (user, lab.secret(f"{user}.password")) if user else None
    return requests.request(method, lab.KIBANA + path, auth=auth, verify=CA, timeout=30, **more)


def export() -> dict[str, dict[str, Any]]:
    """Return all of wrtflow's objects in Kibana by their ids."""
    wanted = [
        {"type": file.parent.name, "id": f"wrtflow-{file.stem}"} for file in panels.FOLDER.glob("*/*.json")
    ]
    answer = kibana(
        "POST", "/api/saved_objects/_export", json={"objects": wanted, "excludeExportDetails": True}
    )
    assert answer.status_code == 200, answer.text
    return {one["id"]: one for one in map(json.loads, answer.text.splitlines())}


def deploy(*arguments: str) -> tuple[int, str]:
    """Run the playbook once more; return its exit code and what it said, on one line and in black and white."""
    done = subprocess.run(
        ["ansible-playbook", "--inventory", "inventory/lab", "playbooks/dashboards.yml", *arguments],
        cwd=lab.PROJECT,
        env={**os.environ, "MOLECULE_PROJECT_DIRECTORY": str(lab.PROJECT), "ANSIBLE_FORCE_COLOR": "0"},
        # Molecule has failures told on standard error.
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.returncode, " ".join(done.stdout.split())


class TestKibana:
    def test_it_is_available_to_the_person(self):
        answer = kibana("GET", "/api/status")
        assert answer.status_code == 200
        assert answer.json()["status"]["overall"]["level"] == "available"

    def test_nobody_else_gets_in(self):
        path = "/api/saved_objects/_export"
        body = {"objects": [{"type": "dashboard", "id": "wrtflow-home"}]}
        assert kibana("POST", path, user=None, json=body).status_code == 401
        wrong = requests.post(
            lab.KIBANA + path, auth=("wrtflow", "no"), verify=CA, timeout=30, json=body,
            headers={"kbn-xsrf": "test"},
        )  # fmt: skip
        assert wrong.status_code == 401

    def test_nobody_trusts_the_certificate_who_does_not_know_the_authority(self):
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(lab.KIBANA, timeout=10)

    @pytest.mark.parametrize(
        ("path", "group", "mode"),
        [
            ("/etc/kibana/kibana.yml", "kibana", 0o660),
            ("/etc/kibana/kibana.keystore", "kibana", 0o660),
            ("/etc/kibana/certs/kibana.key", "kibana", 0o640),
        ],
    )
    def test_files_are_read_by_those_who_need_them(self, host, path, group, mode):
        file = host.file(path)
        assert (file.user, file.group, file.mode) == ("root", group, mode)

    def test_secrets_are_in_the_keystore_alone(self, host):
        settings = host.file("/etc/kibana/kibana.yml").content_string
        assert not re.search(r"^[^#]*(token|password|encryptionKey)", settings, re.IGNORECASE | re.MULTILINE)
        assert lab.secret("kibana.service-token") not in settings
        names = host.check_output("/usr/share/kibana/bin/kibana-keystore list").split()
        assert set(names) == {
            "elasticsearch.serviceAccountToken",
            "xpack.security.encryptionKey",
            "xpack.encryptedSavedObjects.encryptionKey",
            "xpack.reporting.encryptionKey",
        }

    def test_it_tells_nobody_outside(self, host):
        settings = host.file("/etc/kibana/kibana.yml").content_string
        for line in (
            "telemetry.enabled: false",
            "telemetry.optIn: false",
            "newsfeed.enabled: false",
            "map.includeElasticMapsService: false",
            "xpack.fleet.isAirGapped: true",
        ):
            assert line in settings

    def test_both_packages_come_from_one_repository_and_stay_as_they_are(self, host):
        assert host.check_output("ls /etc/apt/sources.list.d").split() == ["elastic.sources", "lab.sources"]
        assert host.check_output("apt-mark showhold").split() == ["elasticsearch", "kibana"]

    def test_it_comes_back_after_a_crash_with_its_objects(self, host):
        host.check_output("systemctl kill --signal KILL --kill-whom main kibana")
        lab.wait_for("Kibana after a crash", self.answers, 60, every=0.5)
        assert len(export()) == len(list(panels.FOLDER.glob("*/*.json")))
        assert host.service("kibana").is_enabled

    @staticmethod
    def answers() -> bool:
        try:
            return kibana("GET", "/api/status").status_code == 200
        except requests.exceptions.RequestException:
            return False


class TestImport:
    def test_what_somebody_changed_or_deleted_is_put_back(self):
        before = export()["wrtflow-sites"]["attributes"]
        changed = {"type": "visualization", "id": "wrtflow-sites", "attributes": {"title": "Mine"}}
        answer = kibana(
            "POST", "/api/saved_objects/_import?overwrite=true",
            files={"file": ("x.ndjson", json.dumps(changed))},
        )  # fmt: skip
        assert answer.json()["success"], answer.text
        code, said = deploy("--check")
        assert (code, export()["wrtflow-sites"]["attributes"]) == (0, {"title": "Mine"})
        assert "changed=1 " in said, "a dry run says so"
        code, said = deploy()
        assert code == 0, said
        assert "changed=1 " in said
        assert export()["wrtflow-sites"]["attributes"] == before

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ('"id": "wrtflow-flows"', '"id": "nowhere"', "missing_references"),
            pytest.param(
                '"8.5.0"', '"99.0.0"', "belongs to a more recent version of Kibana", marks=pytest.mark.long
            ),
            pytest.param(
                '"version": 1', '"colour": 1', "definition for this key is missing", marks=pytest.mark.long
            ),
            pytest.param(
                '"version": 1', '"version": "1"', "expected value of type [number]", marks=pytest.mark.long
            ),
        ],
    )
    def test_a_refused_object_fails_the_run_with_kibana_s_words(self, tmp_path, old, new, reason):
        objects = Path(shutil.copytree(panels.FOLDER, tmp_path / "objects"))
        file = objects / "visualization/sites.json"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new).replace('"Sites"', '"Broken"'))
        before = export()
        code, said = deploy(f"--extra-vars=kibana_objects_dir={objects}")
        assert code == 2
        assert reason in said
        assert any(word in said for word in ("wrtflow-sites", "colour", "attributes.version"))
        assert export() == before, "nothing of it is stored"


def test_an_interrupted_run_is_mended(host):
    """The settings were written, the restart never came; the token in the keystore is one of an older storage."""
    started = host.check_output("systemctl show --value --property ExecMainStartTimestampMonotonic kibana")
    host.check_output(
        "printf old | /usr/share/kibana/bin/kibana-keystore add --force --stdin elasticsearch.serviceAccountToken"
    )
    code, said = deploy()
    assert code == 0, said
    assert TestKibana.answers()
    again = host.check_output("systemctl show --value --property ExecMainStartTimestampMonotonic kibana")
    assert int(again) > int(started)
    host.check_output("touch /etc/kibana/kibana.yml")
    code, said = deploy()
    assert code == 0, said
    assert int(
        host.check_output("systemctl show --value --property ExecMainStartTimestampMonotonic kibana")
    ) > int(again)


def flow(**more: Any) -> dict[str, Any]:
    """Return a flow document: a laptop's HTTPS to a site in Germany, but for what is said."""
    flat = {
        "@timestamp": "1999-03-01T12:00:00.000Z", "event.end": "1999-03-01T12:00:00.000Z",
        "observer.type": "router", "network.transport": "tcp", "network.direction": "outbound", "network.bytes": 1000,
        "source.ip": "10.77.0.20", "source.domain": "laptop", "source.bytes": 400,
        "destination.ip": "198.18.1.80", "destination.port": 443, "destination.bytes": 600,
        "destination.domain": "www.photoprint.example",
        "destination.geo.country_iso_code": "DE", "destination.geo.country_name": "Germany",
        "destination.geo.city_name": "Frankfurt am Main", "destination.geo.location": {"lat": 50.1, "lon": 8.7},
        "destination.as.number": 64501, "destination.as.organization.name": "Photoprint GmbH",
        "wrtflow.domain_source": "dns",
        **more,
    }  # fmt: skip
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        level = tree
        for parent in parents:
            level = level.setdefault(parent, {})
        if value is not None:
            level[leaf] = value
    return tree


NOWHERE = dict.fromkeys(
    f"destination.{name}"
    for name in ("geo.country_iso_code", "geo.country_name", "geo.city_name", "geo.location", "as.number",
                 "as.organization.name")
)  # fmt: skip
FLOWS = [
    flow(),
    flow(**{"@timestamp": "1999-03-02T08:00:00.000Z", "event.end": "1999-03-02T08:00:00.000Z"}),
    # A camera phones home in plain text, for the first time, to an address without a name.
    flow(**{
        "source.domain": "camera", "source.ip": "10.77.0.21", "source.mac": "00-00-5E-00-53-01",
        "network.bytes": 50, "source.bytes": 40, "destination.bytes": 10, "destination.ip": "198.18.2.80",
        "destination.port": 80, "destination.domain": None, "destination.geo.country_iso_code": "CN",
        "destination.geo.country_name": "China", "destination.geo.city_name": "Shenzhen",
        "destination.geo.location": {"lat": 22.5, "lon": 114.1}, "destination.as.organization.name": "Gadget Cloud",
        "wrtflow.domain_source": "none", "wrtflow.first_seen": True,
    }),
    # A ping, which has no ports, to somewhere that no database knows.
    flow(**{"network.transport": "icmp", "network.bytes": 168, "destination.port": None, **NOWHERE}),
    # Inside the house.
    flow(**{
        "network.direction": "internal", "destination.ip": "10.77.0.10", "destination.domain": "nas",
        "destination.port": 445, "network.bytes": 7, "source.bytes": 3, "destination.bytes": 4, **NOWHERE,
    }),
    # What the edge has seen as well is nowhere in the panels.
    flow(**{"observer.type": "access_point", "wrtflow.first_seen": True}),
    # Somebody knocks from outside.
    flow(**{
        "network.direction": "inbound", "network.bytes": 60, "source.bytes": 60, "destination.bytes": 0,
        "source.ip": "198.18.2.99", "source.domain": None, "source.geo.country_name": "China",
        "destination.ip": "10.77.0.1", "destination.port": 22, "destination.domain": None, **NOWHERE,
    }),
]  # fmt: skip
FIRST, LAST = 920289600000, 920361600000


@pytest.fixture(scope="class")
def flows():
    """Flows in a month of their own, as the collector writes them."""
    lines = [
        line
        for number, one in enumerate(FLOWS)
        for line in ({"create": {"_index": INDEX, "_id": str(number)}}, one)
    ]
    answer = lab.elasticsearch("POST", "/_bulk?refresh=true", lines, user="collector")
    assert not answer["errors"], answer
    yield
    lab.elasticsearch("DELETE", f"/{INDEX}", user="elastic")


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """Send a panel's request as the person who looks at it."""
    answer = requests.post(
        f"{lab.ELASTICSEARCH}/{INDEX}/_search", json=request, verify=CA, timeout=30,
        auth=("wrtflow", lab.secret("wrtflow.password")),
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert answer.json()["_shards"]["failed"] == 0
    return answer.json()


def table(name: str) -> list[dict[str, Any]]:
    """Return the rows of a panel."""
    panel = panels.load("visualization")[name]
    return panels.rows(panel, ask(panels.asked(panel))["aggregations"])


@pytest.mark.usefixtures("flows")
class TestPanels:
    @pytest.mark.parametrize("name", panels.load("visualization"))
    def test_every_panel_s_question_is_answered(self, name):
        panel = panels.load("visualization")[name]
        if panel["visState"]["type"] == "markdown":
            return
        assert ask(panels.asked(panel))["aggregations"]

    def test_totals(self):
        panel = panels.load("visualization")["totals"]
        answer = ask(panels.asked(panel))
        (row,) = panels.rows(panel, answer["aggregations"])
        row["flows"] = answer["hits"]["total"]["value"]
        assert row == {
            "bytes in all": 2285, "sent by who asked": 1303, "sent by who was asked": 1814, "flows": 6,
            "devices": 2, "sites": 2, "countries": 2,
        }  # fmt: skip

    def test_countries(self):
        assert table("countries") == [
            {"country": "Germany", "bytes": 2000, "flows": 2, "devices": 1, "first": FIRST, "last": LAST},
            {"country": "China", "bytes": 50, "flows": 1, "devices": 1, "first": FIRST, "last": FIRST},
        ]

    def test_devices_are_those_of_the_house(self):
        rows = [
            (row["device"], row["MAC"], row["bytes"], row["sites"], row["countries"])
            for row in table("devices")
        ]
        assert rows == [("laptop", "-", 2175, 2, 1), ("camera", "00-00-5E-00-53-01", 50, 0, 1)]

    def test_sites_have_country_and_network(self):
        rows = [(row["site"], row["country"], row["network (AS)"], row["flows"]) for row in table("sites")]
        assert rows == [
            ("www.photoprint.example", "Germany", "Photoprint GmbH", 2),
            ("www.photoprint.example", "-", "-", 1),
            ("nas", "-", "-", 1),
        ]

    def test_what_has_no_name_is_shown_by_its_address(self):
        (row,) = table("unnamed")
        assert (row["address"], row["country"], row["network (AS)"]) == (
            "198.18.2.80",
            "China",
            "Gadget Cloud",
        )

    def test_who_knocks_from_outside(self):
        (row,) = table("inbound")
        assert (row["from"], row["country"], row["port"], row["bytes"]) == ("198.18.2.99", "China", 22, 60)

    def test_protocols_are_encrypted_or_not_and_a_ping_has_no_port(self):
        rows = [(r["by its port"], r["protocol"], r.get("port"), r["flows"]) for r in table("protocols")]
        assert rows == [
            ("encrypted", "tcp", 443, 2),
            ("encrypted", "tcp", 22, 1),
            ("plain text", "tcp", 80, 1),
            ("unknown", "icmp", None, 1),
            ("unknown", "tcp", 445, 1),
        ]

    def test_who_talks_with_whom(self):
        rows = {(r["device"], r["site"], r.get("port")): r["bytes"] for r in table("talks")}
        assert rows[("laptop", "www.photoprint.example", 443)] == 2000
        assert rows[("laptop", "www.photoprint.example", None)] == 168
        assert rows[("camera", "(no name)", 80)] == 50

    def test_bytes_over_time(self):
        rows = [(row["2"], row["device"], row["bytes"]) for row in table("bytes-over-time")]
        assert rows == [(FIRST, "laptop", 1175), (FIRST, "camera", 50), (LAST, "laptop", 1000)]

    def test_cities(self):
        rows = {(r["city"], r["network (AS)"]): r["flows"] for r in table("cities")}
        assert rows[("Frankfurt am Main", "Photoprint GmbH")] == 2
        assert rows[("(not known)", "-")] == 3

    def test_the_map(self):
        found = ask(panels.asked(panels.load("visualization")["world"]))["aggregations"]
        countries = {
            b["key"]: (b["bytes"]["value"], b["name"]["buckets"][0]["key"])
            for b in found["countries"]["buckets"]
        }
        assert countries == {"DE": (2000, "Germany"), "CN": (50, "China")}
        places = {b["city"]["buckets"][0]["key"]: b["middle"]["location"] for b in found["places"]["buckets"]}
        assert places["Frankfurt am Main"]["lat"] == pytest.approx(50.1, abs=0.01)
        assert places["Shenzhen"]["lon"] == pytest.approx(114.1, abs=0.01)

    def test_first_contacts(self):
        hits = ask(panels.asked(panels.load("search")["first-contacts"]))["hits"]["hits"]
        assert [hit["fields"]["source.domain"] for hit in hits] == [["camera"]]
        assert hits[0]["fields"]["destination.geo.country_name"] == ["China"]

    def test_the_list_of_flows(self):
        hits = ask(panels.asked(panels.load("search")["flow-list"]))["hits"]["hits"]
        assert len(hits) == len(FLOWS) - 1
        assert hits[0]["sort"] == [LAST]
