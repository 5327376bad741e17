"""Where the unit tests find what is no Python package: the lab's doubles, and what Ansible loads by itself."""

import sys
from pathlib import Path

import ansible.module_utils

PROJECT = Path(__file__).parents[2]
ELASTICSEARCH = PROJECT / "roles/elasticsearch"

sys.path += [
    str(PROJECT / "molecule/doubles"),
    str(ELASTICSEARCH / "library"),
    str(ELASTICSEARCH / "filter_plugins"),
]
ansible.module_utils.__path__.append(str(ELASTICSEARCH / "module_utils"))
