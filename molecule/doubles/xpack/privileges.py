"""Privileges, as the actions that each grants (reference documentation, "Security privileges")."""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from .answers import RefusedError, bad_request

SECURITY = "cluster:admin/xpack/security/"

# Least first: an error names in this order who would be allowed.
CLUSTER: dict[str, tuple[str, ...]] = {
    "none": (),
    "read_ilm": ("cluster:admin/ilm/get", "cluster:admin/ilm/operation_mode/get"),
    "manage_ilm": ("cluster:admin/ilm/*",),
    "manage_pipeline": ("cluster:admin/ingest/pipeline/*",),
    "manage_index_templates": (
        "indices:admin/template/*",
        "indices:admin/index_template/*",
    ),
    "monitor_snapshot": (
        "cluster:admin/snapshot/status*",
        "cluster:admin/snapshot/get",
        "cluster:admin/repository/get",
    ),
    # Own keys only: store.py asks for api_key/grant before it shows or touches another's.
    "manage_own_api_key": (
        SECURITY + "api_key/create",
        SECURITY + "api_key/get",
        SECURITY + "api_key/invalidate",
    ),
    "manage_api_key": (SECURITY + "api_key/*",),
    "manage_slm": ("cluster:admin/slm/*", "cluster:admin/ilm/operation_mode/get"),
    "manage_security": (SECURITY + "*",),
    "monitor": (
        "cluster:monitor/*",
        "indices:admin/template/get",
        "indices:admin/index_template/get",
    ),
    "manage": ("cluster:*", "indices:admin/template/*", "indices:admin/index_template/*"),
    "all": ("cluster:*", "indices:admin/template/*", "indices:admin/index_template/*"),
}

INDEX: dict[str, tuple[str, ...]] = {
    "none": (),
    "create_doc": (
        "indices:data/write/index",
        "indices:data/write/index[[]*",
        "indices:data/write/index:op_type/create",
        "indices:data/write/bulk*",
    ),
    "create": ("indices:data/write/index*", "indices:data/write/bulk*"),
    "delete": ("indices:data/write/delete*", "indices:data/write/bulk*"),
    "index": ("indices:data/write/index*", "indices:data/write/bulk*", "indices:data/write/update*"),
    "write": ("indices:data/write/*", "indices:admin/mapping/auto_put"),
    "read": ("indices:data/read/*", "indices:admin/resolve/index"),
    "view_index_metadata": (
        "indices:admin/aliases/get",
        "indices:admin/get",
        "indices:admin/mappings/get",
        "indices:admin/mappings/fields/get*",
        "indices:admin/shards/search_shards",
        "indices:admin/validate/query*",
        "indices:monitor/settings/get",
        "indices:admin/ilm/explain",
        "indices:admin/data_stream/get",
        "indices:admin/resolve/index",
        "indices:data/read/field_caps*",
    ),
    "monitor": ("indices:monitor/*",),
    "maintenance": ("indices:admin/refresh*", "indices:admin/flush*", "indices:admin/forcemerge*"),
    "auto_configure": ("indices:admin/auto_create", "indices:admin/mapping/auto_put"),
    "create_index": ("indices:admin/create", "indices:admin/auto_create", "indices:admin/data_stream/create"),
    "delete_index": ("indices:admin/delete", "indices:admin/data_stream/delete"),
    "manage_ilm": ("indices:admin/ilm/*",),
    "manage": ("indices:monitor/*", "indices:admin/*", "indices:data/read/field_caps*"),
    "all": ("indices:*",),
}

EVERYTHING = {
    "cluster": ["all"],
    "indices": [{"names": ["*"], "privileges": ["all"]}],
    "applications": [],
    "run_as": ["*"],
}

# Elastic's own roles, as far as the roles of this project give them to anybody.
RESERVED: dict[str, dict[str, Any]] = {
    "superuser": EVERYTHING,
    "kibana_admin": {
        "cluster": [],
        "indices": [],
        "applications": [{"application": "kibana-.kibana", "privileges": ["all"], "resources": ["*"]}],
        "run_as": [],
    },
    "kibana_system": {
        "cluster": [
            "monitor",
            "manage_index_templates",
            "manage_pipeline",
            "manage_ilm",
            "manage_own_api_key",
        ],
        "indices": [{"names": [".kibana*", ".reporting-*", ".alerts-*"], "privileges": ["all"]}],
        "applications": [],
        "run_as": [],
    },
    "viewer": {
        "cluster": [],
        "indices": [{"names": ["*"], "privileges": ["read", "view_index_metadata"]}],
        "applications": [{"application": "kibana-.kibana", "privileges": ["read"], "resources": ["*"]}],
        "run_as": [],
    },
}

SERVICE_ACCOUNTS = {"elastic/kibana": "kibana_system"}


def matches(text: str, patterns: tuple[str, ...] | list[str]) -> bool:
    """Tell whether one of the patterns (``*`` and ``?``) fits."""
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def granting(action: str, table: dict[str, tuple[str, ...]]) -> list[str]:
    """Return the names of the privileges that grant an action, least first."""
    found = [name for name, patterns in table.items() if matches(action, patterns)]
    return [n for n in found if not (n == "manage" and table is CLUSTER and action.startswith(SECURITY))]


def check_role(role: dict[str, Any]) -> dict[str, Any]:
    """Return a role descriptor as Elasticsearch would keep it, or refuse it."""
    unknown = set(role) - {
        "cluster", "indices", "index", "applications", "run_as", "metadata", "global", "description",
        "transient_metadata", "remote_indices", "remote_cluster",
    }  # fmt: skip
    if unknown:
        raise bad_request(f"failed to parse role. unexpected field [{sorted(unknown)[0]}]", "parse_exception")
    for name in role.get("cluster", []):
        if name not in CLUSTER and not name.startswith("cluster:"):
            raise bad_request(
                f"unknown cluster privilege [{name}]. a privilege must be either one of the predefined cluster"
                f" privilege names [{','.join(CLUSTER)}] or a pattern over one of the available cluster actions"
            )
    indices = []
    for entry in role.get("indices", role.get("index", [])):
        names, wanted = entry.get("names"), entry.get("privileges")
        names = [names] if isinstance(names, str) else names
        if not names or wanted is None or set(entry) - {
            "names", "privileges", "field_security", "query", "allow_restricted_indices",
        }:  # fmt: skip
            raise bad_request("failed to parse indices privileges for role", "parse_exception")
        for name in wanted:
            if name not in INDEX and not name.startswith("indices:"):
                raise bad_request(
                    f"unknown index privilege [{name}]. a privilege must be either one of the predefined fixed"
                    f" indices privileges [{','.join(INDEX)}] or a pattern over one of the available index actions"
                )
        indices.append(
            {
                "names": names,
                "privileges": wanted,
                "allow_restricted_indices": entry.get("allow_restricted_indices", False),
            }
        )
    return {
        "cluster": role.get("cluster", []),
        "indices": indices,
        "applications": role.get("applications", []),
        "run_as": role.get("run_as", []),
        "metadata": role.get("metadata", {}),
        "transient_metadata": {"enabled": True},
        **({"description": role["description"]} if "description" in role else {}),
    }


@dataclass
class Subject:
    """The login of a request, and its rights: each of ``limits`` (lists of roles) has to allow an action."""

    name: str
    label: str
    limits: list[list[dict[str, Any]]] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    api_key: dict[str, Any] | None = None
    realm: str = "default_native"

    def may(self, action: str) -> bool:
        """Tell whether a cluster action is allowed."""
        return all(any(_cluster(role, action) for role in roles) for roles in self.limits)

    def may_somewhere(self, action: str) -> bool:
        """Tell whether an index action is allowed on any index at all."""
        return all(any(_index(role, action, None) for role in roles) for roles in self.limits)

    def may_on(self, action: str, index: str) -> bool:
        """Tell whether an index action is allowed on an index (or on all that a pattern names)."""
        return all(any(_index(role, action, index) for role in roles) for roles in self.limits)

    def applications(self) -> list[dict[str, Any]]:
        """Return the privileges in other applications (Kibana)."""
        return [entry for role in self.limits[0] for entry in role.get("applications", [])]


def _cluster(role: dict[str, Any], action: str) -> bool:
    for name in role.get("cluster", []):
        if name == "manage" and action.startswith(SECURITY):
            continue
        if matches(action, CLUSTER.get(name, (name,))):
            return True
    return False


def _index(role: dict[str, Any], action: str, index: str | None) -> bool:
    return any(
        (index is None or any(covers(pattern, index) for pattern in entry["names"]))
        and any(matches(action, INDEX.get(name, (name,))) for name in entry["privileges"])
        for entry in role.get("indices", [])
    )


def covers(pattern: str, index: str) -> bool:
    """Tell whether all that ``index`` (a name or a pattern) can mean lies within ``pattern``."""
    return index == pattern or fnmatchcase(index, pattern)


def denied(subject: Subject, action: str, indices: list[str] | None) -> RefusedError:
    """Return the 403 of an action that is not granted."""
    about_index = action.startswith("indices:") and "template" not in action
    where = f" on indices [{','.join(indices)}]" if indices else ""
    names = granting(action, INDEX if about_index else CLUSTER)
    kind = "index" if about_index else "cluster"
    hint = f", this action is granted by the {kind} privileges [{','.join(names)}]" if names else ""
    return RefusedError(
        403, "security_exception", f"action [{action}] is unauthorized for {subject.label}{where}{hint}"
    )
