#!/usr/bin/python
"""Ansible module: a role, user, template, policy or snapshot repository of Elasticsearch is as described."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.elasticsearch_api import (
    CONNECTION,
    MISSING,
    UNAUTHORIZED,
    Elasticsearch,
    ElasticsearchError,
    UnreachableError,
    conclude,
    reason,
)

DOCUMENTATION = r"""
module: elasticsearch_object
short_description: A role, user, template, policy or snapshot repository of Elasticsearch is as described, or absent
description:
  - Reads the object, compares it in the form in which Elasticsearch shows it, and writes it only if it differs.
  - Passwords of users are not compared; the module elasticsearch_credential sets them.
options:
  kind:
    description: Kind of the object.
    choices: [index_template, lifecycle_policy, role, snapshot_policy, snapshot_repository, user]
    required: true
    type: str
  name: {description: Name of the object., required: true, type: str}
  body:
    description: The object as Elasticsearch's API takes it. Empty, the object is deleted.
    type: dict
    default: {}
  initial: {description: "More of the body, sent only when the object is created.", type: dict}
  since:
    description:
      - Version of Elasticsearch (as 8.17), and what to merge into the body from that version on. A dry run without a
        server merges all of it.
    type: dict
    default: {}
  url: {description: "Elasticsearch's URL.", required: true, type: str}
  ca_path: {description: Certificate of Elasticsearch's authority., required: true, type: path}
  username: {description: The user that the module logs in as., type: str, default: elastic}
  password: {description: The password of username; only a dry run may leave it out., type: str}
  key: {description: An API key to log in with instead of username and password., type: str, default: ''}
author: wrtflow
"""

EXAMPLES = r"""
- name: A role that reads flows exists
  elasticsearch_object:
    kind: role
    name: wrtflow_reader
    body:
      indices: [{names: [network-*], privileges: [read, view_index_metadata]}]
    url: https://192.168.1.10:9200
    ca_path: /etc/elasticsearch/certs/ca.crt
    password: "{{ elastic_password }}"

- name: No snapshots are taken
  elasticsearch_object:
    kind: snapshot_policy
    name: wrtflow-flows
    url: https://192.168.1.10:9200
    ca_path: /etc/elasticsearch/certs/ca.crt
    password: "{{ elastic_password }}"
"""

RETURN = r"""
diff: {description: The object before and after., type: dict, returned: always}
"""

PATHS = {
    "index_template": "/_index_template/",
    "lifecycle_policy": "/_ilm/policy/",
    "role": "/_security/role/",
    "snapshot_policy": "/_slm/policy/",
    "snapshot_repository": "/_snapshot/",
    "user": "/_security/user/",
}


def shown(kind: str, name: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the body of an object from Elasticsearch's answer to a GET."""
    if kind == "index_template":
        return answer["index_templates"][0]["index_template"]
    if kind == "lifecycle_policy":
        return {"policy": answer[name]["policy"]}
    if kind == "snapshot_policy":
        return answer[name]["policy"]
    return answer[name]


def comparable(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return what of a body is compared: without what Elasticsearch adds, in one spelling."""
    if kind == "index_template":
        template = body.get("template", {})
        return {
            "index_patterns": body["index_patterns"],
            "priority": body.get("priority"),
            "_meta": body.get("_meta", {}),
            "mappings": _texts(template.get("mappings", {})),
            "settings": _texts(_flat(template.get("settings", {}))),
        }
    if kind == "role":
        return {
            "cluster": sorted(body.get("cluster", [])),
            "indices": [
                {"names": sorted(entry["names"]), "privileges": sorted(entry["privileges"])}
                for entry in body.get("indices", [])
            ],
            "applications": body.get("applications", []),
        }
    if kind == "user":
        return {
            "roles": sorted(body["roles"]),
            "full_name": body.get("full_name"),
            "enabled": body.get("enabled", True),
        }
    if kind == "snapshot_repository":
        return {"type": body["type"], "settings": _texts(body["settings"])}
    return body


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return index settings with dotted names, each beginning with index."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(_flat(value, f"{path}."))
        else:
            flat[path if path.startswith("index.") else f"index.{path}"] = value
    return flat


def _texts(value: Any) -> Any:
    """Return a tree with numbers and booleans as text, as Elasticsearch shows settings."""
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def merged(body: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return the body with `more` merged in, at any depth."""
    inner = {
        key: merged(body[key], value)
        if isinstance(value, dict) and isinstance(body.get(key), dict)
        else value
        for key, value in more.items()
    }
    return {**body, **inner}


def known_to(
    server: Elasticsearch, body: dict[str, Any], since: dict[str, Any], check_mode: bool
) -> dict[str, Any]:
    """Return the body, with those parts of `since` merged in that the server's version knows."""
    if not since:
        return body
    version = None
    try:
        status, answer = server.ask("GET", "/")
        if not (check_mode and status == UNAUTHORIZED):
            if status != 200:
                raise ElasticsearchError(f"Elasticsearch refused GET / with {status}: {reason(answer)}")
            version = numbers(answer["version"]["number"])
    except UnreachableError:
        if not check_mode:
            raise
    for first, more in since.items():
        if version is None or version >= numbers(first):
            body = merged(body, more)
    return body


def numbers(version: str) -> tuple[int, int]:
    """Return a version's first two numbers."""
    major, minor = str(version).split(".")[:2]
    return int(major), int(minor)


def current(server: Elasticsearch, kind: str, name: str, check_mode: bool) -> dict[str, Any]:
    """Return the object as it is now; empty if it is missing, and in a dry run without a server."""
    try:
        status, answer = server.ask("GET", PATHS[kind] + name)
    except UnreachableError:
        if check_mode:
            return {}
        raise
    if status == 200:
        return comparable(kind, shown(kind, name, answer))
    if status == MISSING or (check_mode and status == UNAUTHORIZED):
        return {}
    raise ElasticsearchError(f"Elasticsearch refused GET {PATHS[kind]}{name} with {status}: {reason(answer)}")


def ensure(server: Elasticsearch, params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Compare, write the object if it differs, and return the module's result."""
    kind, name = params["kind"], params["name"]
    wanted = known_to(server, params["body"], params["since"] or {}, check_mode)
    before, after = current(server, kind, name, check_mode), comparable(kind, wanted) if wanted else {}
    if before != after and not check_mode:
        if wanted:
            server.must(
                "PUT", PATHS[kind] + name, wanted if before else {**(params["initial"] or {}), **wanted}
            )
        else:
            server.must("DELETE", PATHS[kind] + name)
    return {"changed": before != after, "diff": {"before": before, "after": after}}


def main() -> None:
    """Run as a module."""
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "kind": {"type": "str", "required": True, "choices": list(PATHS)},
            "name": {"type": "str", "required": True},
            "body": {"type": "dict", "default": {}},
            "initial": {"type": "dict", "no_log": True},
            "since": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    conclude(module, lambda server: ensure(server, module.params, module.check_mode))


if __name__ == "__main__":
    main()
