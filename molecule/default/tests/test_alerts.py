"""Alerts and letter, deployed as a user does it: a webhook gets what happens in the lab, a mailbox gets the letter."""

import json
import secrets
import sys
import time
from pathlib import Path

import lab
import pytest

sys.path.append(str(Path(__file__).parents[3] / "tests/unit"))
import house_weeks

DOUBLES = Path(__file__).parents[2] / "doubles"
RULES = (Path(__file__).parents[3] / "roles/alerts/files/rules.toml").read_text()

#: Seconds after which what has not come will not come, however slow the machine is.
LONG = 120

GUEST = f"guest-{secrets.token_hex(2)}"


def on_logserver(*command: str) -> str:
    return lab.run("logserver", *command)


def look() -> None:
    """Have the unit look once. systemd refuses a unit that is started too often within ten seconds."""
    on_logserver("sh", "-c", "systemctl reset-failed wrtflow-alerts; systemctl start wrtflow-alerts")


class Hook:
    """The receiver, on the client."""

    file = f"/run/{GUEST}.hooks"
    url = "http://10.77.0.20:8099/alerts"

    def messages(self) -> list[dict]:
        lines = lab.run("client", "sh", "-c", f"cat {self.file} 2>/dev/null || true").splitlines()
        return [json.loads(line) for line in lines]

    def wait_for(self, state: str, beginning: str) -> dict:
        """Have the unit look until a message comes whose title begins so."""

        def found() -> dict | None:
            look()
            return next(
                (
                    one
                    for one in self.messages()
                    if one["state"] == state and one["title"].startswith(beginning)
                ),
                None,
            )

        return lab.wait_for(f"an alert: {beginning}", found, LONG)


@pytest.fixture(scope="module")
def hook(tmp_path_factory):
    """Alerts and letter are on, with rules that don't take minutes, and the receiver listens."""
    rules = tmp_path_factory.mktemp("rules") / "rules.toml"
    quick = RULES.replace("after = 30", "after = 0.05\ncalm = 0", 1).replace(
        "first_day = 24", "first_day = 0"
    )
    rules.write_text(quick)
    lab.put("client", "/run/webhook.py", (DOUBLES / "webhook/webhook.py").read_bytes())
    lab.put("logserver", "/usr/sbin/sendmail", (DOUBLES / "sendmail/sendmail").read_bytes(), 0o755)
    on_logserver("mkdir", "-m", "1777", "-p", "/var/spool/sent")
    client = lab.container("client")
    client.exec_run(["python3", "/run/webhook.py", "8099", Hook.file], detach=True)
    code, said = lab.deploy(
        "alerts.yml",
        {
            "alerts_webhook_url": Hook.url,
            "alerts_rules_file": str(rules),
            "alerts_letter_to": ["me@example.org"],
            # Whatever else the lab has to tell.
            "alerts_at_most": 100,
        },
    )
    assert code == 0, said
    yield Hook()
    code, said = lab.deploy("alerts.yml")
    assert code == 0, said
    for timer in ("wrtflow-alerts.timer", "wrtflow-report.timer"):
        state = on_logserver("sh", "-c", f"systemctl is-enabled {timer}; systemctl is-active {timer}; true")
        assert state.split() == ["disabled", "inactive"]
    on_logserver(
        "rm",
        "-rf",
        "/usr/sbin/sendmail",
        "/var/spool/sent",
        "/var/lib/wrtflow-alerts",
    )
    client.exec_run(["pkill", "-f", "/run/webhook.py"])


@pytest.fixture
def guest():
    """A device that was never there before, with a lease; its address."""
    mac = "02:77" + "".join(f":{byte:02x}" for byte in secrets.token_bytes(4))
    script = f"""
        lan=$(ip -o -4 address show | awk '$4 ~ /^10\\.77\\.0\\.20\\// {{ print $2 }}')
        ip link add {GUEST} link "$lan" address {mac} type macvlan mode bridge
        ip link set {GUEST} up
        busybox udhcpc -f -n -q -i {GUEST} -x hostname:{GUEST} -s /lab/lease >&2
        ip address replace "$(cat /run/lease.{GUEST})/32" dev {GUEST}
        cat /run/lease.{GUEST}
    """
    yield lab.run("client", "sh", "-ec", script).strip()
    lab.run("client", "ip", "link", "delete", GUEST)


def visit(device: str, site: str) -> None:
    """Have a device call a site, and wait until that is stored."""
    (flow,) = lab.send_traffic(
        [{"device": device, "transport": "tcp", "family": 4, "site": site, "port": 80, "down": 1000}]
    )
    query = {
        "bool": {"filter": [{"term": {"source.ip": device}}, {"term": {"source.port": flow["source_port"]}}]}
    }
    lab.wait_for(f"the flow to {site}", lambda: lab.documents(query), LONG)


def test_a_new_device_and_its_first_contact_to_a_country(hook, guest):
    visit(guest, "www.photoprint.example")
    told = hook.wait_for("alert", f"A new device is in the house: {GUEST}")
    assert told["rule"] == "new-device"
    assert told["manufacturer"] == "private MAC address"
    visit(guest, "telemetry.gadget.example")
    told = hook.wait_for("alert", f"{GUEST} has called China (telemetry.gadget.example)")
    assert told["device"] == GUEST
    assert told["link"].startswith(f"{lab.KIBANA}/app/dashboards#/view/wrtflow-device?")
    assert GUEST in told["link"]
    # Two more looks at the same hour have nothing to tell.
    for _ in range(2):
        look()
    titles = [one["title"] for one in hook.messages() if GUEST in one["title"]]
    assert len(titles) == len(set(titles)) == 2


def test_a_router_that_goes_silent_and_speaks_again(hook):
    router = lab.container("router")
    router.pause()
    try:
        told = hook.wait_for("alert", "OpenWrt is silent: no line has come for")
    finally:
        router.unpause()
    visit(lab.LAPTOP, "www.photoprint.example")
    assert hook.wait_for("well again", "Well again: OpenWrt speaks again")["since"] == told["since"]


@pytest.fixture
def weeks():
    """Six weeks of a house are stored besides the lab's own flows; afterwards they are gone."""
    documents = house_weeks.weeks(time.time())
    names = [
        {"_index": f"network-{one['@timestamp'][:7].replace('-', '.')}", "_id": f"{GUEST}-{number}"}
        for number, one in enumerate(documents)
    ]
    there = lab.elasticsearch("GET", "/network-*/_settings?filter_path=*.settings.index.uuid")
    bulk = [line for name, one in zip(names, documents, strict=True) for line in ({"create": name}, one)]
    answer = lab.elasticsearch("POST", "/_bulk?refresh=true", bulk, user="elastic")
    assert answer["errors"] is False, answer["items"][0]
    yield
    for index in {name["_index"] for name in names} - there.keys():
        lab.elasticsearch("DELETE", f"/{index}", user="elastic")
    bulk = [{"delete": name} for name in names if name["_index"] in there]
    lab.elasticsearch("POST", "/_bulk?refresh=true", bulk, user="elastic")


def test_the_letter_has_the_figures_of_the_documents(hook, weeks):
    found = json.loads(on_logserver("wrtflow", "report", "--json"))
    documents = lab.documents({"range": {"@timestamp": {"lt": house_weeks.iso(found["end"])}}})
    wanted = house_weeks.expected(documents, found["end"])
    assert {name: found[name] for name in ("flows", "outbound", "unnamed", "timeouts")} == {
        name: wanted[name] for name in ("flows", "outbound", "unnamed", "timeouts")
    }
    assert {one["device"] for one in found["new_devices"]} == wanted["new_devices"] >= {"esp"}
    assert {device: set(names) for device, names in found["new_countries"].items()} == wanted["new_countries"]
    assert {device: sites["count"] for device, sites in found["new_sites"].items()} == {
        device: len(sites) for device, sites in wanted["new_sites"].items()
    }
    columns = ("up", "down", "night", "usual_up", "usual_down", "usual_night")
    traffic = {one["device"]: tuple(one[name] for name in columns) for one in found["traffic"]}
    assert traffic == {device: pytest.approx(figures) for device, figures in wanted["traffic"].items()}


def test_the_letter_is_sent_by_the_unit(hook):
    on_logserver("systemctl", "start", "wrtflow-report")
    mail = on_logserver("sh", "-c", "cat /var/spool/sent/*")
    assert mail.startswith("X-Recipients: me@example.org\n")
    assert "Subject: Your network, " in mail.replace("\n ", " ")
    assert "Most traffic" in mail
