"""roles/syslog_ng: what its templates make of the defaults and of an inventory."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
ROLE = PROJECT / "roles/syslog_ng"
TEMPLATES = [
    "conf.d/00-chain.conf",
    "conf.d/10-source.conf",
    "conf.d/20-parse.conf",
    "conf.d/30-correlate.conf",
]

ROUTERS = {
    "attic": {"ansible_host": "192.168.1.1"},
    "cellar": {"ansible_host": "fd00::1"},
    # It has no address of its own in the inventory: whoever named it so sets the variable.
    "garden": {},
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The fragments by their names, for a house with three routers and the role's defaults."""
    folder = tmp_path_factory.mktemp("role")
    collector = {"collector": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
    inventory = {"collector": {"hosts": collector}, "routers": {"hosts": ROUTERS}}
    play = {
        "hosts": "collector",
        "gather_facts": False,
        "vars_files": [
            str(path)
            for path in (
                PROJECT / "inventory/home/group_vars/all.yml",
                ROLE / "defaults/main.yml",
                ROLE / "vars/main.yml",
            )
        ],
        "tasks": [
            {
                "ansible.builtin.template": {
                    "src": f"{ROLE}/templates/etc/{path}.j2", "dest": str(folder / Path(path).name), "mode": "0644",
                }
            }
            for path in [*(f"syslog-ng/{name}" for name in TEMPLATES), "nftables.d/wrtflow.nft"]
        ]
        + [
            {
                "ansible.builtin.template": {
                    "src": f"{ROLE}/templates/etc/syslog-ng/conf.d/10-source.conf.j2",
                    "dest": str(folder / "both.conf"), "mode": "0644",
                },
                "vars": {
                    "syslog_ng_listen_address": "::",
                    "syslog_ng_allowed_routers": ["192.168.1.1", "10.0.0.0/8", "fd00::/8"],
                },
            }
        ],
    }  # fmt: skip
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    (folder / "play.yml").write_text(json.dumps([play]))
    subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", folder / "hosts.yml", folder / "play.yml"],
        check=True,
        capture_output=True,
    )
    return {path.name: path.read_text() for path in [*folder.glob("*.conf"), *folder.glob("*.nft")]}


def test_the_inventory_s_routers_are_heard_and_nobody_else(rendered):
    networks = re.findall(r'netmask6?\("([^"]+)"\)', rendered["10-source.conf"])
    assert networks == ["192.168.1.1", "fd00::1"]


def test_one_socket_for_both_families_hears_routers_of_both(rendered):
    assert re.findall(r'netmask(6?)\("([^"]+)"\)', rendered["both.conf"]) == [
        ("6", "::ffff:192.168.1.1/128"),
        ("6", "::ffff:10.0.0.0/104"),
        ("6", "fd00::/8"),
    ]


def test_the_firewall_lets_the_same_pass(rendered):
    assert re.findall(r"(ip6?) saddr (\S+) return", rendered["wrtflow.nft"]) == [
        ("ip", "192.168.1.1"),
        ("ip6", "fd00::1"),
    ]
    assert "tcp dport { 514 } jump routers" in rendered["wrtflow.nft"]


def test_nobody_listens_for_objects_unless_asked_to(rendered):
    assert "port(514)" in rendered["10-source.conf"]
    assert not [name for name, text in rendered.items() if "wrtflow_json" in text]


def test_a_flow_may_be_open_for_a_week(rendered):
    """grouping-by() lets go a day later than flows end as timeouts."""
    assert "timeout(691200)" in rendered["30-correlate.conf"]


def test_new_code_runs_before_a_new_configuration_is_read():
    """The code of before does not know its settings: a reload would end syslog-ng."""
    handlers = [handler["name"] for handler in yaml.safe_load((ROLE / "handlers/main.yml").read_text())]
    assert handlers.index("Syslog-ng is restarted") < handlers.index("Syslog-ng is reloaded")
