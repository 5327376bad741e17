"""tests/golden: each case's lines in, its documents out, by the installed fragments and a real syslog-ng."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[3] / "tests/golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.log"))


@pytest.fixture(scope="module")
def played(machine, request) -> Iterator[dict[str, Future[str]]]:
    """What comes out of each case that was chosen (-k). They wait more than they work: three at a time."""
    chosen = [item.callspec.params["case"] for item in request.session.items if "played" in item.fixturenames]
    machine.put("/root/golden/player.py", (GOLDEN / "player.py").read_bytes())

    def play(case: str) -> str:
        machine.put(f"/root/golden/{case}.log", (GOLDEN / f"{case}.log").read_bytes())
        return machine.run("python3", "/root/golden/player.py", f"/root/golden/{case}.log")

    with ThreadPoolExecutor(3) as pool:
        yield {case: pool.submit(play, case) for case in chosen}


def test_there_are_cases():
    assert CASES


@pytest.mark.parametrize("case", CASES)
def test_case(played, case):
    documents = played[case].result()
    expected = GOLDEN / f"{case}.json"
    # For the author of a case: write the documents, to be read and committed.
    if os.environ.get("WRTFLOW_GOLDEN") == "write":
        expected.write_text(documents)
    assert json.loads(documents) == json.loads(expected.read_text())
