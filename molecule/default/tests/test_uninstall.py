"""A log server without wrtflow holds the flows and nothing else of it. The tests build on each other, in this order."""

import lab
import pytest

#: What has a name of wrtflow or Elastic's.
NAMED = "find /etc /usr/local /usr/share /var/lib /var/log -name '*wrtflow*' -o -name 'elastic*' -o -name 'kibana*'"


def left() -> set[str]:
    """Return what uninstall.yml has left on the log server."""
    found = lab.run("logserver", "sh", "-c", NAMED).split()
    # The folder stands for its content. The files of dpkg and apt stay.
    folders = ("/var/lib/elasticsearch/", "/etc/elasticsearch/", "/var/lib/dpkg/", "/var/lib/apt/")
    return {path for path in found if not path.startswith(folders)}


def uninstall(**variables: object) -> str:
    """Run uninstall.yml on the log server. Return what it said."""
    code, said = lab.deploy("uninstall.yml", variables, "--limit", "logserver")
    assert code == 0, said
    return said


def test_the_flows_stay_and_nothing_else():
    uninstall()
    assert left() == {
        "/var/lib/elasticsearch",
        "/etc/elasticsearch",
        "/etc/default/elasticsearch",
        "/var/lib/wrtflow",
        "/var/log/wrtflow",
    }
    assert lab.run("logserver", "systemctl", "is-active", "syslog-ng").strip() == "active"
    listening = lab.run("logserver", "ss", "-Hltun")
    assert [port for port in ("514", "9200", "5601") if f":{port} " in listening] == []
    assert "wrtflow" not in lab.run("logserver", "nft", "list", "tables")
    assert " changed=0 " in uninstall()


@pytest.mark.long
def test_a_new_run_finds_the_flows_and_another_removes_them():
    code, said = lab.deploy("../site.yml")
    assert code == 0, said
    assert lab.documents({"match_all": {}})
    uninstall(wrtflow_remove_data=True)
    assert left() == set()
