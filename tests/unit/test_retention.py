"""wrtflow-retention: every month gets its date, the oldest go when there are too many, the current one never."""

import calendar
import json
import sys
from typing import Any

import pytest
import wrtflow_retention as retention
from wrtflow_retention import RetentionError, allowed, first_of, keep, month_of, size, surplus

NOW = calendar.timegm((2026, 11, 1, 0, 0, 1))
OLD, LAST, CURRENT = "network-2026.09", "network-2026.10", "network-2026.11"


class Storage(retention.Storage):
    """Stands for Elasticsearch: months with their bytes, and what is done to them."""

    def __init__(self, sizes: dict[str, int], dates: dict[str, str] | None = None) -> None:
        self._prefix, self.kept, self.dated = "network", dict(sizes), dates or {}
        self.done: list[tuple[str, str, Any]] = []
        self.snapshots: list[dict[str, Any]] = []

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        if method != "GET":
            self.done.append((method, path, body))
            return {}
        if "_snapshot" in path:
            assert path.startswith("/_snapshot/nas/")
            return {"snapshots": self.snapshots}
        if "_segments" in path:
            return {
                "indices": {
                    index: {"shards": {"0": [{"segments": {"_0": {"size_in_bytes": taken}}}]}}
                    for index, taken in self.kept.items()
                }
            }
        return {
            index: {
                "settings": {"index.lifecycle.origination_date": self.dated[index]}
                if index in self.dated
                else {}
            }
            for index in self.kept
        }

    @property
    def dropped(self) -> list[str]:
        return [path for method, path, _ in self.done if method == "DELETE"]


def run(storage: Storage, max_size: str = "0", now: float = NOW, repository: str = "") -> list[str]:
    settings = {"prefix": "network", "max_size": max_size, "data_directory": "/", "repository": repository}
    return list(keep(storage, settings, now))


class TestDates:
    def test_a_month_s_age_counts_from_its_first_day(self):
        storage = Storage({OLD: 1, CURRENT: 1})
        said = run(storage)
        begin = calendar.timegm((2026, 9, 1, 0, 0, 0)) * 1000
        assert storage.done[0] == (
            "PUT", f"/{OLD}/_settings", {"index.lifecycle.origination_date": begin},
        )  # fmt: skip
        assert [line.split(":")[0] for line in said] == [OLD, CURRENT]

    def test_a_date_that_is_right_is_left_alone_and_a_wrong_one_is_not(self):
        storage = Storage({OLD: 1, LAST: 1}, {OLD: str(first_of("2026.09")), LAST: str(first_of("2026.09"))})
        run(storage)
        assert [path for _, path, _ in storage.done] == [f"/{LAST}/_settings"]

    def test_what_is_no_month_is_none_of_ours(self):
        storage = Storage({"network-old-2019.03": 9, "network-2026.13": 9, "network-2026.11-copy": 9})
        assert run(storage, "1b") == []
        assert storage.done == []

    @pytest.mark.parametrize("index", ["network-2026.1", "network-2026.00", "xnetwork-2026.01", "network"])
    def test_names_are_read_strictly(self, index):
        assert month_of(index, "network") is None
        assert month_of("a.b-2026.01", "a.b") == "2026.01"
        assert month_of("axb-2026.01", "a.b") is None


class TestSize:
    @pytest.mark.parametrize(
        ("limit", "going"),
        [(60, []), (59, [OLD]), (50, [OLD]), (49, [OLD, LAST]), (30, [OLD, LAST]), (0, [OLD, LAST])],
    )
    def test_as_few_go_as_have_to_and_never_the_current_one(self, limit, going):
        assert surplus({CURRENT: 30, OLD: 10, LAST: 20}, limit, CURRENT) == going

    def test_the_oldest_goes_and_it_is_told(self):
        storage = Storage({OLD: 10, LAST: 20, CURRENT: 30})
        said = run(storage, "55b")
        assert storage.dropped == [f"/{OLD}"]
        assert (
            f"{OLD}: dropped, 10.0b. The flows took 60.0b, and elasticsearch_max_size is 55b (55.0b)" in said
        )

    def test_the_current_month_alone_is_too_much(self):
        storage = Storage({LAST: 20, CURRENT: 30})
        with pytest.raises(RetentionError, match=r"take 30\.0b and may take 10\.0b, and no closed month"):
            run(storage, "10b")
        assert storage.dropped == [f"/{LAST}"]

    def test_a_month_is_closed_when_it_is_over_in_utc(self):
        storage = Storage({LAST: 20, CURRENT: 30})
        with pytest.raises(RetentionError):
            run(storage, "10b", NOW - 2)
        assert storage.dropped == []

    def test_without_a_limit_nothing_goes(self):
        storage = Storage({OLD: 1 << 50})
        run(storage, "0")
        assert storage.dropped == []

    @pytest.mark.parametrize(
        ("max_size", "count"),
        [("0", None), ("0%", None), ("500mb", 500 << 20), ("1.5gb", 3 << 29), ("1TB", 1 << 40), ("7b", 7)],
    )
    def test_sizes_are_understood(self, max_size, count):
        assert allowed(max_size, "/") == count

    def test_a_share_is_of_the_disk_that_the_flows_lie_on(self, monkeypatch):
        class Usage:
            total = 1000

        asked = []
        monkeypatch.setattr(retention.shutil, "disk_usage", lambda path: asked.append(path) or Usage)
        assert allowed("75%", "/srv/flows") == 750
        assert asked == ["/srv/flows"]

    def test_a_share_of_a_disk_that_is_not_there(self, tmp_path):
        with pytest.raises(RetentionError, match="'s disk can't be read"):
            allowed("75%", str(tmp_path / "gone"))

    @pytest.mark.parametrize("max_size", ["", "10", "ten", "10 parsecs", "-1gb"])
    def test_other_sizes_are_refused(self, max_size):
        with pytest.raises(RetentionError, match="elasticsearch_max_size is"):
            allowed(max_size, "/")

    def test_people_read_sizes_in_the_units_they_write(self):
        assert [size(n) for n in (0, 1023, 1 << 20, 3 << 29, 1 << 41)] == [
            "0.0b", "1023.0b", "1.0mb", "1.5gb", "2.0tb",
        ]  # fmt: skip


class TestSnapshots:
    """Where snapshots are taken, a month goes only when one has all of it."""

    def snapshot(self, *indices: str, begin: tuple[int, ...], state: str = "SUCCESS") -> dict[str, Any]:
        return {
            "state": state,
            "indices": list(indices),
            "start_time_in_millis": calendar.timegm(begin) * 1000,
        }

    @pytest.mark.parametrize(
        ("snapshots", "going"),
        [
            ([], []),
            ([((2026, 9, 30, 23, 59, 59), "SUCCESS", OLD)], []),
            ([((2026, 10, 1, 1, 30, 0), "PARTIAL", OLD)], []),
            ([((2026, 10, 1, 1, 30, 0), "SUCCESS", LAST)], []),
            ([((2026, 10, 1, 1, 30, 0), "SUCCESS", OLD)], [OLD]),
            ([((2026, 10, 1, 1, 30, 0), "SUCCESS", OLD), ((2026, 9, 2, 1, 30, 0), "SUCCESS", OLD)], [OLD]),
        ],
    )
    def test_a_month_waits_for_a_complete_one_that_began_when_it_was_over(self, snapshots, going):
        storage = Storage({OLD: 10, LAST: 20, CURRENT: 30})
        storage.snapshots = [
            self.snapshot(index, begin=begin, state=state) for begin, state, index in snapshots
        ]
        if going:
            run(storage, "55b", repository="nas")
        else:
            with pytest.raises(RetentionError, match=rf"{OLD} would be dropped, but no snapshot in nas"):
                run(storage, "55b", repository="nas")
        assert storage.dropped == [f"/{index}" for index in going]

    def test_nobody_asks_for_snapshots_while_there_is_room(self):
        storage = Storage({OLD: 10})
        storage.snapshots = [{}]
        run(storage, "55b", repository="nas")
        assert storage.dropped == []

    @pytest.mark.parametrize(
        ("month", "next_month"), [("2026.01", "2026.02"), ("2026.11", "2026.12"), ("2026.12", "2027.01")]
    )
    def test_a_month_ends_where_the_next_one_begins(self, month, next_month):
        assert retention.end_of(month) == first_of(next_month)


def test_nobody_there_is_one_sentence_and_status_1(tmp_path, monkeypatch):
    settings = tmp_path / "retention.json"
    known = {"url": "https://127.0.0.1:1", "prefix": "network", "ca": None, "key": "k", "max_size": "0"}
    settings.write_text(json.dumps({**known, "data_directory": "/"}))
    monkeypatch.setattr(sys, "argv", ["wrtflow-retention", "--settings", str(settings)])
    with pytest.raises(SystemExit, match=r"Elasticsearch does not answer at https://127\.0\.0\.1:1"):
        retention.main()
