"""Kibana as roles/kibana installs it, and Elasticsearch's answers to the dashboards' panels."""

import base64
import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import lab
import panels
import pytest
import requests

testinfra_hosts = ["docker://wrtflow-logserver"]

CA = lab.SECRETS / "elasticsearch-ca.crt"
INDEX = "network-1999.03"
HEALTH_INDEX = "wrtflow-health-1999.03"


def kibana(method: str, path: str, *, user: str | None = "wrtflow", **more: Any) -> requests.Response:
    """Send a request to Kibana, by default as the person who looks at the dashboards."""
    more.setdefault("headers", {"kbn-xsrf": "test"})
    auth = (user, lab.secret(f"{user}.password")) if user else None
    return requests.request(method, lab.KIBANA + path, auth=auth, verify=CA, timeout=30, **more)


def export(wanted: list[dict[str, str]] | None = None) -> dict[str, dict[str, Any]]:
    """Return objects in Kibana by their ids, by default all of wrtflow's."""
    wanted = wanted or [
        {"type": file.parent.name, "id": f"wrtflow-{file.stem}"} for file in panels.FOLDER.glob("*/*.json")
    ]
    answer = kibana(
        "POST", "/api/saved_objects/_export", json={"objects": wanted, "excludeExportDetails": True}
    )
    assert answer.status_code == 200, answer.text
    return {one["id"]: one for one in map(json.loads, answer.text.splitlines())}


def deploy(*arguments: str, **variables: Any) -> tuple[int, str]:
    """Run the playbook once more; return its exit code and what it said, on one line."""
    return lab.deploy("dashboards.yml", variables, *arguments)


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


class TestVersion:
    """Kibana's version is Elasticsearch's."""

    def test_an_older_kibana_follows_elasticsearch_in_the_same_run(self, host):
        pretend_version(host, "9.1.4")
        code, said = deploy()
        assert code == 0, said
        assert host.package("kibana").version == "9.2.0"
        assert "RUNNING HANDLER [kibana : Kibana is restarted]" in said
        assert TestKibana.answers()

    def test_a_kibana_newer_than_elasticsearch_is_refused(self, host):
        before = host.package("kibana").version
        pretend_version(host, "9.3.1")
        try:
            code, said = deploy()
        finally:
            pretend_version(host, before)
        assert code == 2
        assert "Kibana 9.3.1 is installed and Elasticsearch is 9.2.0" in said
        assert "set elasticsearch_version to 9.3.1" in said

    def test_an_unknown_version_installs_nothing(self, host):
        code, said = deploy(kibana_elasticsearch_url="https://10.77.0.10:9201")
        assert code == 2
        assert "does not tell it at https://10.77.0.10:9201" in said


def pretend_version(host, version: str) -> None:
    """Have the package manager believe that this version is installed."""
    host.check_output(
        rf"sed -i '/^Package: kibana$/,/^$/s/^Version: .*/Version: {version}/' /var/lib/dpkg/status"
    )


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("https://10.77.0.10", {}),
        ("https://10.77.0.10:443", {}),
        ("https://10.77.0.10:5601/kibana", {}),
        ("https://kibana.example", {"kibana_listen_address": "localhost", "kibana_listen_port": 443}),
    ],
)
def test_an_address_that_cannot_be_served_is_refused(url, more):
    code, said = deploy(wrtflow_kibana_url=url, **more)
    assert code == 2
    assert f"kibana_url is '{url}'" in said
    assert "the port 1024 or more" in said
    assert "changed=0 " in said


def test_its_memory_is_bounded(host):
    pid = host.check_output("systemctl show --value --property MainPID kibana")
    environment = host.file(f"/proc/{pid}/environ").content_string.split("\0")
    assert "NODE_OPTIONS=--max-old-space-size=1024" in environment


def put(one: dict[str, Any]) -> None:
    """Store an object in Kibana."""
    answer = kibana(
        "POST", "/api/saved_objects/_import?overwrite=true", files={"file": ("x.ndjson", json.dumps(one))}
    )
    assert answer.json()["success"], answer.text


class TestImport:
    def test_what_somebody_changed_or_deleted_is_put_back(self):
        before = export()["wrtflow-sites"]["attributes"]
        put({"type": "visualization", "id": "wrtflow-sites", "attributes": {"title": "Mine"}})
        put({"type": "visualization", "id": "my-own", "attributes": {"title": "My own"}})
        code, said = deploy("--check")
        assert (code, export()["wrtflow-sites"]["attributes"]) == (0, {"title": "Mine"})
        assert "changed=1 " in said, "a dry run says so"
        code, said = deploy()
        assert code == 0, said
        assert "changed=1 " in said
        assert export()["wrtflow-sites"]["attributes"] == before
        (own,) = export([{"type": "visualization", "id": "my-own"}]).values()
        assert own["attributes"] == {"title": "My own"}, "what is not wrtflow's is left alone"

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
        code, said = deploy(kibana_objects_dir=str(objects))
        assert code == 2
        assert reason in said
        assert any(word in said for word in ("wrtflow-sites", "colour", "attributes.version"))
        assert export() == before, "nothing of it is stored"


class TestExport:
    """An edit in Kibana becomes a change of the project's files."""

    def test_only_the_edit_changes_a_file(self, tmp_path):
        objects = Path(shutil.copytree(panels.FOLDER, tmp_path / "objects"))
        before = {file: file.read_text() for file in objects.rglob("*.json")}
        assert self.run(objects) == (0, True), "nobody has edited anything"
        edited = export()["wrtflow-sites"]
        edited["attributes"]["title"] = "Whom we ask"
        put(edited)
        try:
            assert self.run(objects, "--check") == (0, False)
            assert {file: file.read_text() for file in before} == before, "a dry run writes nothing"
            assert self.run(objects) == (0, False)
            (changed,) = [file for file in before if file.read_text() != before[file]]
            assert changed == objects / "visualization/sites.json"
            old, new = before[changed].splitlines(), changed.read_text().splitlines()
            assert [(was, now.strip()) for was, now in zip(old, new, strict=True) if was != now] == [
                ('    "title": "Sites",', '"title": "Whom we ask",')
            ]
            assert self.run(objects) == (0, True), "a second run changes nothing"
        finally:
            deploy()

    @staticmethod
    def run(objects: Path, *arguments: str) -> tuple[int, bool]:
        """Export into a folder; return the exit code, and whether nothing changed."""
        code, said = lab.deploy("export-dashboards.yml", {"kibana_objects_dir": str(objects)}, *arguments)
        return code, "changed=0 " in said


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


def test_no_secret_is_in_any_output():
    """Not even at -vvv, and not while they are made; nor in the form in which a request carries a password."""
    files = [
        "collector.api-key",
        "kibana.service-token",
        "reader.api-key",
        "elastic.password",
        "wrtflow.password",
    ]
    before = {lab.secret(name) for name in files}
    for name in files[:3]:
        (lab.SECRETS / name).unlink()
    said = ""
    for playbook in ("storage.yml", "dashboards.yml"):
        code, more = lab.deploy(playbook, {}, "-vvv", "--diff")
        assert code == 0, more
        said += more
    secrets = before | {lab.secret(name) for name in files}
    assert len(secrets) == 8, "three were made anew"
    carried = {
        base64.b64encode(f"{user}:{lab.secret(user + '.password')}".encode()).decode()
        for user in ("elastic", "wrtflow")
    }
    assert [secret[:6] for secret in secrets | carried if secret in said] == []
    assert "keystore" in said


def flow(**more: Any) -> dict[str, Any]:
    """Return a flow, by the names of its fields: a laptop's HTTPS to a site in Germany, but for what is said."""
    flat = {
        "@timestamp": "1999-03-01T12:00:00.000Z", "event.duration": 1_500_000_000, "observer.type": "router",
        "network.transport": "tcp", "network.type": "ipv4", "network.direction": "outbound",
        "source.ip": "10.77.0.20", "source.domain": "laptop", "source.mac": "00-00-5E-00-53-20", "source.bytes": 400,
        "destination.ip": "198.18.1.80", "destination.port": 443, "destination.bytes": 600,
        "destination.domain": "www.photoprint.example", "destination.registered_domain": "photoprint.example",
        "destination.geo.country_iso_code": "DE", "destination.geo.country_name": "Germany",
        "destination.geo.city_name": "Frankfurt am Main", "destination.geo.location": {"lat": 50.1, "lon": 8.7},
        "destination.as.number": 64501, "destination.as.organization.name": "Photoprint GmbH",
        "device.manufacturer": "Laptops Inc.", "wrtflow.device": "laptop", "wrtflow.domain_source": "dns",
        "wrtflow.hour": 12, "wrtflow.weekday": 1,
        **more,
    }  # fmt: skip
    flat["network.bytes"] = flat["source.bytes"] + flat["destination.bytes"]
    return {name: value for name, value in flat.items() if value is not None}


def document(flat: dict[str, Any]) -> dict[str, Any]:
    """Return a flow as the collector writes it."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        level = tree
        for parent in parents:
            level = level.setdefault(parent, {})
        level[leaf] = value
    return tree


NOWHERE = dict.fromkeys(
    f"destination.{name}"
    for name in ("geo.country_iso_code", "geo.country_name", "geo.city_name", "geo.location", "as.number",
                 "as.organization.name", "registered_domain")
)  # fmt: skip
CAMERA = {
    "source.domain": "camera", "source.ip": "10.77.0.21", "source.mac": "00-00-5E-00-53-01",
    "wrtflow.device": "camera", "device.manufacturer": "Gadgets Ltd",
}  # fmt: skip
STRANGER = {
    "network.direction": "inbound", "source.ip": "198.18.2.99", "source.domain": None, "source.mac": None,
    "source.geo.country_iso_code": "CN", "source.geo.country_name": "China",
    "source.as.organization.name": "Gadget Cloud", "device.manufacturer": None, "destination.domain": None, **NOWHERE,
}  # fmt: skip
FLOWS = [
    flow(),
    # The next day, over IPv6.
    flow(**{
        "@timestamp": "1999-03-02T08:00:00.000Z", "network.type": "ipv6",
        "source.ip": "fd77:0:0:1::20", "destination.ip": "fd77::2:1:0:0:80", "wrtflow.hour": 8, "wrtflow.weekday": 2,
    }),
    # A camera phones home at night in plain text, for the first time, to an address without a name.
    flow(**CAMERA, **{
        "source.bytes": 40, "destination.bytes": 10, "destination.ip": "198.18.2.80", "destination.port": 80,
        "destination.domain": None, "destination.registered_domain": None, "destination.geo.country_iso_code": "CN",
        "destination.geo.country_name": "China", "destination.geo.city_name": "Shenzhen",
        "destination.geo.location": {"lat": 22.5, "lon": 114.1}, "destination.as.organization.name": "Gadget Cloud",
        "wrtflow.domain_source": "none", "wrtflow.first_seen": True, "wrtflow.hour": 3,
    }),
    # It asks somebody else than the router for names, too.
    flow(**CAMERA, **{"network.transport": "udp", "destination.port": 53, "source.bytes": 70, "destination.bytes": 90}),
    # A ping, which has no ports, to somewhere that no database knows.
    flow(**{
        "network.transport": "icmp", "source.bytes": 84, "destination.bytes": 84, "destination.port": None,
        "destination.ip": "198.18.9.9", "destination.domain": None, **NOWHERE,
    }),
    # Inside the house.
    flow(**{
        "network.direction": "internal", "destination.ip": "10.77.0.10", "destination.domain": "nas",
        "destination.port": 445, "source.bytes": 3, "destination.bytes": 4, **NOWHERE,
    }),
    # What the edge has seen as well is nowhere in the panels.
    flow(**{"observer.type": "access_point", "wrtflow.first_seen": True}),
    # Somebody knocks from outside and gets no answer, somebody else is let in by a forwarded port, and pinged back.
    flow(**STRANGER, **{
        "source.bytes": 60, "destination.bytes": 0, "destination.ip": "10.77.0.1", "destination.port": 22,
        "wrtflow.device": None,
    }),
    flow(**STRANGER, **{
        "source.bytes": 500, "destination.bytes": 2000, "destination.ip": "198.18.0.2", "destination.port": 5001,
        "destination.nat.ip": "10.77.0.10", "wrtflow.device": "nas",
    }),
    flow(**STRANGER, **{
        "network.transport": "icmp", "source.bytes": 84, "destination.bytes": 84, "destination.ip": "10.77.0.1",
        "destination.port": None, "wrtflow.device": None,
    }),
]  # fmt: skip
SEEN = [one for one in FLOWS if one["observer.type"] == "router"]
LAST = 920361600000


def health(minute: int, kind: str, **more: Any) -> dict[str, Any]:
    """Return a health document by its fields."""
    return {
        "@timestamp": f"1999-03-01T12:{minute:02}:00.000Z", "event.dataset": f"wrtflow.{kind}",
        "event.duration": 60_000_000_000, **more,
    }  # fmt: skip


def router(minute: int, name: str, lines: int) -> dict[str, Any]:
    """Return how a router was in a minute."""
    return health(
        minute, "router", **{
            "observer.hostname": name, "observer.ip": "10.77.0.1", "wrtflow.lines": lines,
            "wrtflow.flows": lines // 3, "wrtflow.silence": 60 - lines, "wrtflow.without_start": 2,
            "wrtflow.without_end": 1,
        },
    )  # fmt: skip


def collector(minute: int, waiting: int, **more: Any) -> dict[str, Any]:
    """Return how all the rest was in a minute."""
    return health(
        minute, "collector", **{
            "wrtflow.waiting": waiting, "wrtflow.refused": 1, "wrtflow.dropped": 2, "wrtflow.failed_requests": 3,
            "wrtflow.unparsed": 4, "wrtflow.strangers": 5, "wrtflow.database_age": 2.5 + minute,
            "wrtflow.sites.dns": 30, "wrtflow.sites.ptr": 5, "wrtflow.sites.ptr_unconfirmed": 2,
            "wrtflow.sites.none": 3, **more,
        },
    )  # fmt: skip


HEALTH = [
    router(1, "router", 30), router(2, "router", 60), router(1, "attic", 9), router(2, "attic", 0),
    # A minute in which Elasticsearch did not answer, and one in which it did.
    collector(1, 70, **{"wrtflow.faults": 2, "error.message": ["Elasticsearch does not answer", "attic is silent"]}),
    collector(2, 0, **{"wrtflow.delay": 45_000, "wrtflow.faults": 1, "error.message": ["attic is silent"]}),
]  # fmt: skip


@pytest.fixture(scope="class")
def documents():
    """Flows, and how the chain was, in a month of their own: as the collector writes them."""
    for index, ones, writer in ((INDEX, FLOWS, "collector"), (HEALTH_INDEX, HEALTH, "health")):
        lines = [
            line
            for number, one in enumerate(ones)
            for line in ({"create": {"_index": index, "_id": str(number)}}, document(one))
        ]
        answer = lab.elasticsearch("POST", "/_bulk?refresh=true", lines, user=writer)
        assert not answer["errors"], answer
    yield
    for index in (INDEX, HEALTH_INDEX):
        lab.elasticsearch("DELETE", f"/{index}", user="elastic")


def ask(request: dict[str, Any], index: str = INDEX) -> dict[str, Any]:
    """Send a panel's request as the person who looks at it."""
    answer = requests.post(
        f"{lab.ELASTICSEARCH}/{index}/_search", json=request, verify=CA, timeout=30,
        auth=("wrtflow", lab.secret("wrtflow.password")),
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert answer.json()["_shards"]["failed"] == 0
    return answer.json()


def page(name: str) -> str:
    """Return the page that a panel is on: only of the filters there, so one of several will do."""
    return "health" if name.startswith("health-") else "home"


def read(name: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the index that a panel reads, and the documents that its page's filters leave."""
    if name == "health-stored":
        return INDEX, FLOWS
    return (HEALTH_INDEX, HEALTH) if page(name) == "health" else (INDEX, SEEN)


def table(name: str) -> list[dict[str, Any]]:
    """Return the rows of a panel."""
    panel = panels.load("visualization")[name]
    answer = ask(panels.asked(panel, page(name)), read(name)[0])
    return panels.rows(panel, answer["aggregations"], answer["hits"]["total"]["value"])


def vega(name: str) -> dict[str, Any]:
    """Return the answer to a Vega panel's query."""
    return ask(panels.asked(panels.load("visualization")[name], page(name)), read(name)[0])["aggregations"]


def holds(kql: str, one: dict[str, Any]) -> bool:
    """Tell whether a flow matches a query of the dashboards, computed in Python."""
    for clause in kql.split(" and ") if kql else ():
        negated, field, sign, wanted = re.fullmatch(r"(NOT )?([\w.]+)(: | < | > )(.*)", clause).groups()
        value = one.get(field)
        if sign == ": ":
            found = str(value) in wanted.strip("()").split(" OR ")
        else:
            found = value is not None and (value < int(wanted) if sign == " < " else value > int(wanted))
        if found == bool(negated):
            return False
    return True


def milliseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def split(agg: dict[str, Any], flows: list[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    """Return flows in the groups of an aggregation."""
    params = agg["params"]
    if agg["type"] == "filters":
        return {
            part["label"]: [one for one in flows if holds(part["input"]["query"], one)]
            for part in params["filters"]
        }
    groups: dict[Any, list[dict[str, Any]]] = {}
    for one in flows:
        key = one.get(params["field"])
        if key is None and params.get("missingBucket"):
            key = params["missingBucketLabel"]
        if key is not None and agg["type"] == "date_histogram":
            key = milliseconds(key) // 3_600_000 * 3_600_000
        for each in key if isinstance(key, list) else [key]:
            if each is not None:
                groups.setdefault(each, []).append(one)
    return groups


def value(agg: dict[str, Any], flows: list[dict[str, Any]]) -> float | None:
    """Return one figure of a row."""
    if agg["type"] == "count":
        return len(flows)
    values = [one[agg["params"]["field"]] for one in flows if agg["params"]["field"] in one]
    if agg["type"] == "sum":
        return sum(values)
    if agg["type"] == "cardinality":
        return len(set(values))
    if agg["type"] == "avg":
        return sum(values) / len(values) if values else None
    if values and not isinstance(values[0], str):
        return {"min": min, "max": max}[agg["type"]](values)
    return {"min": min, "max": max}[agg["type"]](map(milliseconds, values), default=None)


def reckoned(panel: dict[str, Any], documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a panel as Python makes them from the documents."""
    state = panel["visState"]
    metrics = [agg for agg in state["aggs"] if agg["schema"] == "metric"]
    splits = [agg for agg in state["aggs"] if agg["schema"] != "metric"]

    def walk(
        flows: list[dict[str, Any]], left: list[dict[str, Any]], row: dict[str, Any]
    ) -> list[dict[str, Any]]:
        groups = split(left[0], flows) if left else {}
        found = [
            deeper
            for key, some in groups.items() if some
            for deeper in walk(some, left[1:], {**row, left[0]["params"].get("customLabel", left[0]["id"]): key})
        ]  # fmt: skip
        if found or (left and not state["params"].get("showPartialRows")):
            return found
        return [{**row, **{agg["params"]["customLabel"]: value(agg, flows) for agg in metrics}}]

    kql = panel["kibanaSavedObjectMeta"]["searchSourceJSON"]["query"]["query"]
    asked_for = [one for one in documents if holds(kql, one)]
    assert asked_for, "an empty panel proves nothing"
    return walk(asked_for, splits, {})


def bytes_of(flows: list[dict[str, Any]]) -> tuple[int, int]:
    """Return the bytes received from and sent to the internet."""
    ends = {
        "outbound": ("destination.bytes", "source.bytes"),
        "inbound": ("source.bytes", "destination.bytes"),
    }
    pairs = [
        [one[end] for end in ends[one["network.direction"]]]
        for one in flows
        if one["network.direction"] in ends
    ]
    return sum(down for down, _ in pairs), sum(up for _, up in pairs)


def told(ways: dict[str, Any]) -> tuple[int, int]:
    """Return the same of an answer to a Vega panel, as its specification adds it up."""
    out, into = ways["buckets"]["outbound"], ways["buckets"]["inbound"]
    return (
        out["answered"]["value"] + into["sent"]["value"],
        out["sent"]["value"] + into["answered"]["value"],
    )


TABLES = [name for name, one in panels.load("visualization").items() if one["visState"]["aggs"]]
VEGA = [name for name, one in panels.load("visualization").items() if one["visState"]["type"] == "vega"]


@pytest.mark.usefixtures("documents")
class TestPanels:
    @pytest.mark.parametrize("name", TABLES)
    def test_a_panel_s_figures_are_those_that_python_makes_of_the_same_flows(self, name):
        def key(row: dict[str, Any]) -> str:
            return str(sorted((label, str(one)) for label, one in row.items()))

        def whole(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            rounded = [
                {label: int(one) if isinstance(one, float) else one for label, one in row.items()}
                for row in rows
            ]
            return sorted(rounded, key=key)

        assert whole(table(name)) == whole(reckoned(panels.load("visualization")[name], read(name)[1]))

    def test_figures_at_a_glance(self):
        answer = vega("figures")
        outbound = [one for one in SEEN if one["network.direction"] == "outbound"]
        assert told(answer["ways"]) == bytes_of(SEEN)
        assert answer["devices"]["value"] == len(
            {one["wrtflow.device"] for one in SEEN if "wrtflow.device" in one}
        )
        assert answer["contacts"]["doc_count"] == 1
        assert answer["outside"]["doc_count"] == len(outbound)
        assert answer["outside"]["unnamed"]["doc_count"] == 1
        assert answer["outside"]["plain"]["doc_count"] == 2

    def test_figures_of_a_site(self):
        answer = vega("site-figures")["outside"]
        outbound = [one for one in SEEN if one["network.direction"] == "outbound"]
        assert (answer["answered"]["value"], answer["sent"]["value"]) == bytes_of(outbound)
        assert answer["doc_count"] == len(outbound)
        assert answer["devices"]["value"] == len({one["wrtflow.device"] for one in outbound})
        assert answer["addresses"]["value"] == len({one["destination.ip"] for one in outbound})
        assert answer["last"]["value"] == max(milliseconds(one["@timestamp"]) for one in outbound)
        assert answer["first"]["value"] == min(milliseconds(one["@timestamp"]) for one in outbound)

    def test_figures_of_who_knocks(self):
        answer = vega("inbound-figures")["outside"]
        inbound = [one for one in SEEN if one["network.direction"] == "inbound"]
        assert (answer["down"]["value"], answer["up"]["value"]) == bytes_of(inbound)
        assert (answer["doc_count"], answer["answered"]["doc_count"]) == (3, 2)
        assert [answer[name]["value"] for name in ("addresses", "countries", "ports")] == [1, 1, 2]

    def test_figures_of_the_chain(self):
        answer = vega("health-figures")
        for name in ("lines", "flows", "refused", "dropped", "unparsed"):
            assert answer[name]["value"] == sum(one.get(f"wrtflow.{name}", 0) for one in HEALTH)
        assert answer["delay"]["value"] == 45_000
        assert answer["collector"]["time"]["value"] == 120e9
        (last,) = answer["collector"]["last"]["hits"]["hits"]
        assert last["_source"]["wrtflow"] == {"faults": 1, "waiting": 0, "database_age": 4.5}

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            (
                "device-country",
                {
                    ("laptop", "Germany"): (2, 2000),
                    ("camera", "China"): (1, 50),
                    ("camera", "Germany"): (1, 160),
                },
            ),
            ("nights", {("camera", "China"): (1, 50)}),
        ],
    )
    def test_from_device_to_country_by_flows(self, name, expected):
        answer = vega(name)["outside"]
        assert {
            (device["key"], country["key"]): (country["doc_count"], country["bytes"]["value"])
            for device in answer["devices"]["buckets"]
            for country in device["countries"]["buckets"]
        } == expected
        assert {one["key"] for one in answer["countries"]["buckets"]} == {country for _, country in expected}

    def test_down_and_up_over_time(self):
        found = {bucket["key"]: told(bucket["ways"]) for bucket in vega("down-and-up")["times"]["buckets"]}
        times = {milliseconds(one["@timestamp"]) for one in SEEN}
        assert {key: ways for key, ways in found.items() if ways != (0, 0)} == {
            time: bytes_of([one for one in SEEN if milliseconds(one["@timestamp"]) == time]) for time in times
        }

    def test_devices_down_and_up(self):
        found = {
            bucket["key"]: told(bucket["ways"]) for bucket in vega("devices")["outside"]["devices"]["buckets"]
        }
        assert found == {
            name: bytes_of([one for one in SEEN if one.get("wrtflow.device") == name])
            for name in ("laptop", "camera", "nas")
        }
        assert "198.18.2.99" not in found, "nobody from outside is a device"

    def test_from_device_to_country(self):
        found = {
            (device["key"], country["key"]): country["bytes"]["value"]
            for device in vega("phoning")["outside"]["devices"]["buckets"]
            for country in device["countries"]["buckets"]
        }
        assert found == {("laptop", "Germany"): 2000, ("camera", "China"): 50, ("camera", "Germany"): 160}

    def test_the_map(self):
        found = vega("world")
        countries = {
            b["key"]: (b["bytes"]["value"], b["devices"]["value"], b["name"]["buckets"][0]["key"])
            for b in found["countries"]["buckets"]
        }
        assert countries == {"DE": (2160, 2, "Germany"), "CN": (50, 1, "China")}
        places = {b["city"]["buckets"][0]["key"]: b["middle"]["location"] for b in found["places"]["buckets"]}
        assert places["Frankfurt am Main"]["lat"] == pytest.approx(50.1, abs=0.01)
        assert places["Shenzhen"]["lon"] == pytest.approx(114.1, abs=0.01)

    def test_every_vega_panel_is_tried(self):
        assert set(VEGA) == {
            "figures", "down-and-up", "devices", "phoning", "world", "device-country", "nights", "site-figures",
            "inbound-figures", "health-figures",
        }  # fmt: skip

    def test_first_contacts(self):
        hits = ask(panels.asked(panels.load("search")["first-contacts"]))["hits"]["hits"]
        assert [hit["fields"]["wrtflow.device"] for hit in hits] == [["camera"]]
        assert hits[0]["fields"]["destination.geo.country_name"] == ["China"]

    def test_the_list_of_flows(self):
        hits = ask(panels.asked(panels.load("search")["flow-list"]))["hits"]["hits"]
        assert len(hits) == len(SEEN)
        assert hits[0]["sort"] == [LAST]

    def test_the_largest_and_the_longest_flows(self):
        hits = ask(panels.asked(panels.load("search")["largest"]))["hits"]["hits"]
        assert hits[0]["fields"]["network.bytes"] == [2500]
        hits = ask(panels.asked(panels.load("search")["longest"]))["hits"]["hits"]
        assert hits[0]["fields"]["event.duration"] == [1_500_000_000]

    def test_what_the_article_asks_for_is_found(self):
        """Typed into the search bar: a part of a site's name, and the article's own names."""
        for text, number in (
            ("*photoprint*", 3),
            ("hostname.server:*photoprint*", 3),
            ("geoip2.country.iso_code:CN", 1),
        ):
            found = ask(
                {"query": {"query_string": {"query": text, "lenient": True, "fields": ["*"]}}, "size": 20}
            )
            seen = [hit for hit in found["hits"]["hits"] if hit["_source"]["observer"]["type"] == "router"]
            assert len(seen) == number, text
