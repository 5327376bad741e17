"""Run a play on this machine, for tests of what a role's tasks and templates do without a lab."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(
    folder: Path, play: dict, variables: dict | None = None, inventory: dict | None = None
) -> tuple[int, str]:
    """Run a play; return ansible-playbook's exit code, and the messages of the last task on one line.

    folder: for the play and the inventory. inventory: the groups; without it there is localhost only.
    """
    (folder / "hosts.json").write_text(json.dumps(inventory or {"all": {"hosts": {"localhost": {}}}}))
    (folder / "play.json").write_text(json.dumps([play]))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    done = subprocess.run(
        [
            Path(sys.executable).parent / "ansible-playbook",
            f"--inventory={folder / 'hosts.json'}",
            f"--extra-vars={json.dumps(local | (variables or {}))}",
            folder / "play.json",
        ],
        env=os.environ | {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    return done.returncode, " ".join(" ".join(_messages(json.loads(done.stdout))).split())


def _messages(answer: dict[str, Any]) -> list[str]:
    """Return all messages of the last task, those of a loop's items as well."""
    results = answer["plays"][0]["tasks"][-1]["hosts"].values()
    items = [item for result in results for item in (result, *result.get("results", []))]
    return [str(item["msg"]) for item in items if "msg" in item]
