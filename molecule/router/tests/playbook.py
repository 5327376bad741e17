"""Run the project's playbooks on the lab's router, and return their messages."""

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any

import lab


@dataclass
class Run:
    """The result of a playbook on the router."""

    failed: bool
    #: The tasks that changed something, each with the items of its loop that did.
    changed: list[tuple[str, list[Any]]]
    #: Everything that the tasks had to say.
    said: str


def run(name: str, *options: str, **variables: Any) -> Run:
    """Run playbooks/NAME.yml on the router. AssertionError where Ansible itself does not run."""
    done = subprocess.run(
        [
            "ansible-playbook",
            "-i",
            "inventory/lab",
            "-e",
            json.dumps(variables),
            "--limit",
            "routers",
            *options,
            f"playbooks/{name}.yml",
        ],
        cwd=lab.PROJECT,
        env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_ROLES_PATH": "roles"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    answer = json.loads(done.stdout)
    changed, said = [], []
    for task in answer["plays"][0]["tasks"]:
        for result in task["hosts"].values():
            if result.get("changed"):
                items = [item["item"] for item in result.get("results", []) if item["changed"]]
                changed.append((task["task"]["name"], items))
            said += [str(each["msg"]) for each in (result, *result.get("results", [])) if "msg" in each]
    stats = answer["stats"]["router"]
    return Run(bool(stats["failures"] or stats["unreachable"]), changed, "\n".join(said))


def succeeds(name: str, *options: str, **variables: Any) -> list[tuple[str, list[Any]]]:
    """Run playbooks/NAME.yml on the router; return what it changed. AssertionError where it fails."""
    done = run(name, *options, **variables)
    assert not done.failed, done.said
    return done.changed
