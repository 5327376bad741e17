"""The double of X-Pack: which requests it refuses, and that it passes others to the core unchanged."""

import base64
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from xpack import keystore, policies, settings
from xpack.answers import Answer, RefusedError, answer, filtered
from xpack.authentication import Authentication
from xpack.front import Front
from xpack.privileges import CLUSTER, INDEX, granting, matches
from xpack.request import Request
from xpack.store import Store, digest

MONTH = "network-2026.11"


class Core:
    """Stands for the core: records requests, and answers a bulk request as if all went well."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        self.indices = [MONTH, "network-2026.10", "elsewhere"]
        self.templates: dict[str, dict[str, Any]] = {}
        self.repositories = ["nas"]

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        self.asked.append((method, target, body))
        path = urlsplit(target).path
        if method == "HEAD":
            return Answer(200 if path.strip("/") in self.indices else 404)
        if path.endswith("_bulk"):
            operations = [
                line
                for line in body.split(b"\n")
                if line.startswith((b'{"create"', b'{"index"', b'{"delete"'))
            ]
            items = [{next(iter(json.loads(line))): {"status": 201}} for line in operations]
            return answer({"errors": False, "took": 1, "items": items})
        if path.startswith("/_index_template/") and method == "PUT":
            self.templates[path.split("/")[-1]] = json.loads(body)
        if path.startswith("/_index_template") and method == "GET":
            shown = [{"name": name, "index_template": body} for name, body in self.templates.items()]
            return answer({"index_templates": shown})
        if path.endswith("_settings") and method == "GET":
            return answer({MONTH: {"settings": {"index": {"creation_date": "0", "codec": "default"}}}})
        return answer({"from": "core"})

    def json(self, method: str, path: str, query: str = "", body: Any = None) -> tuple[int, Any]:
        if path.startswith("/_resolve/index/"):
            pattern = path.rsplit("/", 1)[1]
            return 200, {"indices": [{"name": name} for name in self.indices if matches(name, [pattern])]}
        if method == "GET" and path.startswith("/_snapshot/"):
            return (200 if path.rsplit("/", 1)[1] in self.repositories else 404), {}
        given = self.ask(method, path)
        return given.status, json.loads(given.body)


class Node:
    """A node with a user for each kind of right."""

    def __init__(self, folder: Path) -> None:
        (folder / "elasticsearch.keystore").write_text(json.dumps({"bootstrap.password": "bootstrap"}))
        self.folder, self.core = folder, Core()
        self.restart()
        self.headers = {"elastic": "Basic " + base64.b64encode(b"elastic:bootstrap").decode()}

    def restart(self) -> None:
        store = Store(self.folder / "state.json")
        self.front = Front(self.core, store, Authentication(store, self.folder))

    def ask(self, method: str, target: str, body: Any = None, user: str | None = "elastic") -> Answer:
        headers = {"authorization": self.headers[user]} if user else {}
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.front.handle(Request(method, target, headers, data))

    def json(self, *args: Any, **more: Any) -> Any:
        return json.loads(self.ask(*args, **more).body)

    def user(self, name: str, *roles: str, password: str = "long enough") -> None:
        given = self.ask("PUT", f"/_security/user/{name}", {"password": password, "roles": list(roles)})
        assert given.status == 200, given.body
        self.headers[name] = "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()

    def key(
        self, name: str, *index_privileges: str, cluster: tuple[str, ...] = (), owner: str = "elastic"
    ) -> str:
        role = {
            "cluster": list(cluster),
            "indices": [{"names": ["network-*"], "privileges": list(index_privileges)}],
        }
        made = self.json(
            "POST", "/_security/api_key", {"name": name, "role_descriptors": {"it": role}}, user=owner
        )
        self.headers[name] = "ApiKey " + made["encoded"]
        return made["id"]


@pytest.fixture
def node(tmp_path) -> Node:
    return Node(tmp_path)


def reason(given: Answer) -> str:
    return json.loads(given.body)["error"]["reason"]


def bulk(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


class TestAuthentication:
    def test_nobody_gets_in_without_credentials(self, node):
        given = node.ask("GET", "/network-*/_search", user=None)
        assert given.status == 401
        assert reason(given) == "missing authentication credentials for REST request [/network-*/_search]"
        assert ("WWW-Authenticate", "ApiKey") in given.headers
        assert node.core.asked == []

    @pytest.mark.parametrize(
        "header",
        [
            "Basic !",
            "Basic " + base64.b64encode(b"elastic:wrong").decode(),
            "ApiKey " + base64.b64encode(b"a:b").decode(),
            "Bearer AAEAAWVsYXN0aWMva2liYW5hL3g6eQ==",
            "Bearer x",
            "Digest x",
            "nonsense",
        ],
    )
    def test_no_other_credentials_get_in(self, node, header):
        node.headers["somebody"] = header
        assert node.ask("GET", "/", user="somebody").status == 401

    def test_the_bootstrap_password_ends_with_the_first_real_one(self, node):
        assert node.ask("POST", "/_security/user/elastic/_password", {"password": "another"}).status == 200
        assert node.ask("GET", "/_security/_authenticate").status == 401
        node.headers["elastic"] = "Basic " + base64.b64encode(b"elastic:another").decode()
        assert node.ask("GET", "/_security/_authenticate").status == 200

    def test_a_disabled_user_stays_out(self, node):
        node.user("wrtflow", "viewer")
        node.ask("PUT", "/_security/user/wrtflow", {"password": "long enough", "roles": [], "enabled": False})
        assert node.ask("GET", "/_security/_authenticate", user="wrtflow").status == 401

    def test_an_invalidated_key_stays_out(self, node):
        key_id = node.key("collector", "create_doc")
        assert node.json("DELETE", "/_security/api_key", {"name": "collector"})["invalidated_api_keys"] == [
            key_id
        ]
        assert node.ask("GET", "/_security/_authenticate", user="collector").status == 401

    def test_an_expired_key_stays_out(self, node, monkeypatch):
        made = node.json("POST", "/_security/api_key", {"name": "short", "expiration": "1d"})
        node.headers["short"] = "ApiKey " + made["encoded"]
        assert node.ask("GET", "/_security/_authenticate", user="short").status == 200
        monkeypatch.setattr("xpack.authentication.time.time", lambda: 1e11)
        assert node.ask("GET", "/_security/_authenticate", user="short").status == 401

    def test_a_service_token_is_its_account(self, node):
        path = "/_security/service/elastic/kibana/credential/token/wrtflow"
        node.headers["kibana"] = "Bearer " + node.json("POST", path)["token"]["value"]
        assert node.json("GET", "/_security/_authenticate", user="kibana")["username"] == "elastic/kibana"
        assert node.ask("POST", path).status == 409
        assert node.ask("DELETE", path).status == 200
        assert node.ask("GET", "/_security/_authenticate", user="kibana").status == 401

    def test_everything_is_known_a_moment_after_a_restart(self, node, monkeypatch):
        node.user("wrtflow", "viewer")
        node.key("collector", "create_doc")
        node.ask("PUT", "/_ilm/policy/it", {"policy": {"phases": {}}})
        (node.folder / "users").write_text(f"passing:{digest('through the file')}\n")
        node.headers["passing"] = "Basic " + base64.b64encode(b"passing:through the file").decode()
        node.restart()
        for user in ("wrtflow", "collector", "elastic"):
            assert node.ask("GET", "/_security/_authenticate", user=user).status == 401
        assert node.ask("GET", "/_security/_authenticate", user="passing").status == 200
        monkeypatch.setattr("xpack.authentication.time.monotonic", lambda: float("inf"))
        for user in ("wrtflow", "collector"):
            assert node.ask("GET", "/_security/_authenticate", user=user).status == 200
        assert node.ask("GET", "/_ilm/policy/it").status == 200


class TestPrivileges:
    @pytest.mark.parametrize(
        ("action", "by"),
        [
            ("indices:data/write/index:op_type/create", ["create_doc", "create", "index", "write", "all"]),
            ("indices:data/write/index:op_type/index", ["create", "index", "write", "all"]),
            ("indices:data/write/bulk", ["create_doc", "create", "delete", "index", "write", "all"]),
            ("indices:data/write/delete", ["delete", "write", "all"]),
            ("indices:data/write/update", ["index", "write", "all"]),
            ("indices:data/read/search", ["read", "all"]),
            ("indices:admin/auto_create", ["auto_configure", "create_index", "manage", "all"]),
            ("indices:admin/create", ["create_index", "manage", "all"]),
            ("indices:admin/delete", ["delete_index", "manage", "all"]),
            ("indices:monitor/stats", ["monitor", "manage", "all"]),
            ("indices:admin/ilm/explain", ["view_index_metadata", "manage_ilm", "manage", "all"]),
        ],
    )
    def test_index_privileges_grant_what_elastic_s_table_says(self, action, by):
        assert granting(action, INDEX) == by

    @pytest.mark.parametrize(
        ("action", "by"),
        [
            ("cluster:monitor/main", ["monitor", "manage", "all"]),
            ("cluster:admin/ilm/get", ["read_ilm", "manage_ilm", "manage", "all"]),
            ("cluster:admin/xpack/security/user/put", ["manage_security", "all"]),
            ("cluster:admin/xpack/security/api_key/grant", ["manage_api_key", "manage_security", "all"]),
            ("indices:admin/index_template/put", ["manage_index_templates", "manage", "all"]),
        ],
    )
    def test_cluster_privileges_do_too(self, action, by):
        assert granting(action, CLUSTER) == by

    @pytest.mark.parametrize(
        ("privileges", "method", "target", "allowed"),
        [
            (["read"], "GET", f"/{MONTH}/_search", True),
            (["read"], "GET", f"/{MONTH}/_count?q=a:b", True),
            (["read"], "GET", "/elsewhere/_search", False),
            (["read"], "GET", f"/{MONTH},elsewhere/_search", False),
            (["read"], "GET", f"/{MONTH}/_mapping", False),
            (["read"], "DELETE", f"/{MONTH}", False),
            (["read"], "POST", "/_search/anything/new", False),
            (["view_index_metadata"], "GET", f"/{MONTH}/_mapping", True),
            (["view_index_metadata"], "GET", f"/{MONTH}/_search", False),
            (["monitor"], "GET", f"/{MONTH}/_stats", True),
            (["monitor"], "GET", "/_cluster/health", False),
            (["create_doc"], "PUT", f"/{MONTH}/_create/1", True),
            (["create_doc"], "PUT", f"/{MONTH}/_doc/1?op_type=create", True),
            (["create_doc"], "PUT", f"/{MONTH}/_doc/1", False),
            (["create_doc"], "DELETE", f"/{MONTH}/_doc/1", False),
            (["create_doc"], "GET", f"/{MONTH}/_doc/1", False),
            (["create_doc"], "POST", f"/{MONTH}/_update/1", False),
            (["create_doc"], "PUT", "/network-2026.12/_create/1", False),
            (["create_doc", "auto_configure"], "PUT", "/network-2026.12/_create/1", True),
            (["create_doc", "auto_configure"], "PUT", "/network-2026.12", False),
            (["manage"], "PUT", "/network-2026.12", True),
            (["manage"], "PUT", f"/{MONTH}/_settings", True),
            (["manage"], "GET", f"/{MONTH}/_search", False),
            (["all"], "DELETE", f"/{MONTH}", True),
            (["all"], "PUT", "/_cluster/settings", False),
        ],
    )
    def test_a_key_may_what_its_privileges_grant(self, node, privileges, method, target, allowed):
        node.key("it", *privileges)
        before = len(node.core.asked)
        given = node.ask(method, target, {} if method == "PUT" else None, user="it")
        assert given.status == (200 if allowed else 403), given.body
        reached = [asked for asked in node.core.asked[before:] if asked[0] == method]
        assert len(reached) == (1 if allowed else 0)

    def test_a_refusal_says_what_would_be_needed(self, node):
        key_id = node.key("it", "create_doc")
        assert reason(node.ask("GET", f"/{MONTH}/_search", user="it")) == (
            f"action [indices:data/read/search] is unauthorized for API key id [{key_id}] of user [elastic]"
            f" on indices [{MONTH}], this action is granted by the index privileges [read,all]"
        )
        node.user("wrtflow", "viewer")
        assert reason(node.ask("GET", "/_cluster/health", user="wrtflow")) == (
            "action [cluster:monitor/health] is unauthorized for user [wrtflow] with effective roles [viewer],"
            " this action is granted by the cluster privileges [monitor,manage,all]"
        )

    def test_a_pattern_reaches_the_granted_indices_only(self, node):
        node.key("it", "read")
        for asked, reached in [
            ("/*/_search", f"/{MONTH},network-2026.10/_search"),
            ("/_search", f"/{MONTH},network-2026.10/_search"),
            ("/network-*/_search", "/network-*/_search"),
            ("/else*/_search", "/*,-*/_search"),
        ]:
            assert node.ask("GET", asked, user="it").status == 200
            assert node.core.asked[-1][1] == reached

    def test_a_key_is_never_more_than_its_owner(self, node):
        node.ask("PUT", "/_security/role/keys", {"cluster": ["manage_own_api_key"], "indices": []})
        node.user("weak", "keys")
        node.key("it", "all", cluster=("all",), owner="weak")
        assert node.ask("GET", f"/{MONTH}/_search", user="it").status == 403
        assert node.ask("GET", "/", user="it").status == 403

    def test_an_owner_of_keys_sees_and_ends_only_his_own(self, node):
        node.ask("PUT", "/_security/role/keys", {"cluster": ["manage_own_api_key"], "indices": []})
        node.user("weak", "keys")
        node.key("ours", "read")
        assert node.json("GET", "/_security/api_key", user="weak")["api_keys"] == []
        assert (
            node.json("DELETE", "/_security/api_key", {"name": "ours"}, user="weak")["invalidated_api_keys"]
            == []
        )

    def test_a_key_makes_no_key_with_rights(self, node):
        node.key("administrator", "all", cluster=("all",))
        wanted = {"name": "more", "role_descriptors": {"it": {"cluster": ["monitor"]}}}
        given = node.ask("POST", "/_security/api_key", wanted, user="administrator")
        assert (given.status, "derived api keys" in reason(given)) == (400, True)
        assert node.ask("POST", "/_security/api_key", {"name": "more"}, user="administrator").status == 400
        nothing = {"name": "more", "role_descriptors": {"it": {}}}
        assert node.ask("POST", "/_security/api_key", nothing, user="administrator").status == 200

    def test_a_granted_key_is_its_owner_s_and_outlives_the_owner(self, node):
        node.key("administrator", "all", cluster=("manage_security",))
        reads = {"indices": [{"names": ["network-*"], "privileges": ["read"]}]}
        node.ask("PUT", "/_security/role/reads", reads)
        node.user("passing", "reads")
        wide = {"cluster": ["all"], "indices": [{"names": ["*"], "privileges": ["all"]}]}
        grant = {"grant_type": "password", "username": "passing", "password": "long enough",
                 "api_key": {"name": "it", "role_descriptors": {"it": wide}}}  # fmt: skip
        wrong = {**grant, "password": "another"}
        assert node.ask("POST", "/_security/api_key/grant", wrong, user="administrator").status == 401
        made = node.json("POST", "/_security/api_key/grant", grant, user="administrator")
        node.headers["it"] = "ApiKey " + made["encoded"]
        node.ask("DELETE", "/_security/user/passing")
        node.ask("DELETE", "/_security/role/reads")
        assert node.ask("GET", f"/{MONTH}/_search", user="it").status == 200
        assert node.ask("DELETE", f"/{MONTH}", user="it").status == 403

    @pytest.mark.parametrize(
        "role",
        [
            {"indices": [{"names": ["a"], "privileges": ["reed"]}]},
            {"indices": [{"names": [], "privileges": ["read"]}]},
            {"indices": [{"privileges": ["read"]}]},
            {"cluster": ["monitored"]},
            {"index_privileges": []},
        ],
    )
    def test_a_role_with_a_slip_is_refused(self, node, role):
        assert node.ask("PUT", "/_security/role/it", role).status == 400
        body = {"name": "it", "role_descriptors": {"it": role}}
        assert node.ask("POST", "/_security/api_key", body).status == 400

    def test_has_privileges_answers_for_whoever_asks(self, node):
        node.key("it", "create_doc", "auto_configure")
        wanted = {
            "cluster": ["monitor"],
            "index": [{"names": [MONTH, "other"], "privileges": ["create_doc", "read"]}],
        }
        given = node.json("POST", "/_security/user/_has_privileges", wanted, user="it")
        assert given["has_all_requested"] is False
        assert given["cluster"] == {"monitor": False}
        assert given["index"] == {
            MONTH: {"create_doc": True, "read": False},
            "other": {"create_doc": False, "read": False},
        }


class TestBulk:
    def test_what_is_granted_passes_byte_for_byte(self, node):
        node.key("it", "create_doc", "auto_configure")
        body = b'{"create" : {"_index":"network-2026.12"}}\n{"a":  "\xc3\xa9"}\n{"create":{"_index":"network-1"}}\n{}\n'
        assert node.ask("POST", "/_bulk?refresh=true", body, user="it").status == 200
        assert node.core.asked[-1] == ("POST", "/_bulk?refresh=true", body)

    def test_what_is_not_is_refused_in_its_place(self, node):
        key_id = node.key("it", "create_doc", "auto_configure")
        body = bulk(
            {"create": {"_index": MONTH}}, {"n": 0},
            {"index": {"_index": MONTH, "_id": "1"}}, {"n": 1},
            {"create": {"_index": "elsewhere"}}, {"n": 2},
            {"delete": {"_index": MONTH, "_id": "3"}},
            {"create": {"_index": MONTH}}, {"n": 4},
            {"update": {"_index": MONTH, "_id": "5"}}, {"doc": {}},
            {"index": {"_index": MONTH, "op_type": "create"}}, {"n": 6},
        )  # fmt: skip
        given = node.json("POST", "/_bulk", body, user="it")
        assert given["errors"] is True
        assert [next(iter(item.values()))["status"] for item in given["items"]] == [
            201,
            403,
            403,
            403,
            201,
            403,
            201,
        ]
        assert given["items"][1]["index"]["error"]["reason"] == (
            f"action [indices:data/write/index:op_type/index] is unauthorized for API key id [{key_id}] of user"
            f" [elastic] on indices [{MONTH}], this action is granted by the index privileges [create,index,write,all]"
        )
        assert [json.loads(line) for line in node.core.asked[-1][2].splitlines()[1::2]] == [
            {"n": 0},
            {"n": 4},
            {"n": 6},
        ]

    def test_an_index_that_is_not_there_needs_auto_configure(self, node):
        node.key("it", "create_doc")
        body = bulk({"create": {"_index": MONTH}}, {}, {"create": {"_index": "network-2026.12"}}, {})
        items = node.json("POST", "/_bulk", body, user="it")["items"]
        assert [item["create"]["status"] for item in items] == [201, 403]
        assert "indices:admin/auto_create" in items[1]["create"]["error"]["reason"]

    def test_an_action_line_that_can_t_be_read_never_reaches_the_core(self, node):
        node.key("it", "create_doc")
        for body in (b"nonsense\n{}\n", b'{"create":{}}\n{}\n', b'{"create":{"_index":"network-1"}}\n{}'):
            assert node.ask("POST", "/_bulk", body, user="it").status == 400
        assert node.core.asked == []

    def test_a_reader_s_bulk_is_refused_as_a_whole(self, node):
        node.key("it", "read")
        assert node.ask("POST", "/_bulk", bulk({"create": {"_index": MONTH}}, {}), user="it").status == 403

    def test_the_answer_keeps_to_its_filter(self, node):
        node.key("it", "create_doc")
        body = bulk({"create": {"_index": MONTH}}, {}, {"delete": {"_index": MONTH, "_id": "1"}})
        given = node.json("POST", "/_bulk?filter_path=errors,items.*.status", body, user="it")
        assert given == {"errors": True, "items": [{"create": {"status": 201}}, {"delete": {"status": 403}}]}


def test_filters_go_by_steps():
    body = {"a": {"b": [{"c": 1, "d": 2}], "e": 3}, "f": 4}
    assert filtered(body, None) == body
    assert filtered(body, "a.b.c,f") == {"a": {"b": [{"c": 1}]}, "f": 4}
    assert filtered(body, "**.d") == {"a": {"b": [{"d": 2}]}}
    assert filtered(body, "a.*") == {"a": body["a"]}
    assert filtered(body, "nothing") == {}


class TestLifecycles:
    @pytest.mark.parametrize(
        ("phases", "complaint"),
        [
            ({"tepid": {}}, "does not support phase [tepid]"),
            ({"warm": {"min_age": "2M"}}, "unit is missing or unrecognized"),
            ({"warm": {"min_age": "40"}}, "unit is missing or unrecognized"),
            ({"warm": {"actions": {"rollover": {}}}}, "invalid action [rollover] defined in phase [warm]"),
            ({"warm": {"actions": {"merge": {}}}}, "unknown field [merge]"),
            ({"warm": {"actions": {"forcemerge": {}}}}, "Required [max_num_segments]"),
            ({"warm": {"actions": {"forcemerge": {"max_num_segments": 0}}}}, "must be a positive integer"),
            ({"warm": {"actions": {"readonly": {"really": True}}}}, "unknown field [really]"),
            ({"hot": {"actions": {"readonly": {}}}}, "without an accompanying [rollover] action"),
            (
                {"warm": {"min_age": "40d"}, "delete": {"min_age": "30d"}},
                "configured to run the delete phase",
            ),
            ({"warm": {"age": "40d"}}, "[phase] unknown field [age]"),
        ],
    )
    def test_a_policy_with_a_slip_is_refused(self, node, phases, complaint):
        given = node.ask("PUT", "/_ilm/policy/it", {"policy": {"phases": phases}})
        assert given.status == 400
        assert complaint in reason(given)
        assert node.ask("GET", "/_ilm/policy/it").status == 404

    def test_a_policy_is_shown_with_its_defaults(self, node):
        node.ask(
            "PUT",
            "/_ilm/policy/it",
            {"policy": {"phases": {"hot": {}, "delete": {"min_age": "9d", "actions": {"delete": {}}}}}},
        )
        shown = node.json("GET", "/_ilm/policy/it")["it"]
        assert shown["policy"]["phases"] == {
            "hot": {"min_age": "0ms", "actions": {}},
            "delete": {"min_age": "9d", "actions": {"delete": {"delete_searchable_snapshot": True}}},
        }
        assert shown["version"] == 1

    @pytest.mark.parametrize(
        "spelling",
        [
            {"index": {"lifecycle": {"name": "it"}, "codec": "x"}},
            {"index.lifecycle.name": "it", "index.codec": "x"},
            {"lifecycle": {"name": "it"}, "codec": "x"},
            {"index": {"lifecycle.name": "it", "codec": "x"}},
        ],
    )
    def test_the_core_never_hears_of_them(self, spelling):
        kept, taken = policies.take_out(spelling)
        assert taken == {"name": "it"}
        assert "lifecycle" not in json.dumps(kept)
        assert '"x"' in json.dumps(kept)

    def test_a_template_s_indices_follow_its_policy(self, node):
        template = {
            "index_patterns": ["network-*"],
            "template": {"settings": {"index": {"lifecycle": {"name": "it"}}}},
        }
        node.ask("PUT", "/_ilm/policy/it", {"policy": {"phases": {}}})
        node.ask("PUT", "/_index_template/flows", template)
        assert "lifecycle" not in json.dumps(node.core.templates)
        shown = node.json("GET", "/_index_template/flows")["index_templates"][0]["index_template"]
        assert shown == template
        assert node.json("GET", f"/{MONTH}/_settings")[MONTH]["settings"]["index"]["lifecycle"] == {
            "name": "it"
        }
        explained = node.json("GET", f"/{MONTH}/_ilm/explain")["indices"][MONTH]
        assert (explained["managed"], explained["policy"]) == (True, "it")
        assert reason(node.ask("DELETE", "/_ilm/policy/it")).startswith(
            "Cannot delete policy [it]. It is in use"
        )


class TestSnapshots:
    POLICY = {  # noqa: RUF012
        "schedule": "0 30 1 * * ?",
        "name": "<it-{now/d}>",
        "repository": "nas",
        "config": {"indices": ["a"]},
    }

    def test_a_policy_is_kept_shown_executed_and_forgotten(self, node):
        assert node.ask("PUT", "/_slm/policy/it", self.POLICY).status == 200
        assert node.json("GET", "/_slm/policy/it")["it"]["policy"] == self.POLICY
        name = node.json("POST", "/_slm/policy/it/_execute")["snapshot_name"]
        assert name.startswith("it-2")
        assert node.core.asked[-1][:2] == ("PUT", f"/_snapshot/nas/{name}")
        assert node.ask("DELETE", "/_slm/policy/it").status == 200
        assert node.ask("GET", "/_slm/policy/it").status == 404

    def test_a_policy_with_a_slip_is_refused(self, node):
        slip = {key: value for key, value in self.POLICY.items() if key != "schedule"}
        assert "Required [schedule]" in reason(node.ask("PUT", "/_slm/policy/it", slip))
        node.core.repositories = []
        assert "no such repository" in reason(node.ask("PUT", "/_slm/policy/it", self.POLICY))

    def test_a_lifecycle_waits_for_a_policy_that_is_there_only(self, node):
        waits = {
            "policy": {
                "phases": {"delete": {"actions": {"wait_for_snapshot": {"policy": "it"}, "delete": {}}}}
            }
        }
        assert "no such snapshot lifecycle policy" in reason(node.ask("PUT", "/_ilm/policy/months", waits))
        node.ask("PUT", "/_slm/policy/it", self.POLICY)
        assert node.ask("PUT", "/_ilm/policy/months", waits).status == 200


class TestSettings:
    def read(self, folder: Path, text: str) -> settings.Settings:
        (folder / "elasticsearch.yml").write_text(text)
        return settings.read(folder)

    def test_security_is_on_and_tls_off_unless_said(self, tmp_path):
        read = self.read(tmp_path, "path.data: /data\n")
        assert (read.security, read.tls, read.port) == (True, False, 9200)
        assert "127.0.0.1" in read.hosts

    def test_x_pack_s_settings_stay_out_of_the_core_s(self, tmp_path):
        read = self.read(
            tmp_path,
            "cluster.name: it\nhttp: {host: 127.0.0.1, port: 9250}\nxpack.ml.enabled: false\n"
            "xpack:\n  security.http.ssl: {enabled: true, key: certs/a.key, certificate: certs/a.crt}\n",
        )
        assert read.core == {"cluster.name": "it"}
        assert (read.tls, read.hosts, read.port) == (True, ["127.0.0.1"], 9250)
        assert read.file("key") == tmp_path / "certs/a.key"

    def test_a_misspelt_setting_reaches_the_core_which_refuses_it(self, tmp_path):
        assert (
            "xpack.security.htpp.ssl.enabled"
            in self.read(tmp_path, "xpack.security.htpp.ssl.enabled: true").core
        )

    @pytest.mark.parametrize("layer", ["http", "transport"])
    def test_what_is_left_in_the_keystore_is_half_of_a_setting(self, tmp_path, layer):
        keystore.save(tmp_path, {f"xpack.security.{layer}.ssl.keystore.secure_password": "left"})
        with pytest.raises(settings.BadSettingsError, match=f"{layer}.ssl.enabled\\] is not set"):
            self.read(tmp_path, "path.data: /data")
        self.read(tmp_path, f"xpack.security.{layer}.ssl.enabled: false")

    def test_tls_needs_a_certificate(self, tmp_path):
        read = self.read(tmp_path, "xpack.security.http.ssl.enabled: true")
        with pytest.raises(settings.BadSettingsError, match=r"\[xpack.security.http.ssl.certificate\]"):
            read.file("certificate")

    def test_nodes_never_talk_in_the_clear(self, tmp_path):
        with pytest.raises(settings.BadSettingsError, match="Transport SSL must be enabled"):
            self.read(tmp_path, "network.host: 10.0.0.1\nhttp.host: 127.0.0.1")
        self.read(tmp_path, "network.host: 10.0.0.1\nhttp.host: 127.0.0.1\ndiscovery.type: single-node")

    def test_a_switch_is_true_or_false(self, tmp_path):
        with pytest.raises(settings.BadSettingsError, match=r"only \[true\] or \[false\]"):
            _ = self.read(tmp_path, "xpack.security.enabled: on please").security

    def test_private_addresses_are_site_and_others_global(self, monkeypatch):
        own = ["127.0.0.1", "10.77.0.10", "192.0.2.5", "fe80::1", "fd77:0:0:1::10"]
        monkeypatch.setattr(settings, "_own", lambda: own)
        assert settings.addresses(["_local_", "_site_"]) == ["127.0.0.1", "10.77.0.10"]
        assert settings.addresses(["_global_"]) == ["192.0.2.5", "fd77:0:0:1::10"]

    def test_no_private_address_is_an_error(self, monkeypatch):
        monkeypatch.setattr(settings, "_own", lambda: ["127.0.0.1", "203.0.113.9"])
        with pytest.raises(settings.BadSettingsError, match="No up-and-running site"):
            settings.addresses(["_site_"])

    def test_java_options_are_for_versions(self, tmp_path):
        (tmp_path / "jvm.options.d").mkdir()
        (tmp_path / "jvm.options").write_text("# comment\n-Da\n21:-Db\n17-20:-Dc\n19-:-Dd\n")
        (tmp_path / "jvm.options.d/heap.options").write_text("-Xmx1g\n")
        (tmp_path / "jvm.options.d/ignored.txt").write_text("-Dno\n")
        assert settings.jvm_options(tmp_path) == ["-Da", "-Db", "-Dd", "-Xmx1g"]


def test_without_security_everybody_may_everything_and_there_are_no_users(tmp_path):
    core = Core()
    front = Front(core, Store(tmp_path / "state.json"), None)
    assert front.handle(Request("DELETE", f"/{MONTH}", {}, b"")).status == 200
    assert core.asked[-1][:2] == ("DELETE", f"/{MONTH}")
    front.handle(Request("GET", "/_security/user", {}, b""))
    assert core.asked[-1][:2] == ("GET", "/_security/user"), "the core says that it has no such API"


class TestKeystore:
    def run(self, folder: Path, *arguments: str, stdin: str = "", monkeypatch) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        return keystore.main(folder, list(arguments))

    def test_a_value_comes_from_standard_input(self, tmp_path, monkeypatch, capsys):
        assert self.run(tmp_path, "create", monkeypatch=monkeypatch) == 0
        assert (
            self.run(tmp_path, "add", "-x", "bootstrap.password", stdin="secret\n", monkeypatch=monkeypatch)
            == 0
        )
        assert keystore.load(tmp_path)["bootstrap.password"] == "secret"
        capsys.readouterr()
        assert self.run(tmp_path, "list", monkeypatch=monkeypatch) == 0
        assert capsys.readouterr().out.split() == ["bootstrap.password", "keystore.seed"]

    def test_a_value_is_replaced_only_by_force(self, tmp_path, monkeypatch):
        keystore.save(tmp_path, {"a": "old"})
        self.run(tmp_path, "add", "-x", "a", stdin="new\n", monkeypatch=monkeypatch)
        assert keystore.load(tmp_path) == {"a": "old"}
        self.run(tmp_path, "add", "-x", "-f", "a", stdin="new\n", monkeypatch=monkeypatch)
        assert keystore.load(tmp_path) == {"a": "new"}

    @pytest.mark.parametrize("arguments", [["add", "-x", "a"], ["list"], ["frobnicate"], []])
    def test_mistakes_are_errors(self, tmp_path, monkeypatch, arguments):
        assert self.run(tmp_path, *arguments, stdin="x\n", monkeypatch=monkeypatch) != 0


def test_refusals_have_elastic_s_shape():
    given = RefusedError(403, "security_exception", "no").answer()
    assert json.loads(given.body) == {
        "error": {
            "root_cause": [{"type": "security_exception", "reason": "no"}],
            "type": "security_exception",
            "reason": "no",
        },
        "status": 403,
    }
