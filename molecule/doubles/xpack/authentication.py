"""Who asks: passwords, API keys and service tokens (reference documentation, "User authentication")."""

import base64
import binascii
import re
import time
from pathlib import Path
from typing import Any

from . import keystore
from .answers import RefusedError
from .privileges import RESERVED, SERVICE_ACCOUNTS, Subject
from .store import Store

# Seconds from the first answer until the index that users are in is open; until then all but the file realm's users
# are refused as if their passwords were wrong.
OPENING = 3
CHALLENGES = ['Basic realm="security", charset="UTF-8"', 'Bearer realm="security"', "ApiKey"]


class Authentication:
    """Tells who stands behind an Authorization header."""

    def __init__(self, store: Store, config: Path) -> None:
        """Take the store, and the configuration's folder with the keystore and the file realm's files."""
        self._store = store
        self._config = config
        self._bootstrap = keystore.load(config).get("bootstrap.password")
        self._open_at = time.monotonic() + (OPENING if store["users"] else 0)

    def authenticate(self, header: str | None, path: str) -> Subject:
        """Return who an Authorization header stands for, or refuse with 401."""
        if not header:
            raise _unauthorized(f"missing authentication credentials for REST request [{path}]")
        scheme, _, value = header.partition(" ")
        scheme = scheme.lower()
        try:
            if time.monotonic() < self._open_at and not (
                scheme == "basic" and self._in_file(_decoded(value))
            ):
                raise ValueError("the index of users is not open yet")
            if scheme == "basic":
                return self._basic(_decoded(value), path)
            if scheme == "apikey":
                return self._api_key(_decoded(value), path)
            if scheme == "bearer":
                return self._bearer(value, path)
        except (binascii.Error, UnicodeDecodeError, ValueError):
            pass
        raise _unauthorized(f"unable to authenticate with provided credentials for REST request [{path}]")

    def _basic(self, pair: str, path: str) -> Subject:
        name, _, password = pair.partition(":")
        user = self._store["users"].get(name, {})
        known, roles, realm = user.get("hash"), user.get("roles", []), "default_native"
        if name in self._file_users():
            known, roles, realm = self._file_users()[name], ["superuser"], "default_file"
        elif name == "elastic":
            roles, realm = ["superuser"], "reserved"
            if known is None and self._bootstrap is not None and password == self._bootstrap:
                return self._user(name, roles, realm)
        elif not user.get("enabled"):
            known = None
        if known is None or not self._store.password_fits(password, known):
            raise _unauthorized(f"unable to authenticate user [{name}] for REST request [{path}]")
        return self._user(name, roles, realm)

    def of_password(self, pair: str) -> Subject:
        """Return who NAME:PASSWORD stands for, or refuse with 401."""
        return self._basic(pair, "/_security/api_key/grant")

    def _in_file(self, pair: str) -> bool:
        return pair.partition(":")[0] in self._file_users()

    def _user(self, name: str, roles: list[str], realm: str) -> Subject:
        label = f"user [{name}] with effective roles [{','.join(roles)}]"
        return Subject(name, label, [self.descriptors(roles)], roles, realm=realm)

    def _file_users(self) -> dict[str, str]:
        """Return the file realm (elasticsearch-reset-password comes in through it)."""
        file = self._config / "users"
        if not file.exists():
            return {}
        return dict(line.split(":", 1) for line in file.read_text().split() if ":" in line)

    def _api_key(self, pair: str, path: str) -> Subject:
        key_id, _, secret = pair.partition(":")
        key = self._store["api_keys"].get(key_id)
        expired = key and key.get("expiration") and key["expiration"] < time.time() * 1000
        if not key or key["invalidated"] or expired or not self._store.password_fits(secret, key["hash"]):
            raise _unauthorized(f"unable to authenticate with provided credentials for REST request [{path}]")
        limits = [key["limited_by"]]
        if key["role_descriptors"]:
            limits.insert(0, list(key["role_descriptors"].values()))
        label = f"API key id [{key_id}] of user [{key['owner']}]"
        return Subject(key["owner"], label, limits, [], {"id": key_id, "name": key["name"]}, "_es_api_key")

    def _bearer(self, value: str, path: str) -> Subject:
        found = re.fullmatch(r"\x00\x01\x00\x01(([^/:]+/[^/:]+)/([^/:]+)):(.+)", _decoded(value))
        token = self._store["tokens"].get(found[1]) if found else None
        if not found or not token or not self._store.password_fits(found[4], token["hash"]):
            raise _unauthorized(f"unable to authenticate with provided credentials for REST request [{path}]")
        account = found[2]
        limits = [self.descriptors([SERVICE_ACCOUNTS[account]])]
        return Subject(account, f"service account [{account}]", limits, [], realm="_service_account")

    def descriptors(self, roles: list[str]) -> list[dict[str, Any]]:
        """Return the descriptors of roles by name; unknown ones give nothing."""
        return [self._store["roles"].get(name) or RESERVED.get(name, {}) for name in roles]


def _unauthorized(reason: str) -> RefusedError:
    return RefusedError(401, "security_exception", reason, {"WWW-Authenticate": CHALLENGES})


def _decoded(value: str) -> str:
    return base64.b64decode(value.strip(), validate=True).decode()
