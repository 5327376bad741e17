"""The keystore (elasticsearch-keystore): secrets that the server reads at its start.

Elastic's file is encrypted with a password that is empty unless set; this one is plain JSON in its place.
"""

import json
import re
import sys
from pathlib import Path

NAME = "elasticsearch.keystore"
USAGE = "usage: elasticsearch-keystore create|list|has-passwd|upgrade|show NAME|add [-x] [-f] NAME...|remove NAME..."


def load(config: Path) -> dict[str, str]:
    """Return the keystore's entries; none if there is no keystore."""
    file = config / NAME
    return json.loads(file.read_text()) if file.exists() else {}


def save(config: Path, entries: dict[str, str]) -> None:
    """Write the keystore in one step, readable as before."""
    new = config / f"{NAME}.tmp"
    new.touch()
    new.chmod(0o660)
    new.write_text(json.dumps(entries))
    new.replace(config / NAME)


def main(config: Path, arguments: list[str]) -> int:
    """Run one command as elasticsearch-keystore does; return its exit status."""
    command, flags = (arguments or [""])[0], [a for a in arguments[1:] if a.startswith("-")]
    names = [a for a in arguments[1:] if not a.startswith("-")]
    entries = load(config)
    if command == "create":
        # The seed is what every new keystore holds; the bootstrap password comes from it where none is given.
        if (config / NAME).exists() and "-f" not in flags:
            print(
                "An elasticsearch keystore already exists. Overwrite? [y/N]Exiting without creating keystore."
            )
            return 0
        save(config, {"keystore.seed": ""})
        print(f"Created elasticsearch keystore in {config / NAME}")
        return 0
    if command == "has-passwd":
        print("ERROR: Keystore is not password-protected", file=sys.stderr)
        return 1
    if command in ("add", "list", "show", "remove", "upgrade") and not (config / NAME).exists():
        print("ERROR: Elasticsearch keystore not found. Use 'create' command to create one.", file=sys.stderr)
        return 65
    return _edit(config, command, flags, names, entries)


def _edit(config: Path, command: str, flags: list[str], names: list[str], entries: dict[str, str]) -> int:
    if command == "upgrade":
        return 0
    if command == "list":
        print("\n".join(sorted(entries)))
        return 0
    if command == "show" and len(names) == 1 and names[0] in entries:
        print(entries[names[0]])
        return 0
    if command == "remove" and names and all(name in entries for name in names):
        save(config, {name: value for name, value in entries.items() if name not in names})
        return 0
    if command == "add" and names:
        return _add(config, flags, names, entries)
    print(f"ERROR: {USAGE}", file=sys.stderr)
    return 64


def _add(config: Path, flags: list[str], names: list[str], entries: dict[str, str]) -> int:
    stdin = "-x" in flags or "--stdin" in flags
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_\-.]+", name):
            print(
                f"ERROR: Setting name [{name}] does not match the allowed setting name pattern",
                file=sys.stderr,
            )
            return 64
        if name in entries and "-f" not in flags and "--force" not in flags:
            print(f"Setting {name} already exists. Overwrite? [y/N]Exiting without modifying keystore.")
            return 0
        value = sys.stdin.readline().rstrip("\n") if stdin else ""
        if not value:
            print("ERROR: a value is needed: use --stdin", file=sys.stderr)
            return 64
        entries[name] = value
    save(config, entries)
    return 0
