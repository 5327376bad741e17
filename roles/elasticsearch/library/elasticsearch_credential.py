#!/usr/bin/python
"""Ansible module: a password, API key or service token is valid and has the right privileges."""

from __future__ import annotations

import secrets
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.elasticsearch_api import (
    CONNECTION,
    Elasticsearch,
    ElasticsearchError,
    UnreachableError,
    basic,
    connect,
    reason,
)

DOCUMENTATION = r"""
module: elasticsearch_credential
short_description: A password, API key or service token is valid and has the right privileges
description:
  - Tries the credential. If there is none, or Elasticsearch refuses it (because it was installed again), the module
    sets the password again, or makes a new key or token and revokes the old one.
  - The superuser's password is set with Elasticsearch's own tool, on its host.
options:
  kind:
    description: Kind of the credential.
    choices: [superuser, password, api_key, service_token]
    required: true
    type: str
  name: {description: Name of the user or the key; for a token ACCOUNT/NAME., required: true, type: str}
  current: {description: The present credential; empty for none. A password is required., type: str, default: ''}
  role_descriptors: {description: "The API key's privileges.", type: dict}
  rotate: {description: Replace a key or token even if it works., type: bool, default: false}
  reset_password: {description: Path of the tool elasticsearch-reset-password; for the superuser., type: path}
  patience:
    description:
      - Seconds to try again after a refusal. A node that has just started refuses everybody until it has opened the
        index that holds the users.
    type: int
    default: 0
  url: {description: "Elasticsearch's URL.", required: true, type: str}
  ca_path: {description: Certificate of Elasticsearch's authority., required: true, type: path}
  username: {description: The user that the module logs in as., type: str, default: elastic}
  password: {description: The password of username; a dry run and kind superuser need none., type: str}
  key: {description: An API key to log in with instead of username and password., type: str, default: ''}
author: wrtflow
"""

EXAMPLES = r"""
- name: The collector has a key that creates flows and does nothing else
  elasticsearch_credential:
    kind: api_key
    name: wrtflow-collector
    current: "{{ lookup('ansible.builtin.file', 'secrets/collector.api-key', errors='ignore') or '' }}"
    role_descriptors:
      collector:
        indices: [{names: [network-*], privileges: [create_doc, auto_configure]}]
    url: https://192.168.1.10:9200
    ca_path: /etc/elasticsearch/certs/ca.crt
    password: "{{ elastic_password }}"
  register: key
"""

RETURN = r"""
value: {description: The new key or token; empty in a dry run., type: str, returned: when one is made}
"""


# A user and a role of this name exist while granted() makes a key.
PASSING = "wrtflow-passing"

# The tool writes a temporary user into a file that Elasticsearch reads every few seconds, and gives up after five. It
# also fails while Elasticsearch still opens indices.
TRIES, PAUSE = 4, 5


def superuser(module: AnsibleModule, server: Elasticsearch, params: dict[str, Any]) -> None:
    """Set the superuser's password.

    Elasticsearch's tool can set a random password only. With that one, the API sets the password that is wanted.
    """
    name, current = params["name"], params["current"]
    tool = [
        params["reset_password"],
        "--username",
        name,
        "--auto",
        "--batch",
        "--silent",
        "--url",
        params["url"],
    ]
    for left in reversed(range(TRIES)):
        status, output, complaint = module.run_command(tool)
        if status == 0:
            break
        if not left:
            raise ElasticsearchError(
                f"{params['reset_password']} failed: {complaint.strip() or output.strip()}"
            )
        time.sleep(PAUSE)
    passing = basic(name, output.strip().splitlines()[-1])
    status, answer = server.ask("POST", f"/_security/user/{name}/_password", {"password": current}, passing)
    if status != 200:
        raise ElasticsearchError(f"Elasticsearch does not take the password of {name}: {reason(answer)}")


def user(server: Elasticsearch, params: dict[str, Any]) -> None:
    """Set a user's password."""
    server.must("POST", f"/_security/user/{params['name']}/_password", {"password": params["current"]})


def api_key(server: Elasticsearch, params: dict[str, Any]) -> str:
    """Make a key, replacing all others of its name, and return it."""
    server.must("DELETE", "/_security/api_key", {"name": params["name"]})
    body = {"name": params["name"], "role_descriptors": params["role_descriptors"]}
    if params["key"]:
        return granted(server, body)
    return server.must("POST", "/_security/api_key", body)["encoded"]


def granted(server: Elasticsearch, body: dict[str, Any]) -> str:
    """Make a key by means of an administrator's key, and return it.

    A key that is made by a key has no rights. So a temporary user owns the new key. It keeps the rights that its
    owner had when it was made, and stays valid when the owner is deleted.
    """
    (rights,) = body["role_descriptors"].values()
    user_path, role_path = f"/_security/user/{PASSING}", f"/_security/role/{PASSING}"
    password = secrets.token_urlsafe(24)
    grant = {"grant_type": "password", "username": PASSING, "password": password, "api_key": body}
    try:
        server.must("PUT", role_path, rights)
        server.must("PUT", user_path, {"password": password, "roles": [PASSING]})
        return server.must("POST", "/_security/api_key/grant", grant)["encoded"]
    finally:
        server.ask("DELETE", user_path)
        server.ask("DELETE", role_path)


def api_key_differs(server: Elasticsearch, params: dict[str, Any]) -> bool:
    """Tell whether a valid key has other rights than the wanted ones."""
    _, about = server.ask("GET", "/_security/_authenticate", authorization=authorization(params))
    key_id = about["api_key"]["id"]
    kept = server.must("GET", f"/_security/api_key?id={key_id}")["api_keys"][0]["role_descriptors"]
    return _rights(kept) != _rights(params["role_descriptors"])


def _rights(roles: dict[str, Any]) -> dict[str, Any]:
    """Return what is compared of role descriptors: Elasticsearch adds defaults to them."""
    return {
        name: (
            sorted(role.get("cluster", [])),
            sorted(
                (sorted(e["names"]), sorted(e["privileges"]))
                for e in role.get("indices", role.get("index", []))
            ),
        )
        for name, role in roles.items()
    }


def service_token(server: Elasticsearch, params: dict[str, Any]) -> str:
    """Make a token, replacing the one of its name, and return it."""
    account, name = params["name"].rsplit("/", 1)
    path = f"/_security/service/{account}/credential/token/{name}"
    server.ask("DELETE", path)
    return server.must("POST", path)["token"]["value"]


def authorization(params: dict[str, Any]) -> str:
    """Return the Authorization header for the credential."""
    if params["kind"] == "api_key":
        return f"ApiKey {params['current']}"
    if params["kind"] == "service_token":
        return f"Bearer {params['current']}"
    return basic(params["name"], params["current"])


def expected(kind: str) -> dict[str, Any]:
    """Return the result of a dry run that would change something."""
    return {"changed": True, **({"value": ""} if kind in ("api_key", "service_token") else {})}


def ensure(module: AnsibleModule, server: Elasticsearch, params: dict[str, Any]) -> dict[str, Any]:
    """Try the credential, renew it if needed, and return the module's result."""
    kind, current = params["kind"], params["current"]
    if (
        current
        and not (params["rotate"] and kind in ("api_key", "service_token"))
        and server.accepts(authorization(params), 0 if module.check_mode else params["patience"])
        and not (kind == "api_key" and api_key_differs(server, params))
    ):
        return {"changed": False}
    if module.check_mode:
        return expected(kind)
    if kind == "superuser":
        superuser(module, server, params)
    elif kind == "password":
        user(server, params)
    else:
        return {
            "changed": True,
            "value": {"api_key": api_key, "service_token": service_token}[kind](server, params),
        }
    return {"changed": True}


def main() -> None:
    """Run as a module."""
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "kind": {
                "type": "str",
                "required": True,
                "choices": ["superuser", "password", "api_key", "service_token"],
            },
            "name": {"type": "str", "required": True},
            "current": {"type": "str", "default": "", "no_log": True},
            "role_descriptors": {"type": "dict"},
            "rotate": {"type": "bool", "default": False},
            "reset_password": {"type": "path", "no_log": False},
            "patience": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    params, server = module.params, connect(module.params)
    try:
        module.exit_json(**ensure(module, server, params))
    except UnreachableError as error:
        if module.check_mode:
            # The machine has no Elasticsearch yet.
            module.exit_json(**expected(params["kind"]))
        module.fail_json(msg=str(error))
    except ElasticsearchError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
