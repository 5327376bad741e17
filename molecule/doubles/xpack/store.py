"""What Elasticsearch keeps in its security index and cluster state, here in one JSON file in the data folder."""

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from pathlib import Path
from typing import Any

ROUNDS = 20_000
KINDS = ("users", "roles", "api_keys", "tokens", "policies", "lifecycles", "snapshot_policies")


def digest(secret: str, salt: str | None = None) -> str:
    """Return a salted hash of a password."""
    salt = salt or secrets.token_hex(8)
    return salt + ":" + hashlib.pbkdf2_hmac("sha256", secret.encode(), salt.encode(), ROUNDS).hex()


def verify(secret: str, known: str) -> bool:
    """Tell whether a password is the hashed one."""
    return hmac.compare_digest(digest(secret, known.split(":")[0]), known)


class Store:
    """Dictionaries by name, one for each of KINDS, written to disk at every change."""

    def __init__(self, file: Path) -> None:
        """Read the file, or begin empty."""
        self._file = file
        self._lock = threading.RLock()
        self._verified: set[tuple[str, str]] = set()
        self.state: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        if file.exists():
            self.state.update(json.loads(file.read_text()))

    def deprecations(self) -> dict[str, Any]:
        """Return the deprecations, which a test may have put into the data folder."""
        told = self._file.with_name("deprecations.json")
        chapters = {"cluster_settings": [], "node_settings": [], "ml_settings": [], "index_settings": {},
                    "data_streams": {}, "templates": {}, "ilm_policies": {}}  # fmt: skip
        return {**chapters, **(json.loads(told.read_text()) if told.exists() else {})}

    def __getitem__(self, kind: str) -> dict[str, Any]:
        """Return a kind's dictionary, to be read."""
        return self.state[kind]

    def put(self, kind: str, name: str, value: dict[str, Any] | None) -> bool:
        """Keep a value (None removes it); return whether the name is new."""
        with self._lock:
            new = name not in self.state[kind]
            changed = {**self.state[kind], name: value}
            self.state[kind] = {key: kept for key, kept in changed.items() if kept is not None}
            self._verified.clear()
            temporary = self._file.with_suffix(".tmp")
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(self.state))
            temporary.replace(self._file)
            return new

    def password_fits(self, password: str, known: str) -> bool:
        """Verify a password; slow the first time only, as with Elasticsearch's own cache."""
        pair = (hashlib.sha256(password.encode()).hexdigest(), known)
        if pair in self._verified:
            return True
        if not verify(password, known):
            return False
        self._verified.add(pair)
        return True

    def new_api_key(self, owner: str, name: str, **more: Any) -> tuple[str, str]:
        """Make an API key; return its id and its secret, which is not kept."""
        key_id, secret = secrets.token_urlsafe(15), secrets.token_urlsafe(16)
        self.put(
            "api_keys",
            key_id,
            {
                "name": name,
                "owner": owner,
                "creation": int(time.time() * 1000),
                "invalidated": False,
                "hash": digest(secret),
                **more,
            },
        )
        return key_id, secret

    def new_token(self, account: str, name: str) -> str:
        """Make a service token; return its value, which is not kept."""
        secret = secrets.token_urlsafe(16)
        self.put("tokens", f"{account}/{name}", {"hash": digest(secret)})
        # Elastic's form: four bytes of version, then account/name:secret.
        return base64.b64encode(b"\0\1\0\1" + f"{account}/{name}:{secret}".encode()).decode()
