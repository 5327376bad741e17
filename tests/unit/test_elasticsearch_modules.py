"""The role's modules for Elasticsearch: they write what differs, and only that."""

import copy
from typing import Any

import elasticsearch_credential as credential
import elasticsearch_fields as fields
import elasticsearch_object as things
import pytest
from ansible.module_utils.elasticsearch_api import (
    Elasticsearch,
    ElasticsearchError,
    UnreachableError,
    basic,
    connect,
)

TEMPLATE = {
    "index_patterns": ["network-*"],
    "priority": 500,
    "_meta": {"managed_by": "wrtflow"},
    "template": {
        "settings": {"index": {"number_of_shards": 1, "sort": {"field": ["destination.ip"]}}},
        "mappings": {"dynamic": "false", "properties": {"a": {"type": "ip", "ignore_malformed": True}}},
    },
}
ROLE_BODY = {"indices": [{"names": ["network-*"], "privileges": ["read", "view_index_metadata"]}]}


class Server:
    """Stands for Elasticsearch: answers from a table, notes what is written."""

    def __init__(self, answers: dict[str, tuple[int, Any]] | None = None, good: tuple[str, ...] = ()) -> None:
        self.answers, self.good = answers or {}, good
        self.written: list[tuple[str, str, Any]] = []

    def ask(
        self, method: str, path: str, body: Any = None, authorization: str | None = None
    ) -> tuple[int, Any]:
        if method != "GET":
            self.written.append((method, path, body))
        return self.answers.get(f"{method} {path}", (404 if method == "GET" else 200, {}))

    def must(self, method: str, path: str, body: Any = None) -> Any:
        return self.ask(method, path, body)[1]

    def accepts(self, authorization: str, patience: int = 0) -> bool:
        return authorization in self.good


class Down(Server):
    """A server that is not there."""

    def ask(self, *args: Any, **more: Any) -> tuple[int, Any]:
        raise UnreachableError("nobody")

    def accepts(self, authorization: str, patience: int = 0) -> bool:
        raise UnreachableError("nobody")


def thing(
    kind: str,
    body: dict[str, Any],
    server: Server,
    *,
    check: bool = False,
    initial: Any = None,
    since: Any = None,
) -> dict[str, Any]:
    params = {"kind": kind, "name": "it", "body": body, "initial": initial, "since": since}
    return things.ensure(server, params, check)


class TestObjects:
    def test_what_is_missing_is_made(self):
        server = Server()
        assert thing("role", ROLE_BODY, server)["changed"]
        assert server.written == [("PUT", "/_security/role/it", ROLE_BODY)]

    def test_what_is_right_is_left_alone_however_elasticsearch_spells_it(self):
        shown = {
            **TEMPLATE,
            "template": {
                "settings": {"index": {"number_of_shards": "1", "sort": {"field": ["destination.ip"]}}},
                "mappings": {
                    "dynamic": "false",
                    "properties": {"a": {"ignore_malformed": True, "type": "ip"}},
                },
            },
            "composed_of": [],
            "created_date_millis": 1,
        }
        found = {"index_templates": [{"name": "it", "index_template": shown}]}
        server = Server({"GET /_index_template/it": (200, found)})
        assert not thing("index_template", TEMPLATE, server)["changed"]
        role = {"it": {**ROLE_BODY, "cluster": [], "metadata": {}, "transient_metadata": {"enabled": True}}}
        role["it"]["indices"] = [{"names": ["network-*"], "privileges": ["view_index_metadata", "read"],
                                  "allow_restricted_indices": False}]  # fmt: skip
        server = Server({"GET /_security/role/it": (200, role)})
        assert not thing("role", ROLE_BODY, server)["changed"]
        assert server.written == []

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("template", "mappings", "dynamic"), "strict"),
            (("template", "mappings", "properties", "a", "type"), "keyword"),
            (("template", "mappings", "properties", "b"), {"type": "ip"}),
            (("template", "settings", "index", "number_of_shards"), "2"),
            (("template", "settings", "index", "codec"), "default"),
            (("index_patterns",), ["net-*"]),
            (("priority",), 1),
        ],
    )
    def test_any_difference_is_written_and_shown(self, path, value):
        shown = copy.deepcopy(TEMPLATE)
        *parents, leaf = path
        level: Any = shown
        for parent in parents:
            level = level[parent]
        level[leaf] = value
        server = Server({"GET /_index_template/it": (200, {"index_templates": [{"index_template": shown}]})})
        result = thing("index_template", TEMPLATE, server)
        assert result["changed"]
        assert result["diff"]["before"] != result["diff"]["after"]
        assert server.written == [("PUT", "/_index_template/it", TEMPLATE)]

    def test_a_dry_run_tells_and_writes_nothing(self):
        for server in (Server(), Down()):
            assert thing("role", ROLE_BODY, server, check=True)["changed"]
            assert server.written == []

    def test_a_dry_run_of_a_storage_set_up_anew_tells_too(self):
        assert thing("role", ROLE_BODY, Server({"GET /_security/role/it": (401, {})}), check=True)["changed"]

    def test_a_server_that_is_not_there_is_an_error_in_earnest(self):
        with pytest.raises(UnreachableError):
            thing("role", ROLE_BODY, Down())

    def test_a_refusal_is_told_in_elasticsearch_s_words(self):
        refusal = (403, {"error": {"reason": "action [x] is unauthorized"}})
        with pytest.raises(ElasticsearchError, match=r"403: action \[x\] is unauthorized"):
            thing("role", ROLE_BODY, Server({"GET /_security/role/it": refusal}))

    def test_a_user_s_first_password_goes_in_with_the_user_and_never_again(self):
        body, initial = {"roles": ["viewer"], "full_name": "it"}, {"password": "secret"}
        server = Server()
        thing("user", body, server, initial=initial)
        assert server.written[0][2] == {**body, **initial}
        other = {"it": {"roles": [], "full_name": "it", "enabled": True}}
        server = Server({"GET /_security/user/it": (200, other)})
        thing("user", body, server, initial=initial)
        assert server.written[0][2] == body

    def test_what_is_not_wanted_is_deleted_once(self):
        policy = {"it": {"policy": {"schedule": "0 30 1 * * ?"}}}
        server = Server({"GET /_slm/policy/it": (200, policy)})
        assert thing("snapshot_policy", {}, server, check=True)["changed"]
        assert server.written == []
        assert thing("snapshot_policy", {}, server)["changed"]
        assert server.written == [("DELETE", "/_slm/policy/it", None)]
        assert not thing("snapshot_policy", {}, Server())["changed"]

    def test_snapshots_are_compared_as_elasticsearch_shows_them(self):
        repository = {"type": "fs", "settings": {"location": "/mnt/nas", "compress": True}}
        shown = {"it": {"type": "fs", "uuid": "x", "settings": {"location": "/mnt/nas", "compress": "true"}}}
        server = Server({"GET /_snapshot/it": (200, shown)})
        assert not thing("snapshot_repository", repository, server)["changed"]
        assert thing("snapshot_repository", {**repository, "settings": {"location": "/mnt"}}, server)[
            "changed"
        ]
        policy = {"schedule": "0 30 1 * * ?", "repository": "it"}
        server = Server({"GET /_slm/policy/it": (200, {"it": {"version": 3, "policy": policy}})})
        assert not thing("snapshot_policy", policy, server)["changed"]
        assert thing("snapshot_policy", {**policy, "repository": "other"}, server)["changed"]


class TestVersions:
    """What only newer servers know goes to newer servers only."""

    SINCE = {"8.17": {"template": {"settings": {"index": {"mode": "logsdb"}}}}}  # noqa: RUF012

    def mode(self, server: Server, **more: Any) -> str | None:
        after = thing("index_template", TEMPLATE, server, since=self.SINCE, **more)["diff"]["after"]
        assert after["settings"]["index.number_of_shards"] == "1", "the rest of the body is gone"
        return after["settings"].get("index.mode")

    @pytest.mark.parametrize(
        ("version", "mode"),
        [("8.12.2", None), ("8.16.9", None), ("8.17.0", "logsdb"), ("8.19.7", "logsdb"), ("9.2.0", "logsdb")],
    )
    def test_a_server_gets_what_its_version_knows(self, version, mode):
        server = Server({"GET /": (200, {"version": {"number": version}})})
        assert self.mode(server) == mode
        assert server.written[0][2]["template"]["settings"]["index"].get("mode") == mode

    def test_a_dry_run_before_there_is_a_server_tells_all(self):
        assert self.mode(Down(), check=True) == "logsdb"
        assert self.mode(Server({"GET /": (401, {})}), check=True) == "logsdb"

    def test_a_server_that_does_not_tell_its_version_is_an_error(self):
        with pytest.raises(UnreachableError):
            self.mode(Down())
        with pytest.raises(ElasticsearchError, match="GET / with 401"):
            self.mode(Server({"GET /": (401, {})}))


class Module:
    """Stands for AnsibleModule."""

    def __init__(self, *, check: bool = False, failures: int = 0) -> None:
        self.check_mode, self.failures = check, failures
        self.run: list[list[str]] = []

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        self.run.append(command)
        if len(self.run) <= self.failures:
            return 69, "", "ERROR: Cluster health is currently RED.\n"
        return 0, "some words\nmade-up\n", ""


class TestCredentials:
    ROLES = {"it": {"cluster": [], "indices": [{"names": ["network-*"], "privileges": ["create_doc"]}]}}  # noqa: RUF012

    def ensure(self, server: Server, kind: str, module: Module | None = None, **more: Any) -> dict[str, Any]:
        params = {"kind": kind, "name": "it", "current": "", "role_descriptors": self.ROLES, "url": "https://it",
                  "reset_password": "/bin/reset", "patience": 0, "rotate": False, "key": "", **more}  # fmt: skip
        return credential.ensure(module or Module(), server, params)

    def key_server(self, roles: dict[str, Any]) -> Server:
        kept = {"api_keys": [{"role_descriptors": roles}]}
        return Server(
            {
                "GET /_security/_authenticate": (200, {"api_key": {"id": "7"}}),
                "GET /_security/api_key?id=7": (200, kept),
                "POST /_security/api_key": (200, {"encoded": "new"}),
            },
            good=("ApiKey old",),
        )

    def test_a_good_key_stays(self):
        kept = {"it": {**self.ROLES["it"], "run_as": [], "metadata": {}}}
        server = self.key_server(kept)
        assert self.ensure(server, "api_key", current="old") == {"changed": False}
        assert server.written == []

    @pytest.mark.parametrize("current", ["", "refused"])
    def test_a_lost_or_refused_key_is_replaced_and_its_predecessor_revoked(self, current):
        server = self.key_server(self.ROLES)
        assert self.ensure(server, "api_key", current=current) == {"changed": True, "value": "new"}
        assert server.written[0] == ("DELETE", "/_security/api_key", {"name": "it"})

    @pytest.mark.parametrize(("kind", "changed"), [("api_key", True), ("password", False)])
    def test_a_good_key_is_replaced_where_keys_are_rotated_and_a_password_is_not(self, kind, changed):
        server = self.key_server(self.ROLES)
        server.good += (basic("it", "old"),)
        assert self.ensure(server, kind, current="old", rotate=True)["changed"] is changed

    def test_an_administrator_s_key_has_a_passing_user_own_the_new_key(self):
        server = self.key_server(self.ROLES)
        server.answers["POST /_security/api_key/grant"] = (200, {"encoded": "granted"})
        assert self.ensure(server, "api_key", key="administrator") == {"changed": True, "value": "granted"}
        steps = [(method, path) for method, path, _ in server.written]
        assert steps == [
            ("DELETE", "/_security/api_key"),
            ("PUT", "/_security/role/wrtflow-passing"),
            ("PUT", "/_security/user/wrtflow-passing"),
            ("POST", "/_security/api_key/grant"),
            ("DELETE", "/_security/user/wrtflow-passing"),
            ("DELETE", "/_security/role/wrtflow-passing"),
        ]
        assert server.written[1][2] == self.ROLES["it"], "the user may more than the key"
        grant = server.written[3][2]
        assert grant["password"] == server.written[2][2]["password"]
        assert grant["api_key"] == {"name": "it", "role_descriptors": self.ROLES}

    def test_the_passing_user_goes_when_the_key_is_refused_too(self):
        class Refusing(Server):
            def must(self, method: str, path: str, body: Any = None) -> Any:
                if path.endswith("/grant"):
                    raise ElasticsearchError("no")
                return super().must(method, path, body)

        server = Refusing()
        with pytest.raises(ElasticsearchError, match="no"):
            self.ensure(server, "api_key", key="administrator")
        assert ("DELETE", "/_security/user/wrtflow-passing", None) in server.written

    def test_a_key_that_may_something_else_is_replaced(self):
        wider = {"it": {"indices": [{"names": ["*"], "privileges": ["create_doc"]}]}}
        assert self.ensure(self.key_server(wider), "api_key", current="old")["value"] == "new"

    def test_a_token_takes_the_place_of_its_predecessor(self):
        path = "/_security/service/elastic/kibana/credential/token/wrtflow"
        server = Server({f"POST {path}": (200, {"token": {"value": "new"}})})
        result = self.ensure(server, "service_token", name="elastic/kibana/wrtflow", current="refused")
        assert result == {"changed": True, "value": "new"}
        assert [written[:2] for written in server.written] == [("DELETE", path), ("POST", path)]

    def test_a_refused_password_is_set(self):
        server = Server()
        assert self.ensure(server, "password", current="ours") == {"changed": True}
        assert server.written == [("POST", "/_security/user/it/_password", {"password": "ours"})]

    def test_the_superuser_s_password_is_set_through_elasticsearch_s_tool(self):
        server, module = Server(), Module()
        assert self.ensure(server, "superuser", module, current="ours") == {"changed": True}
        assert module.run[0][:3] == ["/bin/reset", "--username", "it"]
        assert not any("ours" in word for word in module.run[0]), "no secret on a command line"
        assert server.written == [("POST", "/_security/user/it/_password", {"password": "ours"})]

    def test_the_tool_is_run_again_while_indices_are_being_opened(self, monkeypatch):
        monkeypatch.setattr(credential, "PAUSE", 0)
        server, module = Server(), Module(failures=2)
        assert self.ensure(server, "superuser", module, current="ours") == {"changed": True}
        assert len(module.run) == 3
        with pytest.raises(ElasticsearchError, match="reset failed: ERROR: Cluster health is currently RED"):
            self.ensure(server, "superuser", Module(failures=9), current="ours")

    def test_a_good_password_stays(self):
        server, module = Server(good=(basic("it", "ours"),)), Module()
        assert self.ensure(server, "superuser", module, current="ours") == {"changed": False}
        assert (server.written, module.run) == ([], [])

    @pytest.mark.parametrize("kind", ["superuser", "password", "api_key", "service_token"])
    def test_a_dry_run_tells_and_does_nothing(self, kind):
        server, module = Server(), Module(check=True)
        result = self.ensure(server, kind, module, current="refused")
        assert result["changed"]
        assert result.get("value", "") == ""
        assert (server.written, module.run) == ([], [])


def test_a_key_goes_before_a_password():
    params = {"url": "https://it", "ca_path": "/ca", "username": "elastic", "password": "p", "key": ""}
    assert vars(connect(params))["_authorization"] == basic("elastic", "p")
    assert vars(connect({**params, "key": "k"}))["_authorization"] == "ApiKey k"


class Starting(Elasticsearch):
    """A node that has just started: gives these answers in turn, then the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *statuses: int) -> None:
        super().__init__("https://it", "/ca", "")
        self.statuses, self.clock = list(statuses), 0.0
        monkeypatch.setattr("ansible.module_utils.elasticsearch_api.time", self)

    def monotonic(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def _ask(self, *args: Any) -> tuple[int, Any]:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0], {}


class TestPatience:
    def test_a_node_that_opens_its_indices_is_asked_again(self, monkeypatch):
        server = Starting(monkeypatch, 503, 503, 200)
        assert server.ask("GET", "/") == (200, {})
        assert server.clock == 2

    def test_a_node_that_never_opens_them_is_an_error(self, monkeypatch):
        server = Starting(monkeypatch, 503)
        with pytest.raises(ElasticsearchError, match="503"):
            server.must("GET", "/")
        assert server.clock == pytest.approx(60, abs=2)

    def test_a_refusal_is_believed_after_a_while(self, monkeypatch):
        assert Starting(monkeypatch, 401, 503, 401, 200).accepts("x", patience=15)
        server = Starting(monkeypatch, 401)
        assert not server.accepts("x", patience=15)
        assert server.clock == 15
        assert not Starting(monkeypatch, 401, 200).accepts("x")


class TestFields:
    WANTED = {  # noqa: RUF012
        "@timestamp": {"type": "date"},
        "source": {"properties": {"ip": {"type": "ip"}, "geo": {"properties": {"location": {"type": "geo_point"}}}}},
        "hostname": {"properties": {"server": {"type": "alias", "path": "source.ip"}}},
    }  # fmt: skip

    def ensure(self, server: Server, *, check: bool = False) -> dict[str, Any]:
        return fields.ensure(server, {"prefix": "network", "properties": self.WANTED}, check)

    def months(self, **indices: dict[str, Any]) -> Server:
        found = {name: {"mappings": {"properties": present}} for name, present in indices.items()}
        return Server({"GET /network-*/_mapping": (200, found)})

    def test_a_month_that_knows_all_is_left_alone(self):
        server = self.months(**{"network-2026.11": {**self.WANTED, "more": {"type": "long"}}})
        assert not self.ensure(server)["changed"]
        assert server.written == []

    def test_what_is_lacking_is_added_and_nothing_else(self):
        present = {"@timestamp": {"type": "keyword"}, "source": {"properties": {"ip": {"type": "keyword"}}}}
        server = self.months(**{"network-2026.11": present, "network-2026.10": self.WANTED})
        result = self.ensure(server)
        assert result["changed"]
        assert result["diff"]["after"] == {"network-2026.11": ["hostname.server", "source.geo.location"]}
        added = {
            "source": {"properties": {"geo": self.WANTED["source"]["properties"]["geo"]}},
            "hostname": self.WANTED["hostname"],
        }
        assert server.written == [("PUT", "/network-2026.11/_mapping", {"properties": added})]

    def test_a_field_where_fields_should_be_stays(self):
        server = self.months(**{"network-2026.11": {**self.WANTED, "hostname": {"type": "keyword"}}})
        assert not self.ensure(server)["changed"]

    def test_an_index_that_is_no_month_is_none_of_ours(self):
        assert not self.ensure(self.months(**{"network-old-2020.01": {}, "network-2026.11-copy": {}}))[
            "changed"
        ]

    def test_a_dry_run_tells_and_writes_nothing(self):
        server = self.months(**{"network-2026.11": {}})
        assert self.ensure(server, check=True)["changed"]
        assert server.written == []

    def test_a_dry_run_before_there_is_a_storage_has_no_month_to_look_at(self):
        assert not self.ensure(Down(), check=True)["changed"]
        assert not self.ensure(Server({"GET /network-*/_mapping": (401, {})}), check=True)["changed"]
        with pytest.raises(UnreachableError):
            self.ensure(Down())
