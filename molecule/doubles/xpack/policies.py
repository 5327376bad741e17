"""Lifecycle policies as Elasticsearch checks and shows them."""

import re
from itertools import pairwise
from typing import Any

from .answers import RefusedError, bad_request

PHASES = ("hot", "warm", "cold", "frozen", "delete")
ACTIONS = {
    "hot": {"set_priority", "unfollow", "rollover", "readonly", "downsample", "shrink", "forcemerge",
            "searchable_snapshot"},
    "warm": {"set_priority", "unfollow", "readonly", "downsample", "allocate", "migrate", "shrink", "forcemerge"},
    "cold": {"set_priority", "unfollow", "readonly", "downsample", "searchable_snapshot", "allocate", "migrate"},
    "frozen": {"unfollow", "searchable_snapshot"},
    "delete": {"wait_for_snapshot", "delete"},
}  # fmt: skip
NEED_ROLLOVER = {"readonly", "shrink", "forcemerge", "downsample", "searchable_snapshot"}

# Parameters of an action: those that must be given, and the others with what Elasticsearch adds.
PARAMETERS: dict[str, tuple[set[str], dict[str, Any]]] = {
    "set_priority": ({"priority"}, {}),
    "unfollow": (set(), {}),
    "readonly": (set(), {}),
    "migrate": (set(), {"enabled": True}),
    "forcemerge": ({"max_num_segments"}, {"index_codec": None}),
    "delete": (set(), {"delete_searchable_snapshot": True}),
    "wait_for_snapshot": ({"policy"}, {}),
    "searchable_snapshot": ({"snapshot_repository"}, {"force_merge_index": True}),
}
UNITS = {"nanos": 1e-9, "micros": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(value: Any, name: str) -> float:
    """Return an Elasticsearch time value in seconds, or refuse it: there is no unit above days."""
    found = re.fullmatch(r"(\d+)(nanos|micros|ms|s|m|h|d)", str(value).strip().lower())
    # Of all units only the minute keeps its case: a month, M, is nothing that Elasticsearch knows.
    if found and not str(value).strip().endswith("M"):
        return int(found[1]) * UNITS[found[2]]
    if str(value) in ("0", "-1"):
        return float(value)
    raise bad_request(
        f"failed to parse setting [{name}] with value [{value}] as a time value: unit is missing or unrecognized"
    )


def _fail(reason: str) -> RefusedError:
    return bad_request(reason, "x_content_parse_exception")


def check(body: Any) -> dict[str, Any]:
    """Return the policy as Elasticsearch would show it, or refuse it."""
    if not isinstance(body, dict) or set(body) != {"policy"} or not isinstance(body["policy"], dict):
        raise _fail("[put_lifecycle_request] failed to parse field [policy]")
    policy = body["policy"]
    for name in set(policy) - {"phases", "_meta", "deprecated"}:
        raise _fail(f"[lifecycle_policy] unknown field [{name}]")
    if not isinstance(policy.get("phases"), dict):
        raise _fail("Required [phases]")
    shown: dict[str, Any] = {}
    for name, phase in policy["phases"].items():
        if name not in PHASES:
            raise bad_request(f"Timeseries lifecycle does not support phase [{name}]")
        shown[name] = _phase(name, phase)
    hot = shown.get("hot", {}).get("actions", {})
    if "rollover" not in hot and NEED_ROLLOVER & set(hot):
        names = ", ".join(sorted(NEED_ROLLOVER & set(hot)))
        raise bad_request(
            f"the [{names}] action(s) may not be used in the [hot] phase without an accompanying [rollover] action"
        )
    _check_order(shown)
    return {"phases": shown, **{key: policy[key] for key in ("_meta", "deprecated") if key in policy}}


def _phase(name: str, phase: Any) -> dict[str, Any]:
    if not isinstance(phase, dict):
        raise _fail(f"[phases] {name} doesn't support values of type: VALUE_STRING")
    for unknown in set(phase) - {"min_age", "actions"}:
        raise _fail(f"[phase] unknown field [{unknown}]")
    seconds(phase.get("min_age", "0ms"), "min_age")
    actions = {}
    for action, parameters in (phase.get("actions") or {}).items():
        if action not in set().union(*ACTIONS.values()):
            raise _fail(f"unknown field [{action}]")
        if action not in ACTIONS[name]:
            raise bad_request(f"invalid action [{action}] defined in phase [{name}]")
        actions[action] = _action(action, parameters)
    return {"min_age": str(phase.get("min_age", "0ms")), "actions": actions}


def _action(action: str, parameters: Any) -> dict[str, Any]:
    if not isinstance(parameters, dict):
        raise _fail(f"[{action}] expected an object")
    if action not in PARAMETERS:
        return parameters
    required, defaults = PARAMETERS[action]
    for name in required - set(parameters):
        raise _fail(f"Required [{name}]")
    for name in set(parameters) - required - set(defaults):
        raise _fail(f"[{action}_action] unknown field [{name}]")
    if action == "forcemerge" and int(parameters["max_num_segments"]) < 1:
        raise bad_request("[max_num_segments] must be a positive integer")
    added = {name: value for name, value in defaults.items() if value is not None}
    return {**added, **parameters}


def _check_order(phases: dict[str, Any]) -> None:
    ages = [(name, seconds(phases[name]["min_age"], "min_age")) for name in PHASES if name in phases]
    for (first, early), (second, late) in pairwise(ages):
        if late and late < early:
            raise bad_request(
                f"Your policy is configured to run the {second} phase (min_age: {phases[second]['min_age']}) before"
                f" the {first} phase (min_age: {phases[first]['min_age']}). You should change the phase timing so that"
                " the phases will execute in the order of hot, warm, then cold."
            )


def take_out(settings: Any) -> tuple[Any, dict[str, str]]:
    """Return index settings without index.lifecycle.*, which the core would refuse, and what was taken out.

    All of Elasticsearch's spellings are understood: nested, dotted, with and without ``index``.
    """
    taken: dict[str, str] = {}

    def walk(tree: Any, path: str) -> Any:
        if not isinstance(tree, dict):
            return tree
        kept = {}
        for key, value in tree.items():
            full = f"{path}.{key}" if path else key
            bare = full.removeprefix("index.")
            if bare == "lifecycle" and isinstance(value, dict):
                taken.update({name: str(setting) for name, setting in value.items()})
            elif bare.startswith("lifecycle."):
                taken[bare.removeprefix("lifecycle.")] = str(value)
            else:
                kept[key] = walk(value, full)
        return kept

    return walk(settings, ""), taken
