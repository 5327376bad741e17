"""tools/scenarios.py: what it prints while two scenarios run at the same time, and what it says at the end."""

import pytest
import scenarios

MOLECULE = """#!/bin/sh
# Takes molecule's place: the scenario's name says what to do.
case $3 in
one) other=two ;;
two) other=one ;;
*) other= ;;
esac
echo "$3 one"
# Each of the two waits for the other's first line.
: >"began-$3"
until [ -z "$other" ] || [ -e "began-$other" ]; do sleep 0.01; done
echo "$3 two"
case $3 in bad*) echo '│ E   assert 1 == 2'; exit 1 ;; esac
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return a function that runs scenarios in as many labs, and returns exit status and output."""
    (tmp_path / "molecule").write_text(MOLECULE)
    (tmp_path / "molecule").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)

    def run(*names: str, labs: int) -> tuple[int, str]:
        monkeypatch.setattr(scenarios, "second_lab", lambda: ["env", "LAB=second"] if labs == 2 else [])
        return scenarios.main(list(names)), capsys.readouterr().out

    return run


def shown(name: str) -> str:
    return f"\n=== scenario {name} ===\n{name} one\n{name} two\n"


def test_each_scenario_s_output_is_in_one_piece_whatever_runs_beside_it(run):
    code, out = run("one", "two", "three", labs=2)
    assert code == 0
    for name in ("one", "two", "three"):
        assert shown(name) in out
    assert out.endswith("\n3 passed, 0 failed\n")


def test_one_output_is_shown_as_it_comes_and_the_other_one_after_it(capsys):
    screen, first, second = scenarios.Screen(), object(), object()
    screen.begin(first)
    screen.begin(second)
    screen.write(second, "hidden")
    screen.write(first, "first")
    assert capsys.readouterr().out == "first"
    screen.end(second, "second")
    screen.end(first, "unused")
    assert capsys.readouterr().out == "second"
    screen.begin(second)
    screen.write(second, "shown")
    assert capsys.readouterr().out == "shown"


def test_a_scenario_that_fails_does_not_stop_the_others_and_its_reason_is_in_the_summary(run):
    code, out = run("bad", "good", labs=1)
    assert code == 1
    assert out.startswith(shown("bad"))
    summary = out.partition("=== scenarios ===")[2].split("\n")
    assert summary[1].startswith("bad          FAILED in ")
    assert summary[2] == "│ E   assert 1 == 2"
    assert summary[3].startswith("good         passed in ")
    assert summary[-2] == "1 passed, 1 failed"


def test_a_user_who_is_not_root_runs_one_scenario_at_a_time(monkeypatch, capsys):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert scenarios.second_lab() == []
    assert capsys.readouterr().out == "One scenario at a time: this is not root.\n"
