"""The settings of a house, for tests of what takes them."""

from pathlib import Path

from wrtflow.settings import Delivery, Settings


def settings(folder: Path, **changed: object) -> Settings:
    """Return settings whose folders are one folder of the test's own."""
    chosen: dict = {
        "index_prefix": "network",
        "home_networks": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
        "flow_timeout": 604800,
        "state_directory": str(folder),
        "log_directory": str(folder),
        "geolite_directory": str(folder),
        "delivery": Delivery(url="https://localhost:9200"),
    }
    return Settings(**(chosen | changed))
