"""The stand-in's keystore: the settings that Kibana keeps out of kibana.yml, and the tool bin/kibana-keystore.

It has the vendor tool's commands, words and exit codes; its file is base64 instead of encrypted.
"""

import argparse
import base64
import json
import os
import sys
from pathlib import Path


def path() -> Path:
    """Return the keystore's path."""
    return Path(os.environ.get("KBN_PATH_CONF", "/etc/kibana")) / "kibana.keystore"


def load() -> dict:
    """Return all settings by name. Raise FileNotFoundError if there is no keystore."""
    return json.loads(base64.b64decode(path().read_text().partition(":")[2]))


def save(settings: dict) -> None:
    """Write all settings; the file keeps its owner and mode, as with the vendor's tool."""
    path().write_text("1:" + base64.b64encode(json.dumps(settings).encode()).decode())


def add(name: str, force: bool, stdin: bool) -> int:
    """Store standard input; as JSON if it is JSON, as the vendor's tool does."""
    settings = load()
    if name in settings and not force:
        print(f"Setting {name} already exists, exiting without modifying keystore.")
        return 0
    if not stdin:
        print("ERROR: only --stdin works without a terminal", file=sys.stderr)
        return 1
    value = sys.stdin.read().strip()
    try:
        settings[name] = json.loads(value)
    except ValueError:
        settings[name] = value
    save(settings)
    return 0


def main() -> int:
    """Run one command of bin/kibana-keystore."""
    parser = argparse.ArgumentParser(prog="kibana-keystore")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("create")
    commands.add_parser("list")
    for name in ("show", "remove", "add"):
        command = commands.add_parser(name)
        command.add_argument("key")
        if name == "add":
            command.add_argument("-f", "--force", action="store_true")
            command.add_argument("-x", "--stdin", action="store_true")
    arguments = parser.parse_args()

    if arguments.command == "create":
        if path().exists():
            print("A Kibana keystore already exists. Overwrite? [y/N] Exiting without modifying keystore.")
            return 0
        save({})
        print(f"Created Kibana keystore in {path()}")
        return 0
    if not path().exists():
        print("ERROR: Kibana keystore not found. Use 'create' command to create one.", file=sys.stderr)
        return 0 if arguments.command == "add" else 255
    settings = load()
    if arguments.command == "list":
        print("\n".join(settings))
        return 0
    if arguments.command == "add":
        return add(arguments.key, arguments.force, arguments.stdin)
    if arguments.key not in settings:
        print("ERROR: Kibana keystore doesn't have requested key.", file=sys.stderr)
        return 255
    value = settings.pop(arguments.key)
    if arguments.command == "remove":
        save(settings)
    else:
        # Kibana's tool can say a word of its own on standard output first.
        print("Kibana is currently running with legacy OpenSSL providers enabled!")
        print(value if isinstance(value, str) else json.dumps(value))
    return 0


if __name__ == "__main__":
    sys.exit(main())
