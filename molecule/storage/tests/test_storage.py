"""Elasticsearch as roles/elasticsearch installs it: rights, the index template, and repairs by a second run."""

import json
import re
from typing import Any

import lab
import pytest
import requests
import yaml

testinfra_hosts = ["docker://wrtflow-logserver"]

CONTRACT = yaml.safe_load((lab.PROJECT / "files/flow-document.yml").read_text())
CA = lab.SECRETS / "elasticsearch-ca.crt"
INDEX, MONTH = "network-1999.01", "network-1999.02"

SAMPLES = {
    "date": "1999-01-31T23:59:59.999Z",
    "keyword": "some text",
    "long": 65535,
    "byte": 23,
    "ip": "fd77:0:0:1::20",
    "geo_point": {"lat": 50.1, "lon": 8.7},
    "boolean": True,
}


def ask(method: str, path: str, body: Any = None, user: str | None = None) -> requests.Response:
    """Send a request as a user, with a key (by its file's name), or as nobody."""
    headers, auth = {"Content-Type": "application/json"}, None
    if user in ("elastic", "wrtflow"):
        auth = (user, lab.secret(f"{user}.password"))
    elif user == "kibana":
        headers["Authorization"] = "Bearer " + lab.secret("kibana.service-token")
    elif user:
        headers["Authorization"] = "ApiKey " + lab.secret(f"{user}.api-key")
    data = json.dumps(body) if isinstance(body, dict) else body
    return requests.request(
        method, lab.ELASTICSEARCH + path, data=data, headers=headers, auth=auth, verify=CA, timeout=30
    )


def bulk(
    *actions: tuple[str, dict[str, Any], dict[str, Any] | None], user: str = "collector"
) -> list[dict[str, Any]]:
    """Send bulk actions (operation, metadata, document); return what became of each."""
    lines = []
    for operation, about, document in actions:
        lines.append(json.dumps({operation: about}))
        if document is not None:
            lines.append(json.dumps(document))
    answer = ask("POST", "/_bulk?refresh=true", "\n".join([*lines, ""]), user)
    assert answer.status_code == 200, answer.text
    return [next(iter(item.values())) for item in answer.json()["items"]]


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Return a document with its dotted names taken apart."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        level = tree
        for parent in parents:
            level = level.setdefault(parent, {})
        level[leaf] = value
    return tree


def whole_document() -> dict[str, Any]:
    """Return a document with every field of the contract."""
    return nested({field["name"]: SAMPLES[field["type"]] for field in CONTRACT["flow_fields"]})


def mapped(properties: dict[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Return a mapping's fields by their dotted names."""
    fields = {}
    for name, about in properties.items():
        if "properties" in about:
            fields.update(mapped(about["properties"], f"{prefix}{name}."))
        else:
            fields[prefix + name] = about
    return fields


def deploy() -> str:
    """Run the playbook once more; return what it said, on one line."""
    code, said = lab.deploy("storage.yml")
    assert code == 0, said[-6000:]
    return said


@pytest.fixture(autouse=True)
def clean():
    """Leave no test's documents behind."""
    yield
    for index in (INDEX, MONTH):
        ask("DELETE", f"/{index}", user="elastic")


class TestWhoMayWhat:
    @pytest.mark.parametrize(
        "path", ["/", "/_search", "/network-*/_search", "/_security/user", "/_cluster/health"]
    )
    def test_nobody_may_anything(self, path):
        answer = ask("GET", path)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "security_exception"

    def test_a_wrong_password_is_refused(self):
        answer = requests.get(lab.ELASTICSEARCH, auth=("elastic", "changeme"), verify=CA, timeout=10)
        assert answer.status_code == 401

    def test_the_collector_creates_flows_in_a_month_that_was_not_there(self):
        (item,) = bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        assert item["status"] == 201, item

    def test_the_collector_creates_a_flow_once(self):
        bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        (item,) = bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        assert item["status"] == 409

    def test_the_collector_changes_and_deletes_nothing_even_inside_a_good_batch(self):
        bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        items = bulk(
            ("index", {"_index": INDEX, "_id": "a"}, whole_document()),
            ("create", {"_index": INDEX, "_id": "b"}, whole_document()),
            ("update", {"_index": INDEX, "_id": "a"}, {"doc": {"event": {"action": "none"}}}),
            ("delete", {"_index": INDEX, "_id": "a"}, None),
            ("create", {"_index": "elsewhere", "_id": "a"}, {}),
        )
        assert [item["status"] for item in items] == [403, 201, 403, 403, 403]
        found = ask("GET", f"/{INDEX}/_search", user="reader").json()["hits"]["hits"]
        assert sorted(hit["_id"] for hit in found) == ["a", "b"]
        assert all(hit["_source"] == whole_document() for hit in found)
        assert ask("HEAD", "/elsewhere", user="elastic").status_code == 404

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "/", None),
            ("GET", f"/{INDEX}/_search", None),
            ("GET", f"/{INDEX}/_doc/a", None),
            ("GET", "/network-*/_count", None),
            ("PUT", f"/{INDEX}/_doc/a", {}),
            ("DELETE", f"/{INDEX}/_doc/a", None),
            ("DELETE", f"/{INDEX}", None),
            ("PUT", f"/{MONTH}", {"settings": {"number_of_shards": 2}}),
            ("PUT", f"/{INDEX}/_settings", {"index": {"blocks.read_only": True}}),
            ("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": "false"}}),
            ("GET", "/_cluster/health", None),
            ("PUT", "/_index_template/wrtflow-flows", {"index_patterns": ["network-*"]}),
            ("PUT", "/_ilm/policy/wrtflow-flows", {"policy": {"phases": {}}}),
            ("POST", "/_security/api_key", {"name": "more"}),
            ("PUT", "/_security/user/more", {"password": "longenough", "roles": ["superuser"]}),
            ("POST", "/_security/user/elastic/_password", {"password": "longenough"}),
        ],
    )
    def test_the_collector_may_nothing_else(self, method, path, body):
        bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        answer = ask(method, path, body, "collector")
        assert answer.status_code == 403, answer.text
        assert "is unauthorized for API key" in answer.json()["error"]["reason"]

    def test_the_reader_reads(self):
        bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        assert ask("GET", "/network-*/_count", user="reader").json()["count"] >= 1
        for path in ("/", "/_cluster/health", "/_ilm/policy", f"/{INDEX}/_ilm/explain", f"/{INDEX}/_stats"):
            assert ask("GET", path, user="reader").status_code == 200, path

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "/_bulk", json.dumps({"create": {"_index": INDEX}}) + "\n{}\n"),
            ("DELETE", f"/{INDEX}", None),
            ("PUT", f"/{INDEX}/_create/b", {}),
            ("GET", "/_security/user", None),
            ("PUT", "/_cluster/settings", {"persistent": {}}),
        ],
    )
    def test_the_reader_may_nothing_else(self, method, path, body):
        answer = ask(method, path, body, "reader")
        assert answer.status_code == 403, answer.text

    def test_the_retention_dates_and_drops_months_and_nothing_else(self):
        bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        ask("PUT", "/elsewhere/_doc/1?refresh=true", {}, "elastic")
        try:
            for method, path, body in (
                ("GET", f"/{INDEX}/_search", None),
                ("GET", f"/{INDEX}/_doc/a", None),
                ("POST", "/_bulk", json.dumps({"delete": {"_index": INDEX, "_id": "a"}}) + "\n"),
                ("PUT", f"/{INDEX}/_create/b", {}),
                ("PUT", f"/{MONTH}", {}),
                ("PUT", f"/{INDEX}/_mapping", {"properties": {}}),
                ("PUT", "/elsewhere/_settings", {"index": {"blocks.read_only": True}}),
                ("DELETE", "/elsewhere", None),
                ("GET", "/elsewhere/_segments", None),
                ("GET", "/_cluster/health", None),
                ("PUT", "/_cluster/settings", {"persistent": {}}),
                ("PUT", "/_ilm/policy/wrtflow-flows", {"policy": {"phases": {}}}),
            ):
                answer = ask(method, path, body, "retention")
                refused = answer.status_code == 403 or '"status":403' in answer.text
                assert refused, f"{method} {path}: {answer.text}"
        finally:
            ask("DELETE", "/elsewhere", user="elastic")
        for method, path, body in (
            ("GET", "/network-*/_segments", None),
            ("GET", "/network-*/_settings", None),
            ("PUT", f"/{INDEX}/_settings", {"index.lifecycle.origination_date": 0}),
            ("DELETE", f"/{INDEX}", None),
        ):
            assert ask(method, path, body, "retention").status_code == 200, f"{method} {path}"

    def test_readers_see_flows_and_no_other_index(self):
        bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        ask("PUT", "/elsewhere/_doc/1?refresh=true", {}, "elastic")
        try:
            for user in ("reader", "wrtflow"):
                assert ask("GET", "/elsewhere/_search", user=user).status_code == 403
                hits = ask("GET", "/*/_search", user=user).json()["hits"]["hits"]
                assert {hit["_index"] for hit in hits} == {INDEX}
        finally:
            ask("DELETE", "/elsewhere", user="elastic")

    def test_the_person_uses_kibana_and_reads_flows(self):
        about = ask("GET", "/_security/_authenticate", user="wrtflow").json()
        assert set(about["roles"]) == {"wrtflow_reader", "kibana_admin"}
        wanted = {"index": [{"names": ["network-*"], "privileges": ["read", "write", "view_index_metadata"]}]}
        answer = ask("POST", "/_security/user/_has_privileges", wanted, "wrtflow").json()
        assert answer["index"]["network-*"] == {"read": True, "write": False, "view_index_metadata": True}

    def test_kibana_s_token_is_kibana_s(self):
        assert ask("GET", "/_security/_authenticate", user="kibana").json()["username"] == "elastic/kibana"


class TestWhatAFlowIs:
    def test_the_template_has_the_contract_s_fields_and_aliases(self):
        bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        fields = mapped(
            ask("GET", f"/{INDEX}/_mapping", user="reader").json()[INDEX]["mappings"]["properties"]
        )
        aliases = {name: about["path"] for name, about in fields.items() if about["type"] == "alias"}
        types = {name: about["type"] for name, about in fields.items() if about["type"] != "alias"}
        assert aliases == CONTRACT["flow_aliases"]
        assert types == {field["name"]: field["type"] for field in CONTRACT["flow_fields"]}
        unindexed = {name for name, about in fields.items() if about.get("index") is False}
        assert unindexed == {field["name"] for field in CONTRACT["flow_fields"] if field.get("unindexed")}

    def test_a_document_of_all_fields_is_taken_whole(self):
        (item,) = bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        assert item["status"] == 201, item
        (hit,) = ask("GET", f"/{INDEX}/_search", {"fields": ["*"]}, "reader").json()["hits"]["hits"]
        assert "_ignored" not in hit
        assert set(hit["fields"]) >= {field["name"] for field in CONTRACT["flow_fields"]}

    @pytest.mark.parametrize("field", CONTRACT["flow_fields"], ids=lambda field: field["name"])
    def test_every_field_can_be_filtered_by(self, field):
        """Also those that are kept as doc values only: panels, controls and people filter by what they like."""
        bulk(
            ("create", {"_index": INDEX, "_id": "it"}, whole_document()),
            ("create", {"_index": INDEX, "_id": "other"}, nested({"@timestamp": "1999-01-01T00:00:00.000Z"})),
        )
        sample = SAMPLES[field["type"]]
        query = {"term": {field["name"]: sample}}
        if field["type"] == "geo_point":
            query = {"geo_distance": {"distance": "1km", field["name"]: sample}}
        hits = ask("GET", f"/{INDEX}/_search", {"query": query}, "reader").json()["hits"]["hits"]
        assert [hit["_id"] for hit in hits] == ["it"]

    def test_an_unknown_field_is_refused_in_the_lab(self):
        (item,) = bulk(("create", {"_index": INDEX, "_id": "a"}, {**whole_document(), "surprise": 1}))
        assert item["status"] == 400
        assert item["error"]["type"] == "strict_dynamic_mapping_exception"

    @pytest.mark.parametrize("kind", ["date", "long", "ip", "geo_point"])
    def test_a_malformed_value_costs_the_field_and_not_the_flow(self, kind):
        name = next(f["name"] for f in CONTRACT["flow_fields"] if f["type"] == kind and not f.get("always"))
        flat = {
            "@timestamp": SAMPLES["date"],
            "source.ip": "10.0.0.1",
            "destination.ip": "10.0.0.2",
            name: "nonsense",
        }
        (item,) = bulk(("create", {"_index": INDEX, "_id": "a"}, nested(flat)))
        assert item["status"] == 201, item
        (hit,) = ask("GET", f"/{INDEX}/_search", user="reader").json()["hits"]["hits"]
        assert hit["_ignored"] == [name]

    def test_a_name_beyond_all_measure_is_kept_and_not_indexed(self):
        document = {**whole_document(), "destination": {"ip": "10.0.0.2", "domain": "x" * 40_000}}
        (item,) = bulk(("create", {"_index": INDEX, "_id": "a"}, document))
        assert item["status"] == 201, item

    @pytest.mark.parametrize(
        "query",
        [
            "hostname.server:*photoprint*",
            "geoip2.country.iso_code:CN",
            "nf_orig.PROTO:TCP",
            "nf_orig.SRC:10.0.0.1 AND nf_orig.DPT:443",
            "nf_reply.BYTES:>1000",
            "hostname.client:laptop",
            "wrtflow.first_seen:true",
        ],
    )
    def test_the_article_s_queries_work(self, query):
        flow = {
            "@timestamp": SAMPLES["date"],
            "network": {"transport": "tcp"},
            "source": {"ip": "10.0.0.1", "domain": "laptop"},
            "destination": {
                "ip": "198.18.2.80", "port": 443, "bytes": 1001, "domain": "www.photoprint.example",
                "geo": {"country_iso_code": "CN"},
            },
            "wrtflow": {"first_seen": True},
        }  # fmt: skip
        other = {
            "@timestamp": SAMPLES["date"],
            "network": {"transport": "udp"},
            "source": {"ip": "10.0.0.2", "domain": "camera"},
            "destination": {"ip": "198.18.1.80", "port": 80, "bytes": 1000, "domain": "news.example"},
        }
        bulk(
            ("create", {"_index": INDEX, "_id": "it"}, flow),
            ("create", {"_index": INDEX, "_id": "other"}, other),
        )
        body = {"query": {"query_string": {"query": query, "analyze_wildcard": True}}}
        hits = ask("GET", f"/{INDEX}/_search", body, "reader").json()["hits"]["hits"]
        assert [hit["_id"] for hit in hits] == ["it"]

    def test_the_article_s_location_is_a_place(self):
        bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        body = {"size": 0, "aggs": {"place": {"geotile_grid": {"field": "geoip2.location2", "precision": 4}}}}
        found = ask("GET", f"/{INDEX}/_search", body, "reader").json()["aggregations"]["place"]["buckets"]
        assert [(bucket["key"], bucket["doc_count"]) for bucket in found] == [("4/8/5", 1)]

    def test_a_month_compresses_refreshes_and_has_a_lifecycle(self):
        bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        settings = ask("GET", f"/{INDEX}/_settings", user="reader").json()[INDEX]["settings"]["index"]
        assert settings["codec"] == "best_compression"
        assert "refresh_interval" not in settings
        # The documents stay as they were sent, whatever the columns.
        assert (settings["mode"], settings["mapping"]["source"]["mode"]) == ("logsdb", "stored")
        assert (settings["number_of_shards"], settings["number_of_replicas"]) == ("1", "0")
        assert settings["sort"]["field"] == ["destination.ip", "wrtflow.device", "@timestamp"]
        about = ask("GET", f"/{INDEX}/_ilm/explain", user="reader").json()["indices"][INDEX]
        assert (about["managed"], about["policy"]) == (True, "wrtflow-flows")

    def test_months_go_when_they_are_old(self):
        phases = ask("GET", "/_ilm/policy/wrtflow-flows", user="reader").json()["wrtflow-flows"]["policy"][
            "phases"
        ]
        assert phases["warm"]["min_age"] == "40d"
        assert phases["warm"]["actions"] == {"forcemerge": {"max_num_segments": 1}, "readonly": {}}
        assert phases["delete"]["min_age"] == "396d"
        assert "delete" in phases["delete"]["actions"]


def retention(host: Any, **changed: str) -> str:
    """Run the retention with some of its settings changed; return its output."""
    settings = json.loads(lab.run("logserver", "cat", "/etc/wrtflow/retention.json")) | changed
    lab.put("logserver", "/root/retention.json", json.dumps(settings).encode(), 0o600)
    return host.check_output("wrtflow-retention --settings /root/retention.json")


def verify(variables: str) -> str:
    """Run the doctor for the storage; return what it said, on one line."""
    return lab.deploy("verify.yml", None, "--tags", "storage", "--extra-vars", variables)[1]


class TestNeverFull:
    def test_the_retention_runs_each_hour(self, host):
        assert host.service("wrtflow-retention.timer").is_running
        assert host.service("wrtflow-retention.timer").is_enabled
        assert host.file("/etc/wrtflow/retention.json").mode == 0o600

    def test_a_month_is_as_old_as_its_name(self, host):
        bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        host.check_output("systemctl start wrtflow-retention")
        about = ask("GET", f"/{INDEX}/_ilm/explain", user="reader").json()["indices"][INDEX]
        assert about["lifecycle_date_millis"] == 915_148_800_000, "1999-01-01T00:00:00Z"
        said = host.check_output("journalctl --unit wrtflow-retention --no-pager --output cat")
        assert f"{INDEX}: its age counts from the first of its month" in said
        assert INDEX not in retention(host), "a month that has its date got it again"

    def test_the_oldest_closed_month_goes_when_the_flows_take_too_much(self, host):
        for index in (INDEX, MONTH):
            bulk(("create", {"_index": index, "_id": "a"}, whole_document()))
        assert "dropped" not in retention(host)
        segments = ask("GET", "/network-*/_segments", user="elastic").json()["indices"]
        taken = sum(
            segment["size_in_bytes"]
            for about in segments.values()
            for (copy,) in about["shards"].values()
            for segment in copy["segments"].values()
        )
        said = retention(host, max_size=f"{taken - 1}b")
        assert re.search(rf"^{INDEX}: dropped, [\d.]+kb\. The flows took", said, re.MULTILINE)
        assert MONTH not in said.replace(f"{MONTH}: its age", "")
        assert ask("HEAD", f"/{INDEX}", user="elastic").status_code == 404
        assert ask("HEAD", f"/{MONTH}", user="elastic").status_code == 200

    def test_the_first_of_a_month_with_a_disk_above_the_high_watermark(self):
        """The month that is there takes flows, the new one gets no place, and the doctor names what to drop."""
        bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        level = "cluster.routing.allocation.disk.watermark"
        # In bytes it is room that has to be left: more than any disk has.
        full = {f"{level}.low": "1000tb", f"{level}.high": "999tb", f"{level}.flood_stage": "1b"}

        def created(index: str) -> int:
            lines = [json.dumps({"create": {"_index": index}}), json.dumps(whole_document()), ""]
            answer = ask("POST", "/_bulk?timeout=2s", "\n".join(lines), "collector")
            return answer.json()["items"][0]["create"]["status"]

        assert ask("PUT", "/_cluster/settings", {"persistent": full}, "elastic").ok
        try:
            # By itself it would come to be with the first flow, after half a minute of waiting for its shard.
            assert not ask("PUT", f"/{MONTH}?timeout=1s", {}, "elastic").json()["shards_acknowledged"]
            assert created(MONTH) == 503
            assert created(INDEX) == 201
            about = ask("GET", f"/_cluster/health/{MONTH}", user="elastic").json()
            assert about["status"] == "red"
            said = verify("wrtflow_disk_full=1")
            assert re.search(r"WRONG: the disk of \S+ is \d+ % full", said)
            assert re.search(rf"oldest first: {INDEX} [\d.]+ KB", said)
            assert "failed=1" in said
        finally:
            nothing = dict.fromkeys(full)
            assert ask("PUT", "/_cluster/settings", {"persistent": nothing}, "elastic").ok
        lab.wait_for("a place for the new month", lambda: created(MONTH) == 201, 90, every=1)

    def test_the_doctor_warns_in_time(self):
        said = verify("wrtflow_disk_warning=0 wrtflow_disk_full=101")
        assert re.search(r"WARNING: the disk of \S+ is \d+ %", said)
        assert not re.search(r"WRONG: the disk", said)
        assert re.search(r"good: the disk of", verify("wrtflow_disk_warning=101 wrtflow_disk_full=102"))


class TestTheMachine:
    def test_nobody_trusts_the_certificate_who_does_not_know_the_authority(self):
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(lab.ELASTICSEARCH, timeout=10)

    def test_there_is_no_http_without_tls(self):
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(lab.ELASTICSEARCH.replace("https", "http"), timeout=10)

    def test_only_http_is_heard_outside(self, host):
        assert host.socket("tcp://10.77.0.10:9200").is_listening
        assert not host.socket("tcp://10.77.0.10:9300").is_listening

    @pytest.mark.parametrize(
        ("path", "group", "mode"),
        [
            ("/etc/elasticsearch/elasticsearch.yml", "elasticsearch", 0o660),
            ("/etc/elasticsearch/jvm.options.d/wrtflow.options", "elasticsearch", 0o660),
            ("/etc/elasticsearch/certs/ca.key", "root", 0o600),
            ("/etc/elasticsearch/certs/http.key", "elasticsearch", 0o640),
        ],
    )
    def test_files_are_read_by_those_who_need_them(self, host, path, group, mode):
        file = host.file(path)
        assert (file.user, file.group, file.mode) == ("root", group, mode)

    def test_secrets_are_read_by_nobody_else_on_the_control_machine(self):
        assert lab.SECRETS.stat().st_mode & 0o777 == 0o700
        secrets = [
            "elastic.password",
            "wrtflow.password",
            "collector.api-key",
            "health.api-key",
            "reader.api-key",
            "retention.api-key",
            "kibana.service-token",
        ]
        assert {name: (lab.SECRETS / name).stat().st_mode & 0o777 for name in secrets} == dict.fromkeys(
            secrets, 0o600
        )

    def test_apt_leaves_the_package_alone(self, host):
        assert host.check_output("apt-mark showhold") == "elasticsearch"

    def test_the_service_comes_back_after_a_crash_and_knows_everything(self, host):
        bulk(("create", {"_index": INDEX, "_id": "a"}, whole_document()))
        host.check_output("systemctl kill --signal KILL --kill-whom main elasticsearch")
        lab.wait_for("Elasticsearch after a crash", self.reader_counts, 60, every=0.5)
        assert host.service("elasticsearch").is_enabled

    @staticmethod
    def reader_counts() -> bool:
        try:
            return ask("GET", f"/{INDEX}/_count", user="reader").json().get("count") == 1
        except requests.exceptions.RequestException:
            return False


@pytest.mark.long
def test_a_restart_makes_no_credential_look_refused():
    """A node that has just started refuses everybody for a moment."""
    lab.run("logserver", "touch", "/etc/elasticsearch/certs/http.crt")
    # The file that was not read, and the restart.
    assert "changed=2 unreachable=0 failed=0" in deploy()


def test_a_run_mends_what_is_lost_refused_or_changed():
    before = lab.secret("collector.api-key")
    (lab.SECRETS / "collector.api-key").unlink()
    (lab.SECRETS / "kibana.service-token").write_text("AAEAAWVsYXN0aWMva2liYW5hL25vOm5v")
    # As after a run that ended before it could restart Elasticsearch with a new certificate.
    lab.run("logserver", "touch", "/etc/elasticsearch/certs/http.crt")
    # As Elastic's package leaves behind that was installed by hand: a password for keys that nobody uses.
    lab.run(
        "logserver", "/usr/share/elasticsearch/bin/elasticsearch-keystore", "add", "--stdin", "--force",
        "xpack.security.transport.ssl.keystore.secure_password", stdin="left\n",
    )  # fmt: skip
    # As after a new installation of Elasticsearch: its superuser has another password.
    ask("POST", "/_security/user/elastic/_password", {"password": "another one"}, "elastic")
    requests.delete(
        lab.ELASTICSEARCH + "/_index_template/wrtflow-flows",
        auth=("elastic", "another one"),
        verify=CA,
        timeout=30,
    )
    # As a month that began before a flow had all of its fields.
    known = {"@timestamp": {"type": "date"}, "source": {"properties": {"ip": {"type": "ip"}}}}
    requests.put(
        f"{lab.ELASTICSEARCH}/{MONTH}",
        json={"mappings": {"dynamic": "strict", "properties": known}},
        auth=("elastic", "another one"), verify=CA, timeout=30,
    )  # fmt: skip
    requests.put(
        lab.ELASTICSEARCH + "/_security/role/wrtflow_reader",
        json={"indices": [{"names": ["*"], "privileges": ["all"]}]},
        auth=("elastic", "another one"), verify=CA, timeout=30,
    )  # fmt: skip

    assert "changed=8 unreachable=0 failed=0" in deploy()

    assert ask("GET", "/_security/_authenticate", user="elastic").status_code == 200
    assert ask("GET", "/_security/_authenticate", user="kibana").status_code == 200
    assert ask("GET", "/*/_search", user="wrtflow").status_code == 200
    assert ask("DELETE", "/network-*", user="wrtflow").status_code == 403
    (item,) = bulk(("create", {"_index": INDEX, "_id": "a"}, {**whole_document(), "surprise": 1}))
    assert item["status"] == 400, "the template was not mended"
    (item,) = bulk(("create", {"_index": MONTH, "_id": "a"}, whole_document()))
    assert item["status"] == 201, "the month that had begun was not told of new fields"
    revoked = requests.get(
        lab.ELASTICSEARCH + "/_security/_authenticate",
        headers={"Authorization": f"ApiKey {before}"}, verify=CA, timeout=30,
    )  # fmt: skip
    assert revoked.status_code == 401, "the lost key is still good"

    assert "changed=0 unreachable=0 failed=0" in deploy()
