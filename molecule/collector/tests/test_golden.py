"""tests/golden: each case's lines in, its documents out, by the installed fragments and a real syslog-ng."""

import json
import os
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[3] / "tests/golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.log"))


@pytest.fixture(scope="module")
def player(machine) -> str:
    machine.put("/root/golden/player.py", (GOLDEN / "player.py").read_bytes())
    return "/root/golden/player.py"


def test_there_are_cases():
    assert CASES


@pytest.mark.parametrize("case", CASES)
def test_case(machine, player, case):
    machine.put(f"/root/golden/{case}.log", (GOLDEN / f"{case}.log").read_bytes())
    played = machine.run("python3", player, f"/root/golden/{case}.log")
    expected = GOLDEN / f"{case}.json"
    # For the author of a case: writes what comes out, to be read and committed.
    if os.environ.get("WRTFLOW_GOLDEN") == "write":
        expected.write_text(played)
    assert json.loads(played) == json.loads(expected.read_text())
