"""Which action a REST request is, and on which indices: what authorization goes by.

A request that is not in the table is nobody's but a superuser's; the core says what it thinks of it.
"""

import re
from dataclasses import dataclass, field

from .privileges import SECURITY

READ, WRITE = "indices:data/read/", "indices:data/write/"

# (methods, path, action). {index} is an index expression; paths without it that need one mean all indices.
TABLE = """
GET,HEAD            /                                   cluster:monitor/main
GET                 /_license                           cluster:monitor/xpack/license/get
GET                 /_xpack                             cluster:monitor/xpack/info
GET                 /_migration/deprecations            cluster:admin/xpack/deprecation/info
GET                 /_cluster/health                    cluster:monitor/health
GET                 /_cluster/settings                  cluster:monitor/settings
PUT                 /_cluster/settings                  cluster:admin/settings/update
GET                 /_cluster/stats                     cluster:monitor/stats
GET                 /_cluster/state                     cluster:monitor/state
GET                 /_cluster/state/*                   cluster:monitor/state
GET                 /_cluster/pending_tasks             cluster:monitor/task
GET,POST            /_cluster/allocation/explain        cluster:monitor/allocation/explain
POST                /_cluster/reroute                   cluster:admin/reroute
GET                 /_nodes                             cluster:monitor/nodes/info
GET                 /_nodes/*                           cluster:monitor/nodes/info
GET                 /_nodes/stats/*                     cluster:monitor/nodes/stats
GET                 /_tasks                             cluster:monitor/tasks/lists
GET                 /_cat/indices                       indices:monitor/stats
GET                 /_cat/indices/{index}               indices:monitor/stats
GET                 /_cat/count/{index}                 indices:data/read/search
GET                 /_cat/*                             cluster:monitor/state
GET,HEAD            /_index_template                    indices:admin/index_template/get
GET,HEAD            /_index_template/*                  indices:admin/index_template/get
PUT,POST            /_index_template/_simulate          indices:admin/index_template/simulate
POST                /_index_template/_simulate_index/*  indices:admin/index_template/simulate_index
PUT,POST            /_index_template/*                  indices:admin/index_template/put
DELETE              /_index_template/*                  indices:admin/index_template/delete
GET,HEAD            /_component_template                cluster:admin/component_template/get
GET,HEAD            /_component_template/*              cluster:admin/component_template/get
PUT,POST            /_component_template/*              cluster:admin/component_template/put
DELETE              /_component_template/*              cluster:admin/component_template/delete
GET                 /_snapshot                          cluster:admin/repository/get
GET                 /_snapshot/*                        cluster:admin/repository/get
PUT,POST            /_snapshot/*                        cluster:admin/repository/put
DELETE              /_snapshot/*                        cluster:admin/repository/delete
GET                 /_snapshot/*/*                      cluster:admin/snapshot/get
PUT,POST            /_snapshot/*/*                      cluster:admin/snapshot/create
DELETE              /_snapshot/*/*                      cluster:admin/snapshot/delete
POST                /_snapshot/*/*/_restore             cluster:admin/snapshot/restore
GET                 /_slm/policy                        cluster:admin/slm/get
GET                 /_slm/policy/*                      cluster:admin/slm/get
PUT                 /_slm/policy/*                      cluster:admin/slm/put
DELETE              /_slm/policy/*                      cluster:admin/slm/delete
PUT,POST            /_slm/policy/*/_execute             cluster:admin/slm/execute
GET                 /_ilm/status                        cluster:admin/ilm/operation_mode/get
GET                 /_ilm/policy                        cluster:admin/ilm/get
GET                 /_ilm/policy/*                      cluster:admin/ilm/get
PUT                 /_ilm/policy/*                      cluster:admin/ilm/put
DELETE              /_ilm/policy/*                      cluster:admin/ilm/delete
GET                 /{index}/_ilm/explain               indices:admin/ilm/explain
GET                 /_security/user                     SECURITYuser/get
GET                 /_security/user/*                   SECURITYuser/get
PUT,POST            /_security/user/*                   SECURITYuser/put
DELETE              /_security/user/*                   SECURITYuser/delete
PUT,POST            /_security/user/*/_enable           SECURITYuser/set_enabled
PUT,POST            /_security/user/*/_disable          SECURITYuser/set_enabled
GET                 /_security/role                     SECURITYrole/get
GET                 /_security/role/*                   SECURITYrole/get
PUT,POST            /_security/role/*                   SECURITYrole/put
DELETE              /_security/role/*                   SECURITYrole/delete
GET                 /_security/api_key                  SECURITYapi_key/get
PUT,POST            /_security/api_key                  SECURITYapi_key/create
POST                /_security/api_key/grant            SECURITYapi_key/grant
PUT                 /_security/api_key/*                SECURITYapi_key/update
DELETE              /_security/api_key                  SECURITYapi_key/invalidate
GET                 /_security/service/*/*/credential   SECURITYservice_account/credential/get
POST                /_security/service/*/*/credential/token     SECURITYservice_account/token/create
PUT,POST            /_security/service/*/*/credential/token/*   SECURITYservice_account/token/create
DELETE              /_security/service/*/*/credential/token/*   SECURITYservice_account/token/delete
GET,POST            /_search                            indices:data/read/search
GET,POST            /{index}/_search                    indices:data/read/search
GET,POST            /_msearch                           indices:data/read/msearch
GET,POST            /{index}/_msearch                   indices:data/read/msearch
GET,POST            /_count                             indices:data/read/search
GET,POST            /{index}/_count                     indices:data/read/search
GET,POST            /_field_caps                        indices:data/read/field_caps
GET,POST            /{index}/_field_caps                indices:data/read/field_caps
GET,POST            /{index}/_validate/query            indices:admin/validate/query
GET,POST            /{index}/_explain/*                 indices:data/read/explain
GET,HEAD            /{index}/_doc/*                     indices:data/read/get
GET,HEAD            /{index}/_source/*                  indices:data/read/get
GET,POST            /{index}/_mget                      indices:data/read/mget
POST                /{index}/_pit                       indices:data/read/open_point_in_time
GET                 /_resolve/index/{index}             indices:admin/resolve/index
PUT,POST            /{index}/_doc/*                     indices:data/write/index:op_type/index
POST                /{index}/_doc                       indices:data/write/index:op_type/create
PUT,POST            /{index}/_create/*                  indices:data/write/index:op_type/create
POST                /{index}/_update/*                  indices:data/write/update
DELETE              /{index}/_doc/*                     indices:data/write/delete
POST                /{index}/_update_by_query           indices:data/write/update/byquery
POST                /{index}/_delete_by_query           indices:data/write/delete/byquery
PUT,POST            /_bulk                              indices:data/write/bulk
PUT,POST            /{index}/_bulk                      indices:data/write/bulk
PUT                 /{index}                            indices:admin/create
GET,HEAD            /{index}                            indices:admin/get
DELETE              /{index}                            indices:admin/delete
GET                 /_mapping                           indices:admin/mappings/get
GET                 /{index}/_mapping                   indices:admin/mappings/get
GET                 /{index}/_mapping/field/*           indices:admin/mappings/fields/get
PUT,POST            /{index}/_mapping                   indices:admin/mapping/put
GET                 /_settings                          indices:monitor/settings/get
GET                 /{index}/_settings                  indices:monitor/settings/get
GET                 /{index}/_settings/*                indices:monitor/settings/get
PUT                 /_settings                          indices:admin/settings/update
PUT                 /{index}/_settings                  indices:admin/settings/update
GET,HEAD            /_alias                             indices:admin/aliases/get
GET,HEAD            /{index}/_alias                     indices:admin/aliases/get
PUT,POST,DELETE     /{index}/_alias/*                   indices:admin/aliases
GET,POST            /_refresh                           indices:admin/refresh
GET,POST            /{index}/_refresh                   indices:admin/refresh
GET,POST            /{index}/_flush                     indices:admin/flush
POST                /{index}/_forcemerge                indices:admin/forcemerge
POST                /{index}/_open                      indices:admin/open
POST                /{index}/_close                     indices:admin/close
PUT                 /{index}/_block/*                   indices:admin/block/add
GET                 /_stats                             indices:monitor/stats
GET                 /{index}/_stats                     indices:monitor/stats
GET                 /{index}/_stats/*                   indices:monitor/stats
GET                 /{index}/_segments                  indices:monitor/segments
GET                 /{index}/_recovery                  indices:monitor/recovery
"""

# Open to everybody who is authenticated: about oneself.
OWN = {
    "/_security/_authenticate",
    "/_security/user/_has_privileges",
    "/_security/user/_password",
}
PASSWORD = re.compile(r"/_security/user/([^/]+)/_password")


@dataclass
class Wanted:
    """An action, and the index expressions of the path (empty: all; None: not about indices)."""

    action: str
    indices: list[str] | None = None
    # The part of the path that is the index expression.
    span: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def about_indices(self) -> bool:
        """Tell whether the privilege to look for is one on indices."""
        return self.indices is not None


def _compile() -> list[tuple[set[str], re.Pattern[str], str]]:
    rows = []
    for line in TABLE.strip().splitlines():
        methods, path, action = line.split()
        expression = (
            re.escape(path).replace(r"\{index\}", r"(?P<index>[^_/][^/]*|_all)").replace(r"\*", "[^/]+")
        )
        rows.append((set(methods.split(",")), re.compile(expression), action.replace("SECURITY", SECURITY)))
    return rows


ROWS = _compile()


def wanted(method: str, path: str) -> Wanted | None:
    """Return what a request (path without query, percent-decoded) wants; None for one that nobody knows."""
    path = path.rstrip("/") or "/"
    if path in OWN:
        return Wanted("")
    if PASSWORD.fullmatch(path):
        return Wanted(SECURITY + "user/change_password")
    for methods, expression, action in ROWS:
        found = expression.fullmatch(path)
        if not found or method not in methods:
            continue
        if "index" in found.groupdict():
            names = [] if found["index"] == "_all" else found["index"].split(",")
            return Wanted(action, names, found.span("index"))
        general = action.startswith("cluster:") or "template" in action
        return Wanted(action, None if general else [])
    return None
