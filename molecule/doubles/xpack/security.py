"""The ``_security`` API: users, roles, API keys and service tokens."""

import base64
import time
from typing import Any

from .answers import Answer, RefusedError, answer, bad_request
from .authentication import Authentication
from .policies import seconds
from .privileges import CLUSTER, INDEX, RESERVED, SECURITY, SERVICE_ACCOUNTS, Subject, check_role
from .store import Store, digest


class Security:
    """The security API over the store."""

    def __init__(self, store: Store, authentication: Authentication | None) -> None:
        """Take the store, and the authentication that checks passwords."""
        self._store, self._authentication = store, authentication

    def call(
        self, subject: Subject, method: str, parts: list[str], query: dict[str, str], body: Any
    ) -> Answer:
        """Answer a ``_security`` request that authorization has let through."""
        match parts:
            case ["_authenticate"]:
                return answer(self._about(subject))
            case ["user", "_has_privileges"]:
                return answer(_has_privileges(subject, body))
            case ["user", "_password"]:
                return self._set_password(subject.name, body)
            case ["user", name, "_password"]:
                return self._set_password(name, body)
            case ["user", *names]:
                return self._users(method, names, body)
            case ["role", *names]:
                return self._roles(method, names, body)
            case ["api_key", *names]:
                return self._api_keys(subject, method, names, query, body)
            case ["service", space, account, "credential", "token", name]:
                return self._tokens(f"{space}/{account}", method, name)
        raise bad_request(f"no handler found for uri [/_security/{'/'.join(parts)}] and method [{method}]")

    def _about(self, subject: Subject) -> dict[str, Any]:
        user = self._store["users"].get(subject.name, {})
        kind = {"_es_api_key": "api_key", "_service_account": "token"}.get(subject.realm, "realm")
        realm_type = {"reserved": "reserved", "default_file": "file", "default_native": "native"}
        realm = {"name": subject.realm, "type": realm_type.get(subject.realm, subject.realm)}
        return {
            "username": subject.name,
            "roles": subject.roles,
            "full_name": user.get("full_name"),
            "email": user.get("email"),
            "metadata": user.get("metadata", {"_reserved": True} if subject.realm == "reserved" else {}),
            "enabled": True,
            "authentication_realm": realm,
            "lookup_realm": realm,
            "authentication_type": kind,
            **({"api_key": subject.api_key} if subject.api_key else {}),
        }

    def _users(self, method: str, names: list[str], body: Any) -> Answer:
        if method == "GET":
            known = {"elastic": self._shown("elastic"), **{n: self._shown(n) for n in self._store["users"]}}
            return _named(known, names)
        name = names[0]
        if method == "DELETE":
            found = name in self._store["users"] and name != "elastic"
            if found:
                self._store.put("users", name, None)
            return answer({"found": found}, 200 if found else 404)
        if name == "elastic":
            raise bad_request(
                "user [elastic] is reserved and only the password can be changed", "validation_exception"
            )
        return self._put_user(name, body or {})

    def _shown(self, name: str) -> dict[str, Any]:
        user = self._store["users"].get(name, {})
        return {
            "username": name,
            "roles": ["superuser"] if name == "elastic" else user["roles"],
            "full_name": user.get("full_name"),
            "email": user.get("email"),
            "metadata": {"_reserved": True} if name == "elastic" else user.get("metadata", {}),
            "enabled": user.get("enabled", True),
        }

    def _put_user(self, name: str, body: dict[str, Any]) -> Answer:
        known = self._store["users"].get(name, {})
        unknown = set(body) - {
            "password",
            "password_hash",
            "roles",
            "full_name",
            "email",
            "metadata",
            "enabled",
            "username",
        }
        if unknown:
            raise bad_request(
                f"failed to parse add user request. unexpected field [{sorted(unknown)[0]}]",
                "parse_exception",
            )
        if "password" in body:
            _checked(body["password"])
        elif not known:
            raise bad_request(
                "Validation Failed: 1: password must be specified unless you are updating an existing user;",
                "validation_exception",
            )
        if "roles" not in body:
            raise bad_request(
                "Validation Failed: 1: roles are missing;", "action_request_validation_exception"
            )
        user = {"enabled": True, "metadata": {}, **body}
        user["hash"] = digest(user.pop("password")) if "password" in user else known["hash"]
        new = self._store.put("users", name, user)
        return answer({"created": new})

    def _set_password(self, name: str, body: Any) -> Answer:
        password = _checked((body or {}).get("password"))
        user = self._store["users"].get(name)
        if user is None and name != "elastic":
            raise bad_request(
                "Validation Failed: 1: user must exist in order to change password;", "validation_exception"
            )
        self._store.put(
            "users", name, {"roles": [], "enabled": True, **(user or {}), "hash": digest(password)}
        )
        return answer({})

    def _roles(self, method: str, names: list[str], body: Any) -> Answer:
        if method == "GET":
            reserved = {n: {**r, "metadata": {"_reserved": True}} for n, r in RESERVED.items()}
            return _named({**reserved, **self._store["roles"]}, names)
        name = names[0]
        if name in RESERVED:
            raise bad_request(f"role [{name}] is reserved and may not be used.")
        if method == "DELETE":
            found = name in self._store["roles"]
            if found:
                self._store.put("roles", name, None)
            return answer({"found": found}, 200 if found else 404)
        return answer({"role": {"created": self._store.put("roles", name, check_role(body or {}))}})

    def _api_keys(
        self, subject: Subject, method: str, names: list[str], query: dict[str, str], body: Any
    ) -> Answer:
        if names == ["grant"]:
            return self._grant_api_key(body or {})
        if method in ("PUT", "POST"):
            return self._create_api_key(subject, body or {})
        wanted = body or {} if method == "DELETE" else query
        if method == "DELETE" and not {"id", "ids", "name", "username", "realm_name", "owner"} & set(wanted):
            raise bad_request(
                "Validation Failed: 1: One of [api key id(s), api key name, username, realm name] must be specified if"
                " [owner] flag is false;",
                "action_request_validation_exception",
            )
        own = str(wanted.get("owner", "false")).lower() == "true" or not subject.may(
            SECURITY + "api_key/grant"
        )
        active = str(wanted.get("active_only", "false")).lower() == "true"
        ids = set(wanted.get("ids", [])) | ({wanted["id"]} if wanted.get("id") else set())
        found = {
            key_id: key
            for key_id, key in self._store["api_keys"].items()
            if (not ids or key_id in ids)
            and ("name" not in wanted or _fits(key["name"], wanted["name"]))
            and (not own or key["owner"] == subject.name)
            and (not active or not key["invalidated"])
        }
        if method == "GET":
            if ids and not found:
                raise RefusedError(
                    404, "resource_not_found_exception", f"api key with id [{sorted(ids)[0]}] not found"
                )
            return answer({"api_keys": [_shown_key(key_id, key) for key_id, key in found.items()]})
        before = [key_id for key_id, key in found.items() if key["invalidated"]]
        now = [key_id for key_id in found if key_id not in before]
        for key_id in now:
            self._store.put("api_keys", key_id, {**found[key_id], "invalidated": True})
        return answer(
            {"invalidated_api_keys": now, "previously_invalidated_api_keys": before, "error_count": 0}
        )

    def _create_api_key(self, subject: Subject, body: dict[str, Any]) -> Answer:
        roles = {name: check_role(role) for name, role in (body.get("role_descriptors") or {}).items()}
        if subject.api_key and not (roles and all(_empty(role) for role in roles.values())):
            raise bad_request(
                "creating derived api keys requires an explicit role descriptor that is empty (has no privileges)"
            )
        unknown = set(body) - {"name", "role_descriptors", "expiration", "metadata"}
        if unknown:
            raise bad_request(
                f"[api_key_request] unknown field [{sorted(unknown)[0]}]", "x_content_parse_exception"
            )
        if not body.get("name"):
            raise bad_request(
                "Validation Failed: 1: api key name is required;", "action_request_validation_exception"
            )
        expiration = body.get("expiration")
        key_id, secret = self._store.new_api_key(
            subject.name,
            body["name"],
            role_descriptors=roles,
            metadata=body.get("metadata") or {},
            # The owner's present rights: the key keeps them when the owner is changed or deleted.
            limited_by=subject.limits[0],
            expiration=int((time.time() + seconds(expiration, "expiration")) * 1000) if expiration else None,
        )
        encoded = base64.b64encode(f"{key_id}:{secret}".encode()).decode()
        return answer({"id": key_id, "name": body["name"], "api_key": secret, "encoded": encoded})

    def _grant_api_key(self, body: dict[str, Any]) -> Answer:
        """Make a key for the user whose password is in the request."""
        if body.get("grant_type") != "password" or not self._authentication:
            raise bad_request("Validation Failed: 1: invalid grant_type value", "validation_exception")
        pair = f"{body.get('username')}:{body.get('password')}"
        return self._create_api_key(self._authentication.of_password(pair), body.get("api_key") or {})

    def _tokens(self, account: str, method: str, name: str) -> Answer:
        if account not in SERVICE_ACCOUNTS:
            raise bad_request(f"the [{account}] service account is not known", "validation_exception")
        tokens = self._store["tokens"]
        full = f"{account}/{name}"
        if method == "DELETE":
            if full in tokens:
                self._store.put("tokens", full, None)
                return answer({"found": True})
            return answer({"found": False}, 404)
        if full in tokens:
            raise RefusedError(
                409,
                "version_conflict_engine_exception",
                f"[service_account_token-{full}]: version conflict, document already exists",
            )
        return answer(
            {"created": True, "token": {"name": name, "value": self._store.new_token(account, name)}}
        )


def _checked(password: Any) -> str:
    """Return a password that is long enough."""
    if isinstance(password, str) and len(password) >= 6:
        return password
    raise bad_request(
        "Validation Failed: 1: passwords must be at least [6] characters long;", "validation_exception"
    )


def _fits(text: str, pattern: str) -> bool:
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def _named(known: dict[str, Any], names: list[str]) -> Answer:
    if not names:
        return answer(known)
    found = {name: known[name] for name in names[0].split(",") if name in known}
    return answer(found, 200 if found else 404)


def _shown_key(key_id: str, key: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": key_id,
        "name": key["name"],
        "type": "rest",
        "creation": key["creation"],
        "invalidated": key["invalidated"],
        "username": key["owner"],
        "realm": "reserved" if key["owner"] == "elastic" else "default_native",
        "metadata": key["metadata"],
        "role_descriptors": key["role_descriptors"],
    }


def _has_privileges(subject: Subject, body: Any) -> dict[str, Any]:
    body = body or {}
    cluster = {
        name: all(subject.may(a.replace("*", "x")) for a in CLUSTER.get(name, (name,)))
        for name in body.get("cluster", [])
    }
    index: dict[str, dict[str, bool]] = {}
    for entry in body.get("index", []):
        names = [entry["names"]] if isinstance(entry["names"], str) else entry["names"]
        for name in names:
            for privilege in entry["privileges"]:
                if privilege not in INDEX and not privilege.startswith("indices:"):
                    raise bad_request(f"unknown index privilege [{privilege}]")
                actions = [
                    a.replace("[[]", "[").replace("*", "x") for a in INDEX.get(privilege, (privilege,))
                ]
                index.setdefault(name, {})[privilege] = all(subject.may_on(a, name) for a in actions)
    application: dict[str, Any] = {}
    for entry in body.get("application", []):
        for resource in entry["resources"]:
            for privilege in entry["privileges"]:
                ok = _superuser(subject) or any(
                    granted["application"] == entry["application"]
                    and ("all" in granted["privileges"] or privilege in granted["privileges"])
                    and ("*" in granted["resources"] or resource in granted["resources"])
                    for granted in subject.applications()
                )
                application.setdefault(entry["application"], {}).setdefault(resource, {})[privilege] = ok
    answers = [*cluster.values(), *(v for d in index.values() for v in d.values())]
    answers += [v for app in application.values() for d in app.values() for v in d.values()]
    return {
        "username": subject.name,
        "has_all_requested": all(answers),
        "cluster": cluster,
        "index": index,
        "application": application,
    }


def _empty(role: dict[str, Any]) -> bool:
    return not (role["cluster"] or role["indices"] or role["applications"] or role["run_as"])


def _superuser(subject: Subject) -> bool:
    return "superuser" in subject.roles
