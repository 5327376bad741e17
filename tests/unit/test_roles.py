"""What all roles have in common: how variables are explained, specified and named, and how modules are documented."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

ROLES = sorted(Path(__file__).parents[2].glob("roles/*"))


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text()) or {}


@pytest.fixture(params=ROLES, ids=lambda role: role.name)
def role(request) -> Path:
    return request.param


def test_argument_specs_equal_the_defaults(role):
    defaults = load(role / "defaults/main.yml")
    options = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    specified = {
        name: option.get("default") for name, option in options.items() if not option.get("required")
    }
    assert specified == defaults


def test_every_option_is_described(role):
    options = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert [
        name for name, option in options.items() if not option.get("description") or not option.get("type")
    ] == []


def test_variables_carry_the_role_s_name(role):
    assert [name for name in load(role / "defaults/main.yml") if not name.startswith(f"{role.name}_")] == []
    private = role / "vars/main.yml"
    if private.exists():
        assert [name for name in load(private) if not name.startswith(f"__{role.name}_")] == []


def test_every_default_is_explained(role):
    lines = (role / "defaults/main.yml").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith(f"{role.name}_"):
            before = lines[:number]
            while before and before[-1] and not before[-1].startswith("#"):
                before.pop()
            assert before, f"{line}: no comment above"
            assert before[-1].startswith("#"), f"{line}: no comment above"


def test_readme_names_every_variable(role):
    readme = (role / "README.md").read_text()
    assert [name for name in load(role / "defaults/main.yml") if name not in readme] == []


def test_a_role_knows_what_it_shares_with_others_whatever_the_inventory(role):
    shared = load(ROLES[0].parent / "wrtflow/defaults/main.yml")
    text = "".join(file.read_text() for file in role.rglob("*") if file.suffix in (".yml", ".j2"))
    used = set(re.findall(r"\bwrtflow_[a-z_]+", text)) & set(shared)
    if used and role.name != "wrtflow":
        assert {"role": "wrtflow"} in load(role / "meta/main.yml")["dependencies"]


PROJECT = ROLES[0].parents[1]
MODULES = sorted(path for path in PROJECT.glob("roles/*/library/*") if path.suffix in (".py", ".yml"))


def documentation(module: Path) -> tuple[dict, str]:
    """Return a module's DOCUMENTATION and its EXAMPLES."""
    if module.suffix == ".yml":
        parts = load(module)
        return parts["DOCUMENTATION"], parts["EXAMPLES"]
    texts = {
        ast.unparse(node.targets[0]): node.value.value
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    return yaml.safe_load(texts["DOCUMENTATION"]), texts["EXAMPLES"]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_s_examples_use_its_options(module):
    about, examples = documentation(module)
    required = {name for name, option in about["options"].items() if option.get("required")}
    for task in yaml.safe_load(examples):
        used = set(task[module.stem] or {})
        assert required <= used <= set(about["options"])


@pytest.mark.parametrize(
    "module", [path for path in MODULES if path.suffix == ".py"], ids=lambda path: path.stem
)
def test_a_module_takes_the_options_that_it_documents(module, monkeypatch):
    code = importlib.import_module(module.stem)
    taken: dict = {}

    def stop(argument_spec: dict, **_: object) -> None:
        taken.update(argument_spec)
        raise SystemExit

    monkeypatch.setattr(code, "AnsibleModule", stop)
    with pytest.raises(SystemExit):
        code.main()
    documented, _ = documentation(module)
    meaning = ("type", "required", "default", "choices")
    assert {
        name: {key: option[key] for key in meaning if key in option}
        for name, option in documented["options"].items()
    } == {
        name: {key: option[key] for key in meaning if option.get(key) is not None}
        for name, option in taken.items()
    }


def test_dashboards_go_into_kibana_s_default_space():
    """An import into another space gets new ids, and links between dashboards break."""
    role = PROJECT / "roles/kibana"
    assert [name for name in load(role / "defaults/main.yml") if "space" in name] == []
    calls = "".join(file.read_text() for file in role.glob("tasks/*.yml"))
    assert "/api/saved_objects/_import" in calls
    assert "/s/" not in calls


@pytest.mark.parametrize("playbook", sorted(PROJECT.glob("playbooks/*.yml")), ids=lambda path: path.stem)
def test_a_user_with_sudo_may_run_every_play_and_needs_none_on_the_control_machine(playbook):
    for play in load(playbook):
        # A router has root alone. Somebody else's storage is asked from the control machine; a verdict asks nobody.
        alone = play["hosts"] in ("routers", "collector[0]") or play["name"] == "Verdict"
        assert play.get("become") or alone, play["name"]
        delegated(play.get("tasks", []))


def test_nothing_done_on_the_control_machine_asks_for_root(role):
    for file in role.glob("tasks/*.yml"):
        delegated(load(file))


def delegated(tasks: list) -> None:
    """See that tasks for the control machine, inside blocks as well, say that they need no other user."""
    for task in tasks:
        delegated([inner for part in ("block", "rescue", "always") for inner in task.get(part, [])])
        for keywords in (task, task.get("ansible.builtin.include_role", {}).get("apply", {})):
            if keywords.get("delegate_to") == "localhost":
                assert keywords.get("become") is False, task["name"]
