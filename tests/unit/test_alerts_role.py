"""The role alerts: what its preflight refuses, with what to do, and that secrets stay secret."""

from pathlib import Path

import pytest
import yaml
from play import run

ROLE = Path(__file__).parents[2] / "roles/alerts"


def preflight(folder: Path, changed: dict) -> tuple[int, str]:
    """Run the role's preflight on this machine; return the exit code and the last task's messages."""
    (folder / "secrets").mkdir()
    for name in ("reader.api-key", "elasticsearch-ca.crt"):
        (folder / "secrets" / name).touch()
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
        "tasks": yaml.safe_load((ROLE / "tasks/preflight.yml").read_text()),
    }
    variables = {
        "role_path": str(ROLE), "alerts_secrets_dir": str(folder / "secrets"), "__alerts_sendmail": "/none", **changed,
    }  # fmt: skip
    return run(folder, play, variables)


def test_the_defaults_are_fit(tmp_path):
    code, said = preflight(tmp_path, {})
    assert code == 0, said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"alerts_webhook_url": "home.example.org"}, "alerts_webhook_url has to be a web address"),
        ({"alerts_ntfy_url": "https://ntfy.sh"}, "alerts_ntfy_url a server and one topic"),
        ({"alerts_mail_to": ["a@x.org, b@x.org"]}, "take plain addresses"),
        ({"alerts_letter_to": ["-oQ/tmp"]}, "take plain addresses"),
        ({"alerts_letter_to": ["a@x.org"]}, "has no /none, which alerts_mail_to and alerts_letter_to need"),
        ({"alerts_at_most": 0}, "alerts_at_most is 0"),
        ({"alerts_rules_file": "/none.toml"}, "there is no /none.toml"),
        ({"alerts_rules_file": str(ROLE / "defaults/main.yml")}, "wrtflow-alerts: "),
        ({"alerts_secrets_dir": "/none"}, "/none/reader.api-key is missing. playbooks/storage.yml makes it"),
    ],
    ids=str,
)
def test_what_can_not_work_is_refused_with_what_to_do(tmp_path, changed, said):
    code, told = preflight(tmp_path, changed)
    assert code == 2
    assert said in told


def test_secrets_are_in_files_that_nobody_else_reads():
    tasks = yaml.safe_load((ROLE / "tasks/configure.yml").read_text())
    (settings,) = [task for task in tasks if task["name"] == "Settings are there"]
    assert settings["no_log"] is True
    assert settings["ansible.builtin.template"]["mode"] == "0600"
