"""An Elasticsearch and a Kibana that somebody else runs: wrtflow uses their APIs and touches nothing else."""

import base64
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import lab
import pytest
import requests
import yaml

testinfra_hosts = ["docker://wrtflow-logserver"]

CA = lab.SECRETS / "elasticsearch-ca.crt"
INDEX = "network-1999.07"
OURS = {"wrtflow", "wrtflow_reader", "wrtflow-flows", "wrtflow-health"}


def elastic(method: str, path: str, body: Any = None) -> Any:
    return lab.elasticsearch(method, path, body, user="elastic")


class House:
    """An inventory whose groups storage and dashboards have no hosts, and its secrets."""

    def __init__(self, folder: Path) -> None:
        """Write the inventory, with a key that an administrator has made as the README says."""
        self.folder, self.secrets = folder, folder / "secrets"
        readme = (lab.PROJECT / "roles/elasticsearch/README.md").read_text()
        (asked,) = re.findall(r"^POST _security/api_key\n(.*?)```", readme, re.MULTILINE | re.DOTALL)
        self.key = elastic("POST", "/_security/api_key", json.loads(asked))["encoded"]
        self.variables = {
            "wrtflow_elasticsearch_url": lab.ELASTICSEARCH,
            "wrtflow_kibana_url": lab.KIBANA,
            "elasticsearch_ca_certificate": str(CA),
            "elasticsearch_admin_key": self.key,
        }
        hosts = yaml.safe_load((lab.PROJECT / "inventory/lab/hosts.yml").read_text())
        hosts["all"]["children"] = {
            "collector": {"hosts": {"logserver": {}}},
            "storage": {},
            "dashboards": {},
        }
        (folder / "hosts.yml").write_text(json.dumps(hosts))
        (folder / "group_vars").mkdir()
        (folder / "group_vars/all.yml").write_text(json.dumps(self.variables))

    def deploy(self, *arguments: str, **variables: Any) -> tuple[int, str]:
        """Run both playbooks; return the exit code and what they said, on one line."""
        done = subprocess.run(
            ["ansible-playbook", "--inventory", self.folder, "playbooks/storage.yml", "playbooks/dashboards.yml",
             "--extra-vars", json.dumps(variables), *arguments],
            cwd=lab.PROJECT, env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return done.returncode, " ".join(done.stdout.split())

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def ask(self, method: str, path: str, key: str, body: Any = None) -> requests.Response:
        """Send a request with one of the house's keys."""
        return requests.request(
            method, lab.ELASTICSEARCH + path, json=body, verify=CA, timeout=30,
            headers={"Authorization": "ApiKey " + self.secret(f"{key}.api-key")},
        )  # fmt: skip


def theirs(host) -> dict[str, Any]:
    """Return all that is there and not wrtflow's."""
    templates = elastic("GET", "/_index_template")["index_templates"]
    found = {
        "templates": {one["name"]: one["index_template"] for one in templates},
        "policies": elastic("GET", "/_ilm/policy"),
        "roles": elastic("GET", "/_security/role"),
        "users": elastic("GET", "/_security/user"),
        "snapshots": elastic("GET", "/_slm/policy"),
    }
    kept = {
        kind: {name: about for name, about in things.items() if name not in OURS}
        for kind, things in found.items()
    }
    machine = (
        "cat /etc/elasticsearch/elasticsearch.yml /etc/kibana/kibana.yml; systemctl show --value --property"
    )
    return {
        **kept,
        "settings": elastic("GET", "/_cluster/settings"),
        "repositories": elastic("GET", "/_snapshot"),
        "indices": elastic("GET", "/*/_settings"),
        "machine": host.check_output(f"{machine} ExecMainStartTimestampMonotonic elasticsearch kibana"),
    }


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Afterwards the lab's own keys and passwords are good again."""
    for index in elastic("GET", "/network-*/_settings"):
        elastic("DELETE", f"/{index}")
    for name in ("wrtflow-flows", "wrtflow-health"):
        elastic("DELETE", f"/_index_template/{name}")
        elastic("DELETE", f"/_ilm/policy/{name}")
    elastic("DELETE", "/_security/user/wrtflow")
    elastic("DELETE", "/_security/role/wrtflow_reader")
    elastic("PUT", "/_index_template/theirs", {"index_patterns": ["theirs-*"], "template": {}})
    elastic("PUT", "/_security/role/theirs", {"cluster": ["monitor"]})
    elastic("PUT", "/theirs-1/_doc/1", {"a": 1})
    try:
        yield House(tmp_path_factory.mktemp("house"))
    finally:
        for path in ("/_index_template/theirs", "/_security/role/theirs", "/theirs-1", f"/{INDEX}"):
            elastic("DELETE", path)
        code, said = lab.deploy("storage.yml")
        assert code == 0, said


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"elasticsearch_admin_key": ""}, "an administrator's API key (not set)"),
        ({"elasticsearch_ca_certificate": ""}, "/etc/ssl/certs/ca-certificates.crt"),
        ({"wrtflow_elasticsearch_url": "https://:9200"}, "wrtflow_elasticsearch_url"),
        ({"elasticsearch_snapshots": "/mnt/nas"}, "not a folder (now '/mnt/nas')"),
        ({"elasticsearch_admin_key": "bm9ib2R5Om5vYm9keQ=="}, "answers 401"),
    ],
)
def test_what_is_missing_or_wrong_is_told_before_anything_is_done(house, host, variables, word):
    before = theirs(host)
    code, said = house.deploy(**variables)
    assert code == 2, said
    assert word in said
    assert "changed=0 " in said
    assert theirs(host) == before
    assert not house.secrets.exists()


def test_it_gets_what_wrtflow_needs_and_nothing_else_is_touched(house, host):
    before = theirs(host)
    code, said = house.deploy("--check", "--diff")
    assert code == 0, said
    assert re.search(r"changed=[1-9]", said), "a dry run does not tell what it would do"
    assert not house.secrets.exists()

    code, said = house.deploy("-vvv", "--diff")
    assert code == 0, said[-6000:]
    assert theirs(host) == before

    templates = elastic("GET", "/_index_template/wrtflow-flows")["index_templates"]
    assert templates[0]["index_template"]["index_patterns"] == ["network-*"]
    assert {"wrtflow-flows", "wrtflow-health"} <= elastic("GET", "/_ilm/policy").keys()
    flow = {
        "@timestamp": "1999-07-01T00:00:00Z",
        "source": {"ip": "10.0.0.1"},
        "destination": {"ip": "10.0.0.2"},
    }
    assert house.ask("PUT", f"/{INDEX}/_create/a?refresh=true", "collector", flow).status_code == 201
    assert house.ask("GET", f"/{INDEX}/_count", "collector").status_code == 403
    assert house.ask("GET", f"/{INDEX}/_count", "reader").json()["count"] == 1
    assert house.ask("DELETE", f"/{INDEX}", "reader").status_code == 403
    seen = requests.post(
        lab.KIBANA + "/api/saved_objects/_export", auth=("wrtflow", house.secret("wrtflow.password")), verify=CA,
        headers={"kbn-xsrf": "test"}, json={"objects": [{"type": "dashboard", "id": "wrtflow-home"}]}, timeout=30,
    )  # fmt: skip
    assert seen.status_code == 200, seen.text

    assert {path.name for path in house.secrets.iterdir()} == {
        "collector.api-key", "health.api-key", "reader.api-key", "wrtflow.password", "elasticsearch-ca.crt",
        "kibana-objects.sha256",
    }  # fmt: skip
    known = [
        house.key,
        *(
            house.secret(name)
            for name in ("collector.api-key", "health.api-key", "reader.api-key", "wrtflow.password")
        ),
    ]
    known.append(base64.b64encode(f"wrtflow:{house.secret('wrtflow.password')}".encode()).decode())
    assert [secret[:6] for secret in known if secret in said] == []

    code, said = house.deploy()
    assert code == 0, said
    assert "changed=0 " in said, said


def test_a_kibana_of_wrtflow_s_is_not_put_before_an_elasticsearch_of_somebody_else_s(house):
    hosts = json.loads((house.folder / "hosts.yml").read_text())
    hosts["all"]["children"]["dashboards"] = {"hosts": {"logserver": {}}}
    other = house.folder / "other.yml"
    other.write_text(json.dumps(hosts))
    done = subprocess.run(
        ["ansible-playbook", "--inventory", other, "playbooks/dashboards.yml"],
        cwd=lab.PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "take logserver out of the group dashboards" in " ".join((done.stdout + done.stderr).split())
