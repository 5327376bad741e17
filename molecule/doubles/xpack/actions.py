"""Which action a REST request is, and on which indices: what authorization goes by.

Only a superuser may send a request that is not in the table; the core answers it. The table has the requests that
roles and tests send.
"""

import re
from dataclasses import dataclass, field

from .privileges import SECURITY

# (methods, path, action). {index} is an index expression; paths without it that need one mean all indices.
TABLE = """
GET,HEAD            /                                   cluster:monitor/main
GET                 /_migration/deprecations            cluster:admin/xpack/deprecation/info
GET                 /_cluster/health                    cluster:monitor/health
GET                 /_cluster/settings                  cluster:monitor/settings
PUT                 /_cluster/settings                  cluster:admin/settings/update
GET                 /_nodes/stats/*                     cluster:monitor/nodes/stats
GET,HEAD            /_index_template                    indices:admin/index_template/get
GET,HEAD            /_index_template/*                  indices:admin/index_template/get
PUT,POST            /_index_template/*                  indices:admin/index_template/put
DELETE              /_index_template/*                  indices:admin/index_template/delete
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
GET                 /_ilm/policy                        cluster:admin/ilm/get
GET                 /_ilm/policy/*                      cluster:admin/ilm/get
PUT                 /_ilm/policy/*                      cluster:admin/ilm/put
DELETE              /_ilm/policy/*                      cluster:admin/ilm/delete
GET                 /{index}/_ilm/explain               indices:admin/ilm/explain
GET                 /_security/user                     SECURITYuser/get
GET                 /_security/user/*                   SECURITYuser/get
PUT,POST            /_security/user/*                   SECURITYuser/put
DELETE              /_security/user/*                   SECURITYuser/delete
GET                 /_security/role                     SECURITYrole/get
GET                 /_security/role/*                   SECURITYrole/get
PUT,POST            /_security/role/*                   SECURITYrole/put
DELETE              /_security/role/*                   SECURITYrole/delete
GET                 /_security/api_key                  SECURITYapi_key/get
PUT,POST            /_security/api_key                  SECURITYapi_key/create
POST                /_security/api_key/grant            SECURITYapi_key/grant
DELETE              /_security/api_key                  SECURITYapi_key/invalidate
PUT,POST            /_security/service/*/*/credential/token/*   SECURITYservice_account/token/create
DELETE              /_security/service/*/*/credential/token/*   SECURITYservice_account/token/delete
GET,POST            /_search                            indices:data/read/search
GET,POST            /{index}/_search                    indices:data/read/search
GET,POST            /{index}/_count                     indices:data/read/search
GET,HEAD            /{index}/_doc/*                     indices:data/read/get
PUT,POST            /{index}/_doc/*                     indices:data/write/index:op_type/index
PUT,POST            /{index}/_create/*                  indices:data/write/index:op_type/create
DELETE              /{index}/_doc/*                     indices:data/write/delete
PUT,POST            /_bulk                              indices:data/write/bulk
PUT,POST            /{index}/_bulk                      indices:data/write/bulk
PUT                 /{index}                            indices:admin/create
GET,HEAD            /{index}                            indices:admin/get
DELETE              /{index}                            indices:admin/delete
GET                 /{index}/_mapping                   indices:admin/mappings/get
PUT,POST            /{index}/_mapping                   indices:admin/mapping/put
GET                 /{index}/_settings                  indices:monitor/settings/get
PUT                 /{index}/_settings                  indices:admin/settings/update
GET                 /{index}/_stats                     indices:monitor/stats
GET                 /{index}/_stats/*                   indices:monitor/stats
GET                 /{index}/_segments                  indices:monitor/segments
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
    """Return the action of a request (path without query, percent-decoded), None if it is not in the table."""
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
