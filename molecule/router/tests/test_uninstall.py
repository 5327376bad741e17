"""A router that wrtflow has left is the one it came to; a dry run there says exactly what the next run does.

These tests build on each other, in this order, and leave the router deployed.
"""

import difflib
import os
from pathlib import Path

import lab
import playbook

VIRGIN = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "virgin"


def state() -> str:
    """List all that wrtflow could change on the router."""
    lab.put("router", "/tmp/state.sh", (Path(__file__).parent / "state.sh").read_bytes())
    return lab.run("router", "sh", "/tmp/state.sh").strip()


def difference(before: str, after: str) -> list[str]:
    return list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0))


def test_uninstall_leaves_nothing_behind():
    deployed = state()
    would = playbook.succeeds("uninstall", "--check")
    assert difference(deployed, state()) == []
    assert playbook.succeeds("uninstall") == would
    assert difference(VIRGIN.read_text().strip(), state()) == []


def test_a_dry_run_says_what_the_next_run_does():
    virgin = state()
    would = playbook.succeeds("router", "--check", "--diff")
    assert difference(virgin, state()) == []
    assert playbook.succeeds("router") == would
