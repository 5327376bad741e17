"""roles/syslog_ng: what its templates make of the defaults and of an inventory."""

import re
from pathlib import Path

import pytest
import yaml
from play import run
from wrtflow import settings

PROJECT = Path(__file__).parents[2]
ROLE = PROJECT / "roles/syslog_ng"
TEMPLATES = ["syslog-ng/conf.d/10-source.conf", "syslog-ng/wrtflow/firewall.nft"]

ROUTERS = {
    "attic": {"ansible_host": "192.168.1.1"},
    "cellar": {"ansible_host": "fd00::1"},
    # It has no address of its own in the inventory: whoever named it so sets the variable.
    "garden": {},
}


# Variables of some houses.
HOUSES: dict[str, dict] = {
    "plain": {},
    "both": {
        "syslog_ng_listen_address": "::",
        "syslog_ng_allowed_routers": ["192.168.1.1", "10.0.0.0/8", "fd00::/8"],
        "syslog_ng_json_port": 5140,
    },
}


def run_play(
    folder: Path, play: dict, changed: dict | None = None, routers: dict = ROUTERS
) -> tuple[int, str]:
    """Run a play for the collector of a house with three routers; return the exit code and the last messages."""
    machine = {"hosts": {"logserver": {}}}
    inventory = {
        "collector": machine,
        "storage": machine,
        "dashboards": machine,
        "routers": {"hosts": routers},
    }
    return run(folder, play, changed, inventory)


# Variables of all houses.
FILES = [
    str(PROJECT / "roles/wrtflow/defaults/main.yml"),
    str(ROLE / "defaults/main.yml"),
    str(ROLE / "vars/main.yml"),
]


def render(folder: Path, house: str, changed: dict) -> list[dict]:
    """Return the tasks that write a house's files into a folder."""
    return [
        {
            "ansible.builtin.template": {
                "src": f"{ROLE}/templates/etc/{path}.j2",
                "dest": str(folder / f"{house}-{Path(path).name}"),
                "mode": "0644",
            },
            "vars": changed,
        }
        for path in TEMPLATES
    ]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of each house by their names, HOUSE-NAME."""
    folder = tmp_path_factory.mktemp("role")
    play = {"hosts": "collector", "gather_facts": False, "vars_files": FILES}
    written = {
        "content": "{{ __syslog_ng_settings | to_json }}",
        "dest": str(folder / "x.json"),
        "mode": "0644",
    }
    tasks = [task for house, changed in HOUSES.items() for task in render(folder, house, changed)]
    code, said = run_play(folder, play | {"tasks": [*tasks, {"ansible.builtin.copy": written}]})
    assert code == 0, said
    assert settings.load(folder / "x.json").names.local_domains == ("lan", "home.arpa")
    for house, garden in (
        ("udp", {"wrtflow_syslog_transport": "udp"}),
        ("one_udp", {"openwrt_collector_transport": "udp"}),
    ):
        tasks = render(folder, house, {})
        code, said = run_play(folder, play | {"tasks": tasks}, routers=ROUTERS | {"garden": garden})
        assert code == 0, said
    return {path.name: path.read_text() for path in [*folder.glob("*.conf"), *folder.glob("*.nft")]}


def test_the_inventory_s_routers_are_heard_and_nobody_else(rendered):
    networks = re.findall(r'netmask6?\("([^"]+)"\)', rendered["plain-10-source.conf"])
    assert networks == ["192.168.1.1", "fd00::1"]


def test_one_socket_for_both_families_hears_routers_of_both(rendered):
    assert re.findall(r'netmask(6?)\("([^"]+)"\)', rendered["both-10-source.conf"]) == [
        ("6", "::ffff:192.168.1.1/128"),
        ("6", "::ffff:10.0.0.0/104"),
        ("6", "fd00::/8"),
    ]


def test_the_firewall_lets_the_same_pass(rendered):
    assert re.findall(r"(ip6?) saddr (\S+) goto", rendered["plain-firewall.nft"]) == [
        ("ip", "192.168.1.1"),
        ("ip6", "fd00::1"),
    ]


@pytest.mark.parametrize(
    ("house", "ports"),
    [
        ("plain", ["tcp . 514"]),
        ("udp", ["tcp . 514", "udp . 514"]),
        ("one_udp", ["tcp . 514", "udp . 514"]),
        ("both", ["tcp . 514", "tcp . 5140"]),
    ],
)
def test_the_ports_are_those_that_the_routers_use(rendered, house, ports):
    (opened,) = re.findall(r"dport \{ (.*) \} jump routers", rendered[f"{house}-firewall.nft"])
    assert opened.split(", ") == ports
    source = rendered[f"{house}-10-source.conf"]
    listened = re.findall(r'transport\("(\w+)"\).*?\n +port\((\d+)\)', source, re.DOTALL)
    assert [f"{transport} . {port}" for transport, port in listened] == ports
    assert ("s_wrtflow_json" in source) == ("tcp . 5140" in ports)


def test_a_house_never_uses_up_the_connections(rendered):
    """One address never gets all of them, and each one that is alive has room for a fetch."""
    source, firewall = rendered["plain-10-source.conf"], rendered["plain-firewall.nft"]
    most = int(re.search(r"max-connections\((\d+)\)", source)[1])
    each = {int(count) for count in re.findall(r"ct count over (\d+)", firewall)}
    assert most >= 100
    assert each == {16}
    assert f"log-iw-size({most * 1000})" in source


def test_new_code_runs_before_a_new_configuration_is_read():
    """The code of before does not know its settings. Nothing is read or run that has not been checked."""
    handlers = [handler["name"] for handler in yaml.safe_load((ROLE / "handlers/main.yml").read_text())]
    assert handlers[:2] == ["Settings are checked", "Configuration is checked"]
    assert handlers.index("Syslog-ng is restarted") < handlers.index("Syslog-ng is reloaded")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {
                "left_out": ["laptop"],
                "flow_timeout": 0,
                "devices": {"10.0.0.1": "", "10.0.0.0/8": "tv"},
                "elasticsearch_url": "http://a:9200",
            },
            [
                'syslog_ng_left_out[0] is "laptop"',
                "syslog_ng_flow_timeout is 0",
                'syslog_ng_devices["10.0.0.1"] is ""',
                'a key of syslog_ng_devices is "10.0.0.0/8"',
                'syslog_ng_elasticsearch_url is "http://a:9200"',
            ],
        ),
        ({"state_directory": "/root/wrtflow"}, ["syslog_ng_state_directory /root/wrtflow"]),
        ({"state_directory": "/var/lib"}, ["syslog_ng_state_directory /var/lib has to be a folder"]),
        ({"allowed_routers": ["10.0.0.0/255.0.0.0"]}, ["syslog_ng_allowed_routers is ["]),
        ({"json_port": 514}, ["syslog_ng_json_port 514"]),
    ],
)
def test_preflight_says_what_is_wrong_before_anything_is_changed(tmp_path, changed, said):
    """The machine of the test is left alone: the first task that would change it is not in the play."""
    tasks = yaml.safe_load((ROLE / "tasks/preflight.yml").read_text())
    first, last = (
        [task["name"] for task in tasks].index(name)
        for name in ("The addresses of routers are addresses or networks", "The settings can be used")
    )
    play = {
        "hosts": "collector",
        "gather_facts": False,
        "vars_files": FILES,
        "vars": {"role_path": str(ROLE)},
        "tasks": tasks[first : last + 1],
    }
    code, told = run_play(tmp_path, play, {f"syslog_ng_{name}": value for name, value in changed.items()})
    assert code == 2
    assert [part for part in said if part not in told] == []
